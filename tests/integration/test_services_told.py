"""Each step of a session: what the row says then, which fact is kept of whom, and who is told, after the commit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from launcher import dispatch, parts, sealing, services
from launcher.catalog import LaunchChoices
from launcher.connection import Connection
from launcher.models import AccessGrant, InteractiveSession, SupportVisit
from launcher.monitor import Decision
from launcher.revocation import AccessDropped, ConnectionsDropped
from launcher.schedulers.base import JobState, JobStatus
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.story import events_of

pytestmark = [pytest.mark.django_db, pytest.mark.integration, pytest.mark.usefixtures("demo_cluster")]

CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")
SERVER = Connection(host="node1", port=9000, base_url="/", flavor="identity", server="jupyter_server 2")
HOUR = dt.timedelta(hours=1)
ADDRESS = "192.0.2.7"

Told = Callable[[Callable[[], object]], set[tuple[str, object]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any) -> Told:
    """Does something, and says whom it told of what: workers, web processes, open pages."""
    heard: set[tuple[str, object]] = set()

    def broadcast(news: Mapping[str, Mapping[str, Any]]) -> None:
        for group, message in news.items():
            if message["type"] == "notice.made":
                heard.add(("notice", group))
            else:
                heard.update(("page of", (group, pk)) for pk in message["states"])

    def access(news: AccessDropped) -> None:
        heard.add(("access", news.session_id or news.user_id))

    def connections(news: ConnectionsDropped) -> None:
        heard.add(("connections", news.username))

    monkeypatch.setattr(dispatch, "_send", lambda task, pk, delay: heard.add((task.name.rpartition(".")[2], pk)))
    monkeypatch.setattr(dispatch, "_hurry", lambda cluster: heard.add(("poll", cluster)))
    monkeypatch.setattr(dispatch, "_publish", access)
    monkeypatch.setattr(dispatch, "_publish_connections", connections)
    monkeypatch.setattr(dispatch, "_broadcast", broadcast)

    def do(something: Callable[[], object]) -> set[tuple[str, object]]:
        heard.clear()
        with django_capture_on_commit_callbacks(execute=True):
            something()
        return set(heard)

    return do


def pages(*sessions: InteractiveSession) -> set[tuple[str, object]]:
    """Open pages of the owners, and of those who watch all sessions."""
    groups = [(f"user.{session.owner_id}", session.pk) for session in sessions]
    return {("page of", each) for each in [*groups, *(("watchers", session.pk) for session in sessions)]}


def a_session(owner: User, **values: object) -> InteractiveSession:
    """A session that is ready, with a job, unless ``values`` say otherwise."""
    fields: dict[str, Any] = {
        "state": SessionState.READY,
        "job_id": f"{InteractiveSession.objects.count() + 1}.pbs",
        "created_at": now() - HOUR,
        "started_at": now() - HOUR,
        "upstream_host": "node1",
        "upstream_port": 9000,
        "secret_encrypted": sealing.seal("secret"),
    }
    return InteractiveSession.objects.create(
        owner=owner,
        username=owner.username,
        app="jupyter",
        cluster="demo",
        choices=CHOICES.as_dict(),
        **fields | values,
    )


def unsubmitted(owner: User, **values: object) -> InteractiveSession:
    """A session that no worker has submitted yet."""
    return a_session(owner, **{"state": SessionState.SUBMITTING, "job_id": "", "started_at": None} | values)


def launch(owner: User, continuing: InteractiveSession | None = None) -> InteractiveSession:
    return services.create_session(
        owner=owner,
        app=parts.apps()["jupyter"],
        cluster=parts.clusters()["demo"],
        choices=CHOICES,
        address=ADDRESS,
        continuing=continuing,
    )


def the_event(name: str) -> AuditEvent:
    """The only event of this name."""
    return AuditEvent.objects.get(name=name)


def test_a_launch_is_for_a_worker_and_for_the_owners_pages(alice: User, told: Told) -> None:
    made: list[InteractiveSession] = []
    heard = told(lambda: made.append(launch(alice)))
    assert heard == {("submit", made[0].pk)} | pages(*made)
    event = the_event("session.launched")
    assert (event.actor, event.address, event.session_id) == ("alice", ADDRESS, made[0].pk)


def test_a_continuation_changes_the_page_of_what_it_continues(alice: User, told: Told) -> None:
    old, made = a_session(alice), []
    heard = told(lambda: made.append(launch(alice, old)))
    assert heard == {("submit", made[0].pk)} | pages(old, *made)
    event = the_event("session.continued")
    assert (event.actor, event.address, event.session_id) == ("alice", ADDRESS, old.pk)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_job_that_was_made_or_found_is_kept_and_soon_asked_about(alice: User, told: Told, adopted: bool) -> None:
    session = unsubmitted(alice, unreachable_since=now(), unreachable_code="ssh.login_refused")
    claim = services.claim_submission(session.pk)
    assert claim is not None
    heard = told(lambda: services.record_submitted(claim, job_id="7.pbs", folder="/f", adopted=adopted))
    assert heard == {("poll", "demo")} | pages(session)
    session.refresh_from_db()
    assert (session.state, session.job_id, session.folder) == (SessionState.QUEUED, "7.pbs", "/f")
    assert (session.claim, session.claimed_at) == ("", None)
    assert (session.unreachable_since, session.unreachable_code) == (None, "")
    assert events_of(session) == ["session.job_adopted" if adopted else "session.submitted"]


def test_a_job_that_was_made_after_a_wish_for_the_end_is_cancelled(alice: User, told: Told) -> None:
    session = unsubmitted(alice)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    services.request_stop(session=session, actor=alice, address="")
    heard = told(lambda: services.record_submitted(claim, job_id="7.pbs", folder="/f", adopted=False))
    assert heard == {("cancel", session.pk), ("poll", "demo")} | pages(session)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.STOPPING, "7.pbs")


def test_a_submission_that_failed_ends_the_session_and_leaves_word_of_its_folder(alice: User, told: Told) -> None:
    session = unsubmitted(alice)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    heard = told(
        lambda: services.record_not_submitted(
            claim,
            reason=EndReason.SUBMIT_REJECTED,
            code="submit.rejected",
            params={},
            detail="no such queue",
            folder="/f",
        )
    )
    assert heard == {("access", session.pk), ("notice", f"user.{alice.pk}")} | pages(session)
    session.refresh_from_db()
    assert (session.state, session.folder, session.claim) == (SessionState.ENDED, "/f", "")
    assert (session.end_reason, session.end_detail) == (EndReason.SUBMIT_REJECTED, "no such queue")


@pytest.mark.parametrize("by_owner", [True, False])
def test_a_wish_for_the_end_is_kept_once_with_who_wants_it(
    alice: User, admin: User, told: Told, by_owner: bool
) -> None:
    session, actor = a_session(alice), alice if by_owner else admin
    heard = told(lambda: services.request_stop(session=session, actor=actor, address=ADDRESS))
    assert heard == {("cancel", session.pk), ("access", session.pk), ("poll", "demo")} | pages(session)
    session.refresh_from_db()
    reason = EndReason.STOPPED_BY_USER if by_owner else EndReason.STOPPED_BY_ADMIN
    assert (session.state, session.stop_requested_by) == (SessionState.STOPPING, actor.username)
    assert session.stop_reason == reason
    event = the_event("session.stop_requested")
    assert (event.actor, event.address, event.session_id) == (actor.username, ADDRESS, session.pk)
    assert event.data == {"by_owner": by_owner, "reason": reason}
    assert told(lambda: services.request_stop(session=session, actor=admin, address="")) == set()
    assert events_of(session) == ["session.stop_requested"]


def test_a_wish_for_the_end_before_there_is_a_job_is_for_who_would_submit_it(alice: User, told: Told) -> None:
    session = unsubmitted(alice)
    heard = told(lambda: services.request_stop(session=session, actor=alice, address=""))
    assert heard == {("submit", session.pk), ("access", session.pk), ("poll", "demo")} | pages(session)
    session.refresh_from_db()
    assert session.state == SessionState.SUBMITTING
    assert session.stop_requested_at is not None


def test_a_cancel_that_was_accepted_twice_is_one_fact(alice: User, told: Told) -> None:
    session = a_session(alice, state=SessionState.STOPPING)
    assert told(lambda: services.record_cancelled(session.pk)) == {("poll", "demo")}
    session.refresh_from_db()
    first = session.cancelled_at
    services.record_cancelled(session.pk)
    session.refresh_from_db()
    assert first is not None
    assert session.cancelled_at is not None
    assert session.cancelled_at > first
    assert events_of(session) == ["session.cancelled"]


def test_a_server_that_answers_opens_the_session_once(alice: User, told: Told) -> None:
    session = a_session(alice, state=SessionState.STARTING, upstream_trouble="tunnel.refused")
    heard = told(lambda: services.record_ready(session.pk))
    assert heard == {("access", session.pk), ("notice", f"user.{alice.pk}")} | pages(session)
    session.refresh_from_db()
    assert (session.state, session.upstream_trouble) == (SessionState.READY, "")
    assert told(lambda: services.record_ready(session.pk)) == set()
    assert events_of(session) == ["session.ready"]


@pytest.mark.parametrize("state", [SessionState.STOPPING, SessionState.ENDED])
def test_a_server_that_answers_too_late_opens_nothing(alice: User, told: Told, state: SessionState) -> None:
    over: dict[str, object] = {"ended_at": now(), "end_reason": EndReason.COMPLETED}
    session = a_session(alice, state=state, upstream_host="", **over if state == SessionState.ENDED else {})
    assert told(lambda: services.record_ready(session.pk)) == set()
    assert told(lambda: services.record_server(session.pk, SERVER)) == set()
    session.refresh_from_db()
    assert (session.state, session.upstream_host, session.ready_at) == (state, "", None)
    assert events_of(session) == []


def test_a_server_that_answers_at_its_new_place_is_news_again(alice: User, told: Told) -> None:
    session = a_session(alice, upstream_host="", ready_at=None)
    services.record_server(session.pk, SERVER)
    assert ("access", session.pk) in told(lambda: services.record_ready(session.pk))
    session.refresh_from_db()
    assert (session.state, session.upstream_host) == (SessionState.READY, "node1")
    assert session.ready_at is not None
    assert events_of(session) == ["session.ready"]


def test_a_server_that_says_again_where_it_is_has_been_there_since_the_first_time(alice: User) -> None:
    first = now() - HOUR
    session = a_session(alice, state=SessionState.STARTING, upstream_host="", server_at=first)
    services.record_server(session.pk, SERVER)
    session.refresh_from_db()
    assert (session.server_at, session.upstream_host) == (first, "node1")


@pytest.mark.parametrize("job_state", [JobState.RUNNING, JobState.SUSPENDED, JobState.EXITING])
def test_a_job_that_has_a_place_has_started(alice: User, told: Told, job_state: JobState) -> None:
    silent: dict[str, object] = {"unreachable_since": now(), "unreachable_code": "ssh.timeout"}
    session = a_session(alice, state=SessionState.QUEUED, started_at=None, **silent)
    status = JobStatus(session.job_id, job_state, execution_hosts=("node1",))
    answer = services.Answer(status, Decision(move_to=SessionState.STARTING))
    assert told(lambda: services.record_answers({session.pk: answer})) == pages(session)
    session.refresh_from_db()
    assert session.started_at == session.polled_at
    assert session.started_at is not None
    assert (session.unreachable_since, session.unreachable_code) == (None, "")
    assert the_event("session.started").data == {"execution_host": "node1"}
    assert told(lambda: services.record_answers({session.pk: answer})) == set()
    assert events_of(session) == ["session.started"]


def test_whoever_is_in_a_notebook_whose_job_moved_is_out_at_once(alice: User, told: Told) -> None:
    session = a_session(alice, execution_host="node1")
    answer = services.Answer(JobStatus(session.job_id, JobState.RUNNING, execution_hosts=("node2",)), Decision())
    assert told(lambda: services.record_answers({session.pk: answer})) == {("access", session.pk)} | pages(session)
    session.refresh_from_db()
    assert (session.upstream_host, session.execution_host) == ("", "node2")


def test_a_job_that_moves_while_it_is_stopped_is_left_alone(alice: User, told: Told) -> None:
    session = a_session(alice, state=SessionState.STOPPING, execution_host="node1")
    answer = services.Answer(JobStatus(session.job_id, JobState.RUNNING, execution_hosts=("node2",)), Decision())
    assert ("access", session.pk) not in told(lambda: services.record_answers({session.pk: answer}))
    session.refresh_from_db()
    assert session.started_at is not None


def test_the_end_closes_every_way_in_and_leaves_no_secret(alice: User, admin: User, told: Told) -> None:
    session = a_session(alice, claim="mark", claimed_at=now(), upstream_socket="/s", upstream_trouble="tunnel.refused")
    visit = SupportVisit.objects.create(
        session=session, visitor=admin, visitor_name="admin", reason="help", began_at=now(), expires_at=now() + HOUR
    )
    AccessGrant.objects.create(
        digest="d", session=session, user=alice, web_session_digest="w", created_at=now(), expires_at=now() + HOUR
    )

    def end() -> None:
        services.end_session(
            session.pk, reason=EndReason.WALLTIME, code="ended.walltime", params={"hours": 1}, log_tail="a\0b"
        )

    heard = told(end)
    assert heard == {("access", session.pk), ("notice", f"user.{alice.pk}")} | pages(session)
    session.refresh_from_db()
    visit.refresh_from_db()
    assert (session.state, session.end_params, session.log_tail) == (SessionState.ENDED, {"hours": 1}, "ab")
    assert bytes(session.secret_encrypted) == b""
    assert (session.claim, session.claimed_at, session.upstream_host, session.upstream_port) == ("", None, "", None)
    assert (session.upstream_socket, session.upstream_trouble) == ("", "")
    assert visit.ended_at == session.ended_at
    assert session.grants.get().revoked_at == session.ended_at
    assert the_event("session.ended").actor == "portal"
    assert told(end) == set()
    assert events_of(session) == ["session.ended"]


@pytest.mark.parametrize(
    ("stopped_by", "reason", "is_told"),
    [
        ("alice", EndReason.STOPPED_BY_USER, False),
        ("admin", EndReason.STOPPED_BY_ADMIN, True),
        ("", EndReason.COMPLETED, False),
        ("", EndReason.FAILED, True),
    ],
)
def test_the_owner_is_told_of_an_end_that_they_did_not_want(
    alice: User, told: Told, stopped_by: str, reason: EndReason, is_told: bool
) -> None:
    session = a_session(alice, stop_requested_by=stopped_by)
    heard = told(lambda: services.end_session(session.pk, reason=reason, code="ended", params={}))
    assert heard - {("notice", f"user.{alice.pk}")} == {("access", session.pk)} | pages(session)
    assert (("notice", f"user.{alice.pk}") in heard) == is_told
    assert the_event("session.ended").actor == (stopped_by or "portal")


def test_a_visit_is_told_to_the_owner_and_its_end_to_the_processes_that_let_the_visitor_in(
    alice: User, admin: User, told: Told, site: Callable[..., None]
) -> None:
    site(open_as_user=True)
    session, made = a_session(alice), []

    def visit() -> None:
        made.append(
            services.open_as_user(session=session, actor=admin, reason=" to  see\nwhat is wrong ", address=ADDRESS)
        )

    assert told(visit) == {("notice", f"user.{alice.pk}")} | pages(session)
    event = the_event("session.opened_as_user")
    assert (event.actor, event.address, event.session_id) == ("admin", ADDRESS, session.pk)
    assert event.data == {"owner": "alice", "reason": "to see what is wrong", "minutes": 30}
    heard = told(lambda: services.end_visit(visit=made[0], actor=alice, address=ADDRESS))
    assert heard == {("access", admin.pk)} | pages(session)
    assert told(lambda: services.end_visit(visit=made[0], actor=admin, address="")) == set()
    event = the_event("session.visit_ended")
    assert (event.actor, event.data) == ("alice", {"visitor": "admin", "by_owner": True})


def test_a_key_is_taken_back_by_its_owner_alone_and_its_connections_close(alice: User, bob: User, told: Told) -> None:
    key = services.key_to_enrol(user=alice, cluster_id="demo")
    assert told(lambda: services.revoke_key(user=bob, key_id=key.pk, address="")) == set()
    key.refresh_from_db()
    assert key.revoked_at is None
    heard = told(lambda: services.revoke_key(user=alice, key_id=key.pk, address=ADDRESS))
    assert heard == {("connections", "alice"), ("access", alice.pk)}
    assert told(lambda: services.revoke_key(user=alice, key_id=key.pk, address="")) == set()
    event = the_event("credential.revoked")
    assert (event.actor, event.address) == ("alice", ADDRESS)
