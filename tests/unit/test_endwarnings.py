"""When an owner is warned of a session's end."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.endwarnings import due, end_in, is_told, minutes_for

BEGIN = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)


def minutes(number: float) -> dt.timedelta:
    return dt.timedelta(minutes=number)


@pytest.mark.parametrize(
    ("whole", "chosen", "counting"),
    [
        (480, [30, 10], [30, 10]),
        (60, [30, 10], [30, 10]),
        (59, [30, 10], [10]),
        (15, [30, 10], [3]),
        (3, [30, 10], []),
        (480, [], []),
        (15, [], []),
        (480, [10, 10], [10]),
    ],
)
def test_a_number_counts_when_it_is_at_most_half_of_the_session(
    whole: int, chosen: list[int], counting: list[int]
) -> None:
    assert minutes_for(chosen, whole=minutes(whole)) == counting


@pytest.mark.parametrize(("left", "warning"), [(31, None), (30, 30), (11, 30), (10, 10), (0.1, 10), (0, None)])
def test_the_last_warning_whose_time_has_come_is_due(left: float, warning: int | None) -> None:
    end = BEGIN + minutes(480)
    assert due([30, 10], begun_at=BEGIN, ends_at=end, at=end - minutes(left)) == warning


def test_nothing_is_due_before_the_job_runs() -> None:
    assert due([30], begun_at=None, ends_at=BEGIN + minutes(5), at=BEGIN) is None


@given(
    chosen=st.lists(st.integers(1, 1440), max_size=5),
    whole=st.integers(1, 3000),
    passed=st.floats(0, 1),
)
def test_nobody_is_warned_in_the_first_half_of_a_session(chosen: list[int], whole: int, passed: float) -> None:
    end = BEGIN + minutes(whole)
    at = BEGIN + minutes(whole * passed)
    if due(chosen, begun_at=BEGIN, ends_at=end, at=at) is not None:
        assert at - BEGIN >= (end - BEGIN) / 2 - dt.timedelta(milliseconds=1)


def test_a_warning_is_told_by_one_nearer_to_the_same_end() -> None:
    end = BEGIN + minutes(60)
    ten = {"minutes": 10, "ends_at": end.isoformat()}
    assert is_told(ten, 10, end)
    assert is_told(ten, 30, end + dt.timedelta(seconds=20))
    assert not is_told(ten, 5, end)
    assert not is_told(ten, 10, end + minutes(60))


@pytest.mark.parametrize("value", [None, 7, "soon", "2026-03-02T09:00:00"])
def test_what_is_no_moment_with_a_zone_is_none(value: object) -> None:
    assert end_in({"ends_at": value}) is None
