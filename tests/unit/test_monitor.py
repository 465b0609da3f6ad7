"""What one answer of the scheduler means for one session."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.monitor import Watched, decide
from launcher.schedulers.base import JobState, JobStatus
from launcher.states import SessionState, may_move

NOW = dt.datetime(2026, 3, 1, 9, 0, tzinfo=dt.UTC)


def watched(state: SessionState, *, missing_count: int = 0, running_seconds: float | None = None) -> Watched:
    started_at = None if running_seconds is None else NOW - dt.timedelta(seconds=running_seconds)
    return Watched(state=state, missing_count=missing_count, started_at=started_at, start_timeout_seconds=300)


def job(state: JobState) -> JobStatus:
    return JobStatus(job_id="1.pbs", state=state)


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.ENDED])
def test_one_answer_without_the_job_ends_nothing(state: SessionState) -> None:
    decision = decide(watched(state), None, NOW)
    assert not decision.has_ended
    assert decision.missing_count == 1


def test_a_second_answer_without_the_job_ends_the_session() -> None:
    assert decide(watched(SessionState.READY, missing_count=1), None, NOW).has_ended


def test_an_answer_with_the_job_forgets_that_it_was_missing() -> None:
    decision = decide(watched(SessionState.READY, missing_count=1), job(JobState.RUNNING), NOW)
    assert decision.missing_count == 0
    assert not decision.has_ended


def test_a_finished_job_ends_the_session() -> None:
    assert decide(watched(SessionState.STARTING), job(JobState.FINISHED), NOW).has_ended


def test_an_unknown_job_state_changes_nothing() -> None:
    decision = decide(watched(SessionState.READY), job(JobState.UNKNOWN), NOW)
    assert decision.move_to is None
    assert not decision.has_ended


def test_a_late_queued_answer_does_not_move_a_ready_session_back() -> None:
    assert decide(watched(SessionState.READY), job(JobState.QUEUED), NOW).move_to is None


def test_a_running_job_starts_the_session() -> None:
    assert decide(watched(SessionState.QUEUED), job(JobState.RUNNING), NOW).move_to is SessionState.STARTING


def test_a_held_job_is_still_queued() -> None:
    assert decide(watched(SessionState.SUBMITTING), job(JobState.HELD), NOW).move_to is SessionState.QUEUED


def test_the_start_times_out_counted_from_running() -> None:
    assert decide(watched(SessionState.STARTING, running_seconds=301), job(JobState.RUNNING), NOW).start_timed_out
    assert not decide(watched(SessionState.STARTING, running_seconds=299), job(JobState.RUNNING), NOW).start_timed_out


def test_a_suspended_job_does_not_time_out() -> None:
    assert not decide(watched(SessionState.STARTING, running_seconds=900), job(JobState.SUSPENDED), NOW).start_timed_out


@given(
    state=st.sampled_from(SessionState),
    missing_count=st.integers(0, 5),
    seconds=st.none() | st.floats(0, 1e6),
    job_state=st.none() | st.sampled_from(JobState),
)
def test_whatever_comes_a_session_only_moves_forward_and_an_ended_one_stays(
    state: SessionState, missing_count: int, seconds: float | None, job_state: JobState | None
) -> None:
    decision = decide(
        watched(state, missing_count=missing_count, running_seconds=seconds), job_state and job(job_state), NOW
    )
    if decision.move_to is not None:
        assert may_move(state, decision.move_to)
    if state is SessionState.ENDED:
        assert not decision.has_ended
        assert not decision.start_timed_out
    if decision.has_ended:
        assert job_state is JobState.FINISHED or (job_state is None and missing_count >= 1)
