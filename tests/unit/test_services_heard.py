"""Answers that say nothing new: they cost no transaction of their own, and nothing that matters is taken for one."""

from __future__ import annotations

import pytest
from django.utils import timezone

from launcher import services
from launcher.models import InteractiveSession
from launcher.monitor import Decision
from launcher.schedulers.base import JobState, JobStatus
from launcher.states import SessionState

RUNNING = JobStatus(job_id="1.pbs", state=JobState.RUNNING, execution_hosts=("node1",), memory_used_mib=100)


def ready(**changes: object) -> InteractiveSession:
    """A session whose job runs on node1, as the last answer left it."""
    values: dict[str, object] = {
        "id": "abc",
        "username": "alice",
        "cluster": "demo",
        "state": SessionState.READY,
        "created_at": timezone.now(),
        "started_at": timezone.now(),
        "job_id": "1.pbs",
        "job_state": "running",
        "execution_host": "node1",
        "memory_used_mib": 100,
    }
    return InteractiveSession(**values | changes)


def test_the_same_answer_again_says_nothing_new() -> None:
    assert services.says_nothing_new(ready(), status=RUNNING, decision=Decision())


def test_another_amount_of_memory_alone_says_nothing_new_and_is_kept() -> None:
    session = ready(memory_used_mib=50)
    assert services.says_nothing_new(session, status=RUNNING, decision=Decision())
    assert session.memory_used_mib == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"unreachable_since": timezone.now()},
        {"missing_count": 1},
        {"execution_host": "node2"},
        {"job_comment": "before"},
        {"started_at": None},
        {"job_state": "suspended"},
        {"exit_status": 1, "job_state": "queued"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_row_does_not_have_yet_is_news(changes: dict[str, object]) -> None:
    assert not services.says_nothing_new(ready(**changes), status=RUNNING, decision=Decision())


@pytest.mark.parametrize(
    "decision",
    [Decision(move_to=SessionState.STARTING), Decision(has_ended=True), Decision(start_timed_out=True)],
    ids=["moves", "has ended", "timed out"],
)
def test_an_answer_that_leads_to_something_is_news(decision: Decision) -> None:
    assert not services.says_nothing_new(ready(), status=RUNNING, decision=decision)


def test_a_job_that_was_left_out_is_news() -> None:
    assert not services.says_nothing_new(ready(), status=None, decision=Decision(missing_count=1))


@pytest.mark.django_db
def test_all_that_were_heard_of_get_the_time_and_some_their_memory() -> None:
    first, second = ready(), ready(id="def", host_label="other", job_id="2.pbs")
    for session in (first, second):
        session.save(force_insert=True)
    services.record_heard({"abc": 200, "def": None})
    for session in (first, second):
        session.refresh_from_db()
        assert session.polled_at is not None
    assert (first.memory_used_mib, second.memory_used_mib) == (200, 100)


@pytest.mark.django_db
def test_a_session_that_ended_meanwhile_stays_as_it_ended() -> None:
    session = ready(
        state=SessionState.ENDED, ended_at=timezone.now(), end_reason="completed", end_code="ended.completed"
    )
    session.save(force_insert=True)
    services.record_heard({"abc": 200})
    session.refresh_from_db()
    assert (session.polled_at, session.memory_used_mib) == (None, 100)
