"""No two things that happen at once wait for each other for ever: on a database that locks single rows.

The order everywhere: a person's row, a session's row, the head of the audit log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from launcher import parts, services
from launcher.catalog import LaunchChoices
from launcher.models import Allowance, InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.integration,
    pytest.mark.usefixtures("demo_cluster"),
    pytest.mark.skipif("sqlite" in connection.vendor, reason="SQLite has one lock for everything"),
]

CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """In a transaction: ``work`` begins in another one; the body goes on once that waits for this or is done."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # the test says it
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: _somebody_waits() or not thread.is_alive(), what="the other transaction")
    yield
    transaction.on_commit(lambda: thread.join(90))
    transaction.on_commit(lambda: errors and pytest.fail(repr(errors)))


def test_a_session_is_continued_while_its_news_are_written(alice: User) -> None:
    session = InteractiveSession.objects.create(
        owner=alice,
        username="alice",
        app="jupyter",
        cluster="demo",
        state=SessionState.READY,
        created_at=now(),
        choices=CHOICES.as_dict(),
    )

    def go_on() -> None:
        services.create_session(
            owner=alice,
            app=parts.apps()["jupyter"],
            cluster=parts.clusters()["demo"],
            choices=CHOICES,
            address="",
            continuing=session,
        )

    with transaction.atomic():  # as a poll round does
        InteractiveSession.objects.select_for_update().get(pk=session.pk)
        with meanwhile(go_on):
            record(events.SessionKeptRunning(), actor="alice", session_id=session.pk)
    assert session.continuations.count() == 1


def test_somebody_launches_while_an_administrator_changes_what_they_may_have(alice: User, admin: User) -> None:
    def allow() -> None:
        services.set_allowance(user=alice, sessions=2, hours=None, actor=admin, address="")

    with transaction.atomic():  # as a launch and a sign-in do
        User.objects.select_for_update().get(pk=alice.pk)
        with meanwhile(allow):
            record(events.UserSignedIn(way="test"), actor="alice")
    assert Allowance.objects.get().sessions == 2
