"""The demonstration cluster's output formats, against every recorded answer of OpenPBS that shows them."""

from __future__ import annotations

import json
import re

import pytest

from launcher.democluster.pbs.attributes import Attribute, encoded_variables
from launcher.democluster.pbs.formats import (
    dsv_record,
    folded,
    json_document,
    json_value,
    shown,
    split_variables,
)
from tests.democluster_recordings import recorded

FOLDED = ["fold-text-raw", "finished-walltime-text", "comment-dep-afterok-text", "exec-host-2-chunks-text",
          "state-exiting-text", "comment-user-run-limit-text", "queues-text"]  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_unfolding_and_folding_again_gives_the_recording_back(name: str) -> None:
    answer = recorded(name).stdout
    lines = [line for line in answer.replace(b"\n\t", b"").split(b"\n") if line.startswith(b"    ")]
    assert len(lines) > 10
    again = []
    for line in lines:
        key, _, value = line.strip(b"\n").partition(b" = ")
        again.append(folded(key.strip().decode(), value.decode()))
    kept = re.sub(rb"^(?:Job Id|Queue): .*\n|^\n", b"", answer, flags=re.MULTILINE)
    assert b"".join(again) == kept


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("nan", b"nan"),
        ("inf", b"inf"),
        ("+5", b"+5"),
        (".5", b".5"),
        ("5.", b"5."),
        ("1e5", b"1e5"),
        ("00", b"00"),
        ("0x0", b"0x0"),
        ("007", b'"007"'),
        ("0x10", b'"0x10"'),
        ("12345", b"12345"),
        ("123456789012345678901234567890", b"123456789012345678901234567890"),
        ("00:05:00", b'"00:05:00"'),
        ("100mb", b'"100mb"'),
        ('a"b', b'"a\\"b"'),
        ('"ab"', b'""ab\\""'),
        ('a\\"b', b'"a\\"b"'),
        ("ab\\", b'"ab\\"'),
        ("a\\,b", b'"a,b"'),
        ("a\nb", b'"a\\nb"'),
        ("a\tb", b'"a\\tb"'),
        ("a\x01b", b'"a^Ab"'),
        ("", b'""'),
    ],
)
def test_json_values_are_as_odd_as_recorded(value: str, written: bytes) -> None:
    assert json_value(value) == written


def test_bytes_that_cannot_be_printed_get_a_caret() -> None:
    assert shown("d\u00e9\u65e5") == b"d^\x03^\xe9^&^\xd7^\xe5"


def test_dsv_escapes_its_delimiter_and_line_ends() -> None:
    record = dsv_record("Job Id: 1.x", [Attribute("Account_Name", "a\x1eb\njob_state=F")], "\x1e")
    assert record == b"Job Id: 1.x\x1eAccount_Name=a\\^^b\\njob_state=F\n"


def test_a_forged_field_cannot_part_a_dsv_line() -> None:
    value = "x\x1ejob_state=F\n\x1eJob Id: 2.x"
    record = dsv_record("Job Id: 1.x", [Attribute("Account_Name", value), Attribute("job_state", "R")], "\x1e")
    assert record.count(b"\n") == 1
    assert [part for part in record.split(b"\x1e") if part.startswith(b"job_state")] == [b"job_state=R\n"]


def test_an_answer_without_jobs_is_valid_json_and_lacks_the_last_newline() -> None:
    written = json_document("Jobs", (), 1795391805)
    assert written.replace(b"demo-pbs", b"pbs01") == recorded("qstat-json-unknown").stdout.replace(
        b"1795391809", b"1795391805"
    )
    assert json.loads(written)["pbs_server"] == "demo-pbs"


def test_variables_survive_their_encoding() -> None:
    pairs = [("A", "a,b"), ("B", "x=y"), ("C", "")]
    encoded = encoded_variables(pairs)
    assert encoded == "A=a\\,b,B=x=y,C="
    assert [name for name, _ in split_variables(encoded)] == ["A", "B", "C"]
