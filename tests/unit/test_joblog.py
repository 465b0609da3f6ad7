"""The marker lines of a session's log."""

from __future__ import annotations

import datetime as dt

import pytest

from launcher.joblog import ExitCode, Failure, Step, failure, steps, stopped_when_idle, without_markers

LOG = """This is node01.
footbridge: step=environment at=1763870000
Loading things
footbridge: step=server at=1763870002
"""


def test_steps_are_read_with_their_times() -> None:
    at = dt.datetime(2025, 11, 23, 3, 53, 20, tzinfo=dt.UTC)
    assert steps(LOG) == (Step("environment", at), Step("server", at + dt.timedelta(seconds=2)))


def test_a_failure_is_read_with_what_it_is_about() -> None:
    assert failure(LOG + "footbridge: failed=module_missing subject=a b/1\n") == Failure("module_missing", "a b/1")


def test_no_failure_is_none() -> None:
    assert failure(LOG) is None


def test_an_unknown_word_is_no_failure() -> None:
    assert failure("footbridge: failed=everything subject=\n") is None


def test_a_marker_within_a_line_is_text() -> None:
    assert steps("he said footbridge: step=server at=1\n") == ()


def test_a_huge_time_is_no_step() -> None:
    assert steps(f"footbridge: step=server at={'9' * 30}\n") == ()


def test_an_idle_stop_is_seen() -> None:
    assert stopped_when_idle("x\nfootbridge: ended=idle\n")
    assert not stopped_when_idle(LOG)


def test_exit_codes_stay_clear_of_shells_and_signals() -> None:
    assert all(64 < code < 126 for code in ExitCode)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_people_read_the_log_without_its_marker_lines(end: str) -> None:
    ending = f"footbridge: failed=module_missing subject=a b/1\nfootbridge: ended=idle{end}"
    assert without_markers(LOG + "footbridge: of my own\n" + ending) == (
        "This is node01.\nLoading things\nfootbridge: of my own\n"
    )
