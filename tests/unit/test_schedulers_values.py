"""The small readers of what schedulers print."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.schedulers import values


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("0kb", 0),
        ("1kb", 1),
        ("6244kb", 7),
        ("4gb", 4096),
        ("4GB", 4096),
        ("100mb", 100),
        ("1048576", 1),
        ("1048577b", 2),
        ("1mw", 8),
        ("1.5gb", None),
        ("-1kb", None),
        ("", None),
        (None, None),
        ("٣kb", None),
    ],
)
def test_sizes(text: str | None, mib: int | None) -> None:
    assert values.size_mib(text) == mib


def test_what_is_free_is_rounded_down() -> None:
    assert values.size_mib("24684084kb", round_up=False) == 24_105


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90:00", 5_400),
        ("02:00:00", 7_200),
        ("100:00:00", 360_000),
        ("1-02:00:00", 93_600),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("00:10:00.5", 600),
        ("UNLIMITED", None),
        ("1:2:3:4", None),
        ("-5", None),
        ("", None),
        (None, None),
        ("²", None),
    ],
)
def test_durations(text: str | None, seconds: int | None) -> None:
    assert values.duration_seconds(text) == seconds


@given(st.integers(0, 366 * 86_400))
def test_a_duration_is_read_back_as_written(seconds: int) -> None:
    assert values.duration_seconds(values.clock_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun Nov 22 23:56:41 2026", dt.datetime(2026, 11, 22, 23, 56, 41, tzinfo=dt.UTC)),
        ("Tue Jan  1 00:00:00 2030", dt.datetime(2030, 1, 1, tzinfo=dt.UTC)),
        ("Sun Xxx 22 23:56:41 2026", None),
        ("Sun Feb 31 23:56:41 2026", None),
        ("Fri Dec 31 23:59:59 9999", None),  # no such moment east of Greenwich
        ("2026-11-22", None),
        (None, None),
    ],
)
def test_times_of_pbs(text: str | None, moment: dt.datetime | None) -> None:
    assert values.ctime_utc(text) == moment


@pytest.mark.parametrize("text", ["0", "-1", "99999999999", "x", None])
def test_a_number_that_is_no_time_is_none(text: str | None) -> None:
    assert values.epoch_utc(text) is None


@given(st.one_of(st.text(max_size=100), st.binary(max_size=100)))
def test_printable_text_can_be_stored_and_shown(text: str | bytes) -> None:
    shown = values.printable(text, 50)
    assert len(shown) <= 50
    assert shown.encode().decode() == shown
    assert all(character == "\n" or character.isprintable() for character in shown)


@given(st.text(max_size=60))
def test_no_text_breaks_a_reader(text: str) -> None:
    for read in (values.integer, values.size_mib, values.duration_seconds, values.ctime_utc, values.epoch_utc):
        read(text)
    assert all(values.is_host_name(host) for host in values.execution_hosts(text))
