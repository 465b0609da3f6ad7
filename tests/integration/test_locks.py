"""No two things that happen at once wait for each other for ever: on a database that locks single rows.

The order everywhere: a person's row, a session's row, the head of the audit log. What a new row refers to is locked by
the database itself, at the commit and thus after all others: our own locks (``no_key``) let that pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from launcher import grants, leaving, parts, sealing, selectors, services
from launcher.catalog import LaunchChoices
from launcher.models import Allowance, InteractiveSession
from launcher.proxy.access_types import Verdict
from launcher.states import SessionState
from portal.accounts import services as account_services
from portal.accounts.models import Role, User, WebSession
from portal.accounts.ways.base import Identity, Proved
from portal.audit import events
from portal.audit.services import record
from portal.clock import now
from tests.entering import code_of, redeemed
from tests.story import signed_in
from tests.waiting import wait_for

if connection.vendor == "sqlite":
    pytest.skip("SQLite has one lock for everything", allow_module_level=True)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.integration,
    pytest.mark.usefixtures("demo_cluster"),
]

CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")


def _somebody_waits() -> bool:
    """Whether another transaction waits for this one. Other processes of the tests use the same server."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks AS theirs JOIN pg_locks AS ours USING (transactionid) "
            "WHERE NOT theirs.granted AND ours.pid = pg_backend_pid()"
        )
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


@pytest.fixture
def session(alice: User) -> InteractiveSession:
    """A session of alice that is ready, without a job."""
    return InteractiveSession.objects.create(
        owner=alice,
        username="alice",
        app="jupyter",
        cluster="demo",
        state=SessionState.READY,
        created_at=now(),
        choices=CHOICES.as_dict(),
        upstream_host="node1",
        upstream_port=9000,
        secret_encrypted=sealing.seal("secret"),
    )


def before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, work: Callable[[], object]) -> None:
    """Let ``work`` begin in another transaction just before this one calls ``owner.name``."""
    original = getattr(owner, name)

    def called(*arguments: object, **keywords: object) -> object:
        monkeypatch.setattr(owner, name, original)
        with meanwhile(work):
            pass
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, called)


def test_a_session_is_continued_while_its_news_are_written(alice: User, session: InteractiveSession) -> None:
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
        InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        with meanwhile(go_on):
            record(events.SessionKeptRunning(), actor="alice", session_id=session.pk)
    assert session.continuations.count() == 1


def test_somebody_launches_while_an_administrator_changes_what_they_may_have(alice: User, admin: User) -> None:
    def allow() -> None:
        services.set_allowance(user=alice, sessions=2, hours=None, actor=admin, address="")

    with transaction.atomic():  # as a launch and a sign-in do
        User.objects.select_for_update(no_key=True).get(pk=alice.pk)
        with meanwhile(allow):
            record(events.UserSignedIn(way="test"), actor="alice")
    assert Allowance.objects.get().sessions == 2


def test_an_administrator_opens_a_session_while_signing_in_elsewhere(
    monkeypatch: pytest.MonkeyPatch, site: Callable[..., None], admin: User, session: InteractiveSession
) -> None:
    site(open_as_user=True)
    User.objects.filter(pk=admin.pk).update(role=Role.USER)

    def visit() -> None:
        services.open_as_user(session=session, actor=admin, reason="to see what is wrong", address="")

    before(monkeypatch, account_services, "record", visit)
    account_services.admit(proved=Proved("test", Identity("admin")), address="")
    assert session.visits.count() == 1


# ---- a notebook is entered while its browser is signed out ----------------------------------------------------------


@pytest.fixture
def browser(alice: User) -> WebSession:
    """Where alice is signed in."""
    return WebSession.objects.get(key_digest=sealing.digest(signed_in(alice)))


@pytest.fixture
def enter(alice: User, session: InteractiveSession, browser: WebSession) -> Callable[[], Verdict | None]:
    """Redeems the code that leads to the session; later it says what the cookie is worth, if there is one."""
    code = code_of(session, alice)
    issued: list[grants.GrantIssued | None] = []

    def redeem_or_look() -> Verdict | None:
        if not issued:
            issued.append(redeemed(session, code))
        if issued[0] is None:
            return None
        return selectors.open_target(label=session.host_label, cookie_value=issued[0].cookie_value).verdict

    return redeem_or_look


def test_what_was_being_entered_when_the_browser_was_signed_out_is_closed(
    alice: User, browser: WebSession, enter: Callable[[], Verdict | None]
) -> None:
    with transaction.atomic():  # until this ends, nobody else sees the grant
        assert enter() is Verdict.OPEN
        with meanwhile(lambda: leaving.sign_out(user=alice, here=browser, address="")):
            pass
    assert enter() is Verdict.SIGN_IN


def test_a_browser_that_is_being_signed_out_enters_nothing(
    alice: User, browser: WebSession, enter: Callable[[], Verdict | None]
) -> None:
    with transaction.atomic():
        leaving.sign_out(user=alice, here=browser, address="")
        with meanwhile(enter):
            pass
    assert enter() is None


def test_somebody_is_shut_out_while_they_enter(
    monkeypatch: pytest.MonkeyPatch, alice: User, admin: User, browser: WebSession, enter: Callable[[], Verdict | None]
) -> None:
    before(monkeypatch, leaving, "_close", enter)
    leaving.disable(user=alice, actor=admin, address="")
    assert enter() in (Verdict.SIGN_IN, Verdict.FORBIDDEN)
