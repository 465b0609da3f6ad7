"""No two things that happen at once wait for each other for ever: on a database that locks single rows.

The order everywhere: a person's row, a session's row, the head of the audit log. What a new row refers to is locked by
the database itself, at the commit and thus after all others: our own locks (``no_key``) let that pass.

And whoever comes second knows what the first one wrote: no news of a session undoes its end.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.db import connection, transaction

from launcher import grants, leaving, parts, sealing, selectors, services
from launcher.catalog import LaunchChoices
from launcher.connection import Connection
from launcher.models import Allowance, InteractiveSession, Notice
from launcher.monitor import Decision
from launcher.proxy.access_types import Verdict
from launcher.schedulers.base import JobState, JobStatus
from launcher.states import EndReason, SessionState
from portal.accounts import services as account_services
from portal.accounts.models import Role, User, WebSession
from portal.accounts.ways.base import Identity, Proved
from portal.audit import events
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.clock import now
from tests.entering import code_of, redeemed
from tests.story import events_of, signed_in
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


# ---- a session ends while something else about it is about to be written -------------------------------------------


NEWS = JobStatus("1.pbs", JobState.RUNNING, execution_hosts=("node2",), walltime_seconds=7200)
SERVER = Connection(host="node1", port=9000, base_url="/", flavor="identity", server="jupyter_server 2")
LONG_AGO = dt.timedelta(days=30)
UNUSED = services.Look(at=now(), unused_seconds=LONG_AGO.total_seconds())


def stop(session: InteractiveSession, alice: User, admin: User) -> None:
    services.request_stop(session=session, actor=alice, address="")


def give_up(session: InteractiveSession, alice: User, admin: User) -> None:
    services.give_up(session=session, actor=admin, address="")


def give_up_alone(session: InteractiveSession, alice: User, admin: User) -> None:
    services.give_up_stopping(session.pk)


def end_without_cluster(session: InteractiveSession, alice: User, admin: User) -> None:
    services.end_without_cluster(())


def cancelled(session: InteractiveSession, alice: User, admin: User) -> None:
    services.record_cancelled(session.pk)


def answered(session: InteractiveSession, alice: User, admin: User) -> None:
    services.record_answers({session.pk: services.Answer(NEWS, Decision(move_to=SessionState.READY))})


def has_server(session: InteractiveSession, alice: User, admin: User) -> None:
    services.record_server(session.pk, SERVER)


def ready(session: InteractiveSession, alice: User, admin: User) -> None:
    services.record_ready(session.pk)


def end(session: InteractiveSession, alice: User, admin: User) -> None:
    services.end_session(session.pk, reason=EndReason.FAILED, code="ended.failed", params={})


def keep(session: InteractiveSession, alice: User, admin: User) -> None:
    services.keep_running(session=session, actor=alice, address="")


def unused(session: InteractiveSession, alice: User, admin: User) -> None:
    services.record_look(session, replace(UNUSED, at=now()), limit=3600)


def warn(session: InteractiveSession, alice: User, admin: User) -> None:
    services.warn_of_end(session.pk)


def visit(session: InteractiveSession, alice: User, admin: User) -> None:
    with pytest.raises(services.VisitRefused):
        services.open_as_user(session=session, actor=admin, reason="to see what is wrong", address="")


RUNS: dict[str, object] = {"job_id": "1.pbs", "started_at": now() - LONG_AGO, "execution_host": "node2"}
WANTED: dict[str, object] = {
    "state": SessionState.STOPPING,
    "stop_requested_at": now() - LONG_AGO,
    "stop_requested_by": "alice",
    "stop_reason": EndReason.STOPPED_BY_USER,
}
SILENT: dict[str, object] = {"unreachable_since": now() - LONG_AGO}


@pytest.mark.parametrize(
    ("news", "before_it"),
    [
        (stop, RUNS),
        (give_up, RUNS | WANTED | SILENT),
        (give_up_alone, RUNS | WANTED | SILENT),
        (end_without_cluster, RUNS | WANTED | SILENT),
        (cancelled, RUNS | WANTED),
        (answered, RUNS | {"state": SessionState.STARTING}),
        (has_server, RUNS | {"state": SessionState.STARTING}),
        (ready, RUNS | {"state": SessionState.STARTING}),
        (end, RUNS),
        (keep, RUNS | {"idle_stop_at": now() + LONG_AGO}),
        (unused, RUNS | {"ready_at": now() - LONG_AGO, "active_at": now() - LONG_AGO, "idle_stop_at": now()}),
        (warn, RUNS | {"walltime_ends_at": now() + dt.timedelta(minutes=4)}),
        (visit, RUNS),
    ],
    ids=lambda value: getattr(value, "__name__", "row"),
)
def test_what_comes_while_a_session_ends_is_too_late(
    session: InteractiveSession,
    alice: User,
    admin: User,
    site: Callable[..., None],
    news: Callable[[InteractiveSession, User, User], None],
    before_it: dict[str, object],
) -> None:
    site(open_as_user=True)
    InteractiveSession.objects.filter(pk=session.pk).update(**{"created_at": now() - LONG_AGO, **before_it})
    session.refresh_from_db()
    row = InteractiveSession.objects.filter(pk=session.pk)
    with transaction.atomic():
        services.end_session(session.pk, reason=EndReason.WALLTIME, code="ended.walltime", params={})
        as_it_ended = row.values().get()
        told = list(Notice.objects.values_list("key", flat=True))
        with meanwhile(lambda: news(session, alice, admin)):
            pass
    assert row.values().get() == as_it_ended
    assert events_of(session) == ["session.ended"]
    assert list(Notice.objects.values_list("key", flat=True)) == told
    assert not session.visits.exists()


def test_a_refusal_that_comes_while_a_grant_is_written_is_too_late(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(extending_to_seconds=7200, walltime_seconds=3600)
    with transaction.atomic():
        services.record_extended(session.pk, 7200)
        with meanwhile(lambda: services.record_extension_refused(session.pk, 7200, code="extend.refused", detail="")):
            pass
    session.refresh_from_db()
    assert (session.walltime_seconds, session.extensions, session.extension_refused) == (7200, 1, "")
    assert events_of(session) == ["session.extended"]


def test_a_grant_that_is_heard_of_twice_at_once_counts_once(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(extending_to_seconds=7200, walltime_seconds=3600)
    with transaction.atomic():
        services.record_extended(session.pk, 7200)
        with meanwhile(lambda: services.record_extended(session.pk, 7200)):
            pass
    session.refresh_from_db()
    assert session.extensions == 1
    assert events_of(session) == ["session.extended"]


def test_a_submission_is_claimed_once(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(state=SessionState.SUBMITTING)
    second: list[services.Claim | None] = []
    with transaction.atomic():
        assert services.claim_submission(session.pk) is not None
        with meanwhile(lambda: second.append(services.claim_submission(session.pk))):
            pass
    assert second == [None]


def test_what_ends_unsubmitted_is_not_claimed_any_more(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(state=SessionState.SUBMITTING)
    claims: list[services.Claim | None] = []
    with transaction.atomic():
        services.end_session(session.pk, reason=EndReason.FAILED, code="ended.failed", params={})
        with meanwhile(lambda: claims.append(services.claim_submission(session.pk))):
            pass
    session.refresh_from_db()
    assert claims == [None]
    assert (session.state, session.submit_attempts) == (SessionState.ENDED, 0)


def test_a_job_that_is_found_while_the_session_ends_must_go(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(state=SessionState.SUBMITTING)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    kept: list[bool] = []
    with transaction.atomic():
        services.end_session(session.pk, reason=EndReason.FAILED, code="ended.failed", params={})
        with meanwhile(
            lambda: kept.append(services.record_submitted(claim, job_id="1.pbs", folder="/f", adopted=False))
        ):
            pass
    session.refresh_from_db()
    assert kept == [False]
    assert (session.state, session.job_id) == (SessionState.ENDED, "")
    assert events_of(session) == ["session.ended"]


def test_a_mail_is_for_one_worker(session: InteractiveSession) -> None:
    notice = Notice.objects.create(session=session, kind="ready", key="ready", created_at=now(), mail_due_at=now())
    second: list[Notice | None] = []
    with transaction.atomic():
        assert services.claim_mail(notice.pk) is not None
        with meanwhile(lambda: second.append(services.claim_mail(notice.pk))):
            pass
    notice.refresh_from_db()
    assert second == [None]
    assert notice.mail_attempts == 1


def test_a_key_that_is_taken_back_twice_at_once_is_one_fact(alice: User) -> None:
    key = services.key_to_enrol(user=alice, cluster_id="demo")
    with transaction.atomic():
        services.revoke_key(user=alice, key_id=key.pk, address="")
        with meanwhile(lambda: services.revoke_key(user=alice, key_id=key.pk, address="")):
            pass
        with meanwhile(lambda: services.record_enrolled(key.pk, address="")):
            pass
    assert [event.name for event in AuditEvent.objects.all()] == ["credential.revoked"]
