"""What owners are told without having asked: once each, whatever is restarted, repeated or late."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from launcher import services
from launcher.flows.remind import warn_of_ends
from launcher.models import InteractiveSession, Notice, NoticeKind
from launcher.selectors import ends_to_warn_of
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.clock import now

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey")]


def running(person: User, *, left: float, whole: float = 480, **values: object) -> InteractiveSession:
    """A session that is ready and has so many minutes left of the whole."""
    ends_at = now() + dt.timedelta(minutes=left)
    begun_at = ends_at - dt.timedelta(minutes=whole)
    fields: dict[str, object] = {
        "owner": person,
        "username": person.username,
        "cluster": "demo",
        "app": "jupyter",
        "title": "Analysis",
        "choices": {"cores": 1, "memory_mib": 1024, "walltime_seconds": int(whole * 60)},
        "state": SessionState.READY,
        "created_at": begun_at,
        "started_at": begun_at,
        "ready_at": begun_at,
        "walltime_ends_at": ends_at,
    }
    return InteractiveSession.objects.create(**fields | values)


def told(session: InteractiveSession) -> list[tuple[str, object]]:
    return [(notice.kind, notice.params.get("minutes")) for notice in session.notices.order_by("pk")]


def test_the_same_fact_is_told_once(alice: User) -> None:
    session = running(alice, left=60)
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update().get(pk=session.pk)
        answers = [services.tell_owner(locked, kind=NoticeKind.IDLE, key="idle:1") for _ in range(2)]
    assert answers == [True, False]
    assert told(session) == [("idle", None)]


@pytest.mark.parametrize(
    ("left", "whole", "warned"), [(29, 480, [30]), (9, 480, [10]), (31, 480, []), (14, 15, []), (3, 15, [3])]
)
def test_an_owner_is_warned_of_the_end(alice: User, left: float, whole: float, warned: list[int]) -> None:
    session = running(alice, left=left, whole=whole)
    for _ in range(3):
        warn_of_ends()
    assert told(session) == [("time", minutes) for minutes in warned]


def test_each_chosen_number_of_minutes_is_told_once(alice: User) -> None:
    session = running(alice, left=25)
    warn_of_ends()
    InteractiveSession.objects.update(walltime_ends_at=now() + dt.timedelta(minutes=9))
    Notice.objects.update(params={"minutes": 30, "ends_at": (now() + dt.timedelta(minutes=9)).isoformat()})
    warn_of_ends()
    warn_of_ends()
    assert told(session) == [("time", 30), ("time", 10)]


def test_a_new_end_is_warned_of_anew(alice: User) -> None:
    session = running(alice, left=9)
    warn_of_ends()
    InteractiveSession.objects.update(walltime_ends_at=now() + dt.timedelta(minutes=120))
    warn_of_ends()
    assert told(session) == [("time", 10)]
    InteractiveSession.objects.update(walltime_ends_at=now() + dt.timedelta(minutes=8))
    Notice.objects.update(params={"minutes": 10, "ends_at": (now() - dt.timedelta(minutes=60)).isoformat()})
    warn_of_ends()
    assert told(session) == [("time", 10), ("time", 10)]


def test_an_end_that_the_cluster_tells_a_little_differently_is_no_new_one(alice: User) -> None:
    session = running(alice, left=9)
    warn_of_ends()
    InteractiveSession.objects.update(walltime_ends_at=now() + dt.timedelta(minutes=9, seconds=30))
    warn_of_ends()
    assert len(told(session)) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"state": SessionState.QUEUED, "started_at": None},
        {"state": SessionState.STOPPING},
        {"stop_requested_at": dt.datetime(2026, 3, 2, tzinfo=dt.UTC)},
        {"owner": None},
    ],
    ids=["not running", "stopping", "stop wanted", "nobody's"],
)
def test_who_needs_no_warning_gets_none(alice: User, values: dict[str, object]) -> None:
    session = running(alice, left=9, **values)
    warn_of_ends()
    assert services.warn_of_end(session.pk) is False
    assert told(session) == []


def test_without_chosen_minutes_nobody_is_warned(alice: User) -> None:
    User.objects.update(warn_minutes=[])
    session = running(alice, left=9)
    warn_of_ends()
    assert told(session) == []


def test_reminders_at_the_same_moment_warn_once(alice: User) -> None:
    session = running(alice, left=9)

    def remind(_: int) -> bool:
        try:
            return services.warn_of_end(session.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(remind, range(8))) == [False] * 7 + [True]
    assert told(session) == [("time", 10)]


def test_a_round_asks_two_questions_when_all_is_told(alice: User, django_assert_num_queries: object) -> None:
    for number in range(20):
        running(alice, left=9 + number / 100)
    warn_of_ends()
    with django_assert_num_queries(2):  # type: ignore[operator]  # pytest-django's fixture
        assert ends_to_warn_of() == []


def test_a_warning_that_fails_takes_nobody_elses_away(alice: User, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [running(alice, left=8), running(bob, left=9)]
    broken = ends_to_warn_of()[0]
    right = services.warn_of_end

    def warn(session_id: str) -> bool:
        if session_id == broken:
            raise RuntimeError("of this session alone")
        return right(session_id)

    monkeypatch.setattr(services, "warn_of_end", warn)
    warn_of_ends()
    assert sorted(len(told(session)) for session in sessions) == [0, 1]


def test_the_owner_is_told_that_it_is_ready(alice: User) -> None:
    session = running(alice, left=60, state=SessionState.STARTING, ready_at=None)
    services.record_ready(session.pk)
    services.record_ready(session.pk)
    assert told(session) == [("ready", None)]


def end(session: InteractiveSession, reason: EndReason) -> None:
    services.end_session(session.pk, reason=reason, code=f"ended.{reason}", params={})


def test_the_owner_is_told_why_it_ended(alice: User) -> None:
    session = running(alice, left=60)
    end(session, EndReason.OUT_OF_MEMORY)
    end(session, EndReason.OUT_OF_MEMORY)
    assert told(session) == [("ended", None)]


def test_who_stopped_it_is_not_told_that_it_ended(alice: User) -> None:
    session = running(alice, left=60, stop_requested_by="alice", stop_requested_at=now())
    end(session, EndReason.STOPPED_BY_USER)
    assert told(session) == []


def test_the_owner_is_told_that_somebody_else_stopped_it(alice: User) -> None:
    session = running(alice, left=60, stop_requested_by="admin", stop_requested_at=now())
    end(session, EndReason.STOPPED_BY_ADMIN)
    assert told(session) == [("ended", None)]
