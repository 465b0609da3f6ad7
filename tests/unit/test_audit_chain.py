"""The chain's arithmetic, without a database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.audit import chain
from portal.audit.chain import Break, Flaw, Link, Tip
from portal.audit.export import csv_lines, json_lines

AT = dt.datetime(2026, 11, 23, 8, 30, 15, 7, tzinfo=dt.UTC)


def link(sequence: int = 1, previous: str = chain.GENESIS, **changes: object) -> Link:
    """A right row."""
    row = Link(
        sequence=sequence,
        at=AT,
        name="session.submitted",
        version=1,
        actor="alice",
        address="192.0.2.7",
        session_id="abcdefghjkmn",
        data_json='{"job_id":"7.pbs01"}',
        previous_hash=previous,
    )
    row = dataclasses.replace(row, **changes)  # type: ignore[arg-type]  # the caller knows the fields
    return dataclasses.replace(row, hash=chain.row_hash(row))


def test_hash_is_that_of_the_documented_text() -> None:
    """Anybody can compute it: this is the format, written out."""
    text = (
        '{"actor":"alice","address":"192.0.2.7","at":"2026-11-23T08:30:15.000007Z","data":{"job_id":"7.pbs01"},'
        '"name":"session.submitted","previous_hash":"' + "0" * 64 + '","sequence":1,"session_id":"abcdefghjkmn",'
        '"version":1}'
    )
    assert link().hash == hashlib.sha256(text.encode()).hexdigest()


def test_hash_does_not_depend_on_the_zone_of_the_time() -> None:
    shanghai = AT.astimezone(dt.timezone(dt.timedelta(hours=8)))
    assert link(at=shanghai).hash == link().hash


def test_text_is_utf_8_and_not_escaped() -> None:
    assert chain.canonical({"b": "分析", "a": [1, None, True]}) == '{"a":[1,null,true],"b":"分析"}'


def test_right_row_has_no_flaw() -> None:
    first = link()
    assert chain.flaw_after(Tip(1, first.hash), link(2, first.hash)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": "bob"},
        {"address": ""},
        {"at": AT + dt.timedelta(microseconds=1)},
        {"name": "session.ready"},
        {"version": 2},
        {"session_id": ""},
        {"data_json": '{"job_id":"8.pbs01"}'},
        {"data_json": '{"job_id": "7.pbs01"}'},  # the same value in other letters
        {"data_json": "{"},
        {"data_json": "[" * 100_000},
        {"previous_hash": "1" * 64},
    ],
)
def test_any_changed_member_is_an_edit(changes: dict[str, object]) -> None:
    edited = dataclasses.replace(link(), **changes)  # type: ignore[arg-type]  # the fields of Link, by name
    assert chain.flaw_after(Tip(), edited) == Break(1, Flaw.EDITED)


def test_gap_names_the_missing_row() -> None:
    assert chain.flaw_after(Tip(4, "a" * 64), link(7)) == Break(5, Flaw.MISSING)


def test_whole_row_after_another_row_is_misplaced() -> None:
    assert chain.flaw_after(Tip(1, "a" * 64), link(2, "b" * 64)) == Break(2, Flaw.MISPLACED)


def test_row_with_a_number_that_was_there_before_is_extra() -> None:
    assert chain.flaw_after(Tip(2, "a" * 64), link(sequence=2, previous="a" * 64)) == Break(2, Flaw.EXTRA)


def test_seal_needs_the_key() -> None:
    tip = Tip(7, "a" * 64)
    seal = chain.head_seal(tip, "the portal's key")
    assert chain.is_sealed(tip, seal, ["a newer key", "the portal's key"])
    assert not chain.is_sealed(tip, seal, ["a newer key"])
    assert not chain.is_sealed(Tip(6, tip.hash), seal, ["the portal's key"])


def test_json_line_hashes_to_its_own_hash() -> None:
    document = json.loads(json_lines([link()]))
    stated = document.pop("hash")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == stated


def test_json_line_shows_a_row_that_was_spoilt() -> None:
    spoilt = dataclasses.replace(link(), data_json="{oops")
    assert json.loads(json_lines([spoilt]))["data"] == "{oops"


@pytest.mark.parametrize("actor", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_has_no_formulas(actor: str) -> None:
    assert f",'{actor}," in csv_lines([link(actor=actor)]).replace('"', "")


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()))
def test_canonical_text_gives_the_same_value_back(data: dict[str, object]) -> None:
    finite = {k: v for k, v in data.items() if not isinstance(v, float) or abs(v) != float("inf")}
    assert json.loads(chain.canonical(finite)) == finite
