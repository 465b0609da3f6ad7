"""What goes wrong between two steps: killed workers, poisoned sessions, jobs that the cluster moves, lost helpers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace

import asyncssh
import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client, override_settings

from launcher import dispatch, parts, selectors, services
from launcher.cards import card_of, timeline_of
from launcher.connection import Connection
from launcher.figures import last_round
from launcher.flows.ask import ask
from launcher.flows.launch import launch
from launcher.flows.poll import LONGEST_PAUSE_SECONDS, poll
from launcher.flows.poll_ask import watched
from launcher.flows.submit import submit
from launcher.models import AccessGrant, InteractiveSession
from launcher.monitor import Decision, decide
from launcher.parts import clusters, hands_loop
from launcher.proxy.access_types import Verdict
from launcher.schedulers.base import JobState, JobStatus
from launcher.states import EndReason, SessionState
from launcher.tasks import clean_up, tick
from portal.accounts.models import Role, User
from portal.audit.models import AuditEvent
from portal.audit.selectors import verify
from portal.clock import now
from tests.conftest import RunningCluster
from tests.entering import connect, entered, redeemed
from tests.settings import FOLDER
from tests.story import allow, drive, events_of, one_round
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}


def launched(user: User) -> InteractiveSession:
    return launch(user=user, app_id="jupyter", raw=RAW, address="")


# One bad session and the round of all others


def test_a_secret_that_no_key_opens_holds_up_no_other_session(
    demo_cluster: RunningCluster, alice: User, bob: User
) -> None:
    poisoned, other = launched(alice), launched(bob)
    drive(poisoned, SessionState.STARTING)
    InteractiveSession.objects.filter(pk=poisoned.pk).update(secret_encrypted=b"sealed with a key that is gone")
    drive(other, SessionState.READY)


def test_an_error_about_one_session_leaves_the_others_their_answers(
    demo_cluster: RunningCluster, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, other = launched(alice), launched(bob)
    record_answers = services.record_answers
    failed: list[str] = []

    def failing(answers: Mapping[str, services.Answer]) -> dict[str, InteractiveSession]:
        if poisoned.id in answers:
            failed.extend(answers)
            raise RuntimeError("the database refused a value")
        return record_answers(answers)

    monkeypatch.setattr(services, "record_answers", failing)
    one_round(poisoned)
    drive(other, SessionState.READY)
    assert poisoned.id in failed


def test_a_round_that_takes_too_long_keeps_what_it_learned_and_marks_the_rest(
    demo_cluster: RunningCluster, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.flows import poll_ask

    slow, other = launched(alice), launched(bob)
    for session in (slow, other):
        drive(session, SessionState.READY)
    answered = wait_for(lambda: one_round(other).polled_at)
    ask = poll_ask._ask_batch

    async def sluggish(cluster: object, account: str, *rest: object) -> None:
        if account == "alice":
            await asyncio.Event().wait()
        await ask(cluster, account, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(poll_ask, "_ask_batch", sluggish)
    monkeypatch.setattr(poll_ask, "ROUND_SECONDS", 4)
    poll("demo")
    slow.refresh_from_db()
    other.refresh_from_db()
    assert slow.unreachable_since is not None
    assert other.unreachable_since is None
    assert other.polled_at > answered


# Between the claim and the job's id


def jobs_of(cluster: RunningCluster, session: InteractiveSession) -> list[str]:
    """Ids of the session's jobs that the scheduler has not finished."""
    return [
        job_id
        for job_id, status in all_jobs(cluster, session).items()
        if status.state not in (JobState.FINISHED, JobState.EXITING)
    ]


def all_jobs(cluster: RunningCluster, session: InteractiveSession) -> dict[str, JobStatus]:
    """The session's jobs, as the scheduler itself knows them."""
    account = clusters()[session.cluster]

    async def look() -> dict[str, JobStatus]:
        found = await ask(
            account,
            session.username,
            lambda scheduler: scheduler.find_command(name=session.job_name, user=session.username),
            lambda scheduler, result: scheduler.parse_find(result),
        )
        if not found:
            return {}
        report = await ask(
            account,
            session.username,
            lambda scheduler: scheduler.status_command(found),
            lambda scheduler, result: scheduler.parse_status(result, found),
        )
        return dict(report.jobs)

    return hands_loop().run(look(), 60)


def let_the_claim_run_out(session: InteractiveSession) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(
        claimed_at=now() - dt.timedelta(seconds=services.CLAIM_SECONDS + 1)
    )


def test_a_worker_killed_before_qsub_leads_to_one_job(demo_cluster: RunningCluster, alice: User) -> None:
    session = launched(alice)
    assert services.claim_submission(session.id) is not None
    submit(session.id)  # the message again: the claim holds
    assert jobs_of(demo_cluster, session) == []
    let_the_claim_run_out(session)
    submit(session.id)
    session.refresh_from_db()
    assert jobs_of(demo_cluster, session) == [session.job_id]


def test_a_worker_killed_after_qsub_leads_to_one_job(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = launched(alice)
    with monkeypatch.context() as patch:
        patch.setattr(services, "record_submitted", lambda *_given, **_named: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            submit(session.id)
    let_the_claim_run_out(session)
    submit(session.id)
    session.refresh_from_db()
    assert list(all_jobs(demo_cluster, session)) == [session.job_id]
    assert events_of(session) == ["session.launched", "session.job_adopted"]


def test_a_job_made_under_a_claim_that_ran_out_is_kept_where_there_is_no_other(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launched(alice)
    late = services.claim_submission(session.id)
    let_the_claim_run_out(session)
    taker = services.claim_submission(session.id)
    assert late is not None
    assert taker is not None
    assert services.record_submitted(late, job_id="7.pbs", folder="/home/alice/s", adopted=False)
    assert not services.record_submitted(taker, job_id="8.pbs", folder="/home/alice/s", adopted=False)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.QUEUED, "7.pbs")


def test_a_job_that_came_too_late_for_its_session_is_cancelled(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = launched(alice)
    record_submitted = services.record_submitted

    def overtaken(claim: services.Claim, **found: object) -> bool:
        let_the_claim_run_out(session)
        services.request_stop(session=session, actor=alice, address="")
        taker = services.claim_submission(session.id)
        assert taker is not None
        services.record_not_submitted(
            taker, reason=EndReason.STOPPED_BY_USER, code="ended.stopped_by_user", params={}, detail=""
        )
        return record_submitted(claim, **found)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(services, "record_submitted", overtaken)
    submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.ENDED, "")
    wait_for(lambda: jobs_of(demo_cluster, session) == [], what="the job to be cancelled")


def test_a_stop_whose_message_is_lost_is_taken_up_by_the_poll_round(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = launched(alice)
    claim = services.claim_submission(session.id)
    assert claim is not None
    services.request_stop(session=session, actor=alice, address="")
    services.release_claim(claim, unreachable=True, nothing_sent=True)
    InteractiveSession.objects.filter(pk=session.pk).update(created_at=now() - dt.timedelta(minutes=1))
    sent: list[str] = []
    monkeypatch.setattr(dispatch, "submit", sent.append)
    poll(session.cluster)
    assert sent == [session.id]


def test_a_submission_that_may_still_land_is_not_tried_again_before_it_cannot(
    demo_cluster: RunningCluster, alice: User
) -> None:
    seconds = 2
    with shorter_commands(demo_cluster, seconds):
        session = launched(alice)
        demo_cluster.fault("scheduler", "hung")
        began = now()
        submit(session.id)
        demo_cluster.mend()
        assert services.claim_submission(session.id) is None
        wait_for(lambda: _is_free(session), what="the submission to be free again")
        assert (now() - began).total_seconds() > 2 * seconds  # given up after two, killed on the login host after two
        drive(session, SessionState.QUEUED)
        assert len(jobs_of(demo_cluster, session)) == 1


def _is_free(session: InteractiveSession) -> bool:
    return selectors.waiting_for_submission(session.cluster, older_than_seconds=0).filter(pk=session.pk).exists()


@contextlib.contextmanager
def shorter_commands(demo_cluster: RunningCluster, seconds: int) -> Iterator[None]:
    """The same cluster, with less patience."""
    path = settings.CONF.clusters_file
    before = path.read_text("utf-8")
    path.write_text(demo_cluster.toml(command_timeout_seconds=seconds), "utf-8")
    parts.forget()
    try:
        yield
    finally:
        path.write_text(before, "utf-8")
        parts.forget()


def test_a_session_that_never_reached_the_cluster_stops_without_it(demo_cluster: RunningCluster, alice: User) -> None:
    session = launched(alice)
    demo_cluster.fault("login", "gone")
    submit(session.id)
    services.request_stop(session=session, actor=alice, address="")
    submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.end_reason) == (SessionState.ENDED, EndReason.STOPPED_BY_USER)


def test_an_app_that_left_the_catalog_ends_a_session_that_has_no_job(demo_cluster: RunningCluster, alice: User) -> None:
    session = launched(alice)
    InteractiveSession.objects.filter(pk=session.pk).update(app="gone")
    drive(session, SessionState.ENDED)
    assert session.end_code == "ended.app_gone"


def test_an_account_that_the_login_host_refuses_ends_the_session_in_words(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launched(alice)
    InteractiveSession.objects.filter(pk=session.pk).update(username="nobody-here")
    drive(session, SessionState.ENDED)
    assert session.end_code == "ssh.login_refused"


def test_a_running_session_whose_owner_is_no_longer_let_in_says_so_until_they_are_again(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = drive(launched(alice), SessionState.QUEUED)
    InteractiveSession.objects.filter(pk=session.pk).update(username="nobody-here")
    card = card_of(one_round(session))
    assert (card.is_shut_out, card.state_tone) == (True, "warn")
    assert card.state_text.startswith("The cluster does not let the portal in with your account at the moment.")
    services.record_unreachable([session.id])
    session.refresh_from_db()
    assert card_of(session).state_text.startswith("The cluster does not answer at the moment.")
    InteractiveSession.objects.filter(pk=session.pk).update(username=alice.username)
    wait_for(lambda: one_round(session).unreachable_since is None)
    assert session.unreachable_code == ""


def test_a_session_that_the_cluster_has_paused_offers_no_connect(ready: InteractiveSession) -> None:
    answer(ready, JobState.SUSPENDED, ready.execution_host)
    card = card_of(ready)
    assert (card.state_label, card.state_tone, card.can_connect) == ("Paused", "warn", False)


def test_a_session_that_waits_for_a_stop_has_no_time_left_and_says_what_comes(ready: InteractiveSession) -> None:
    ready.walltime_ends_at = now() + dt.timedelta(hours=1)
    ready.stop_requested_at = ready.unreachable_since = now()
    card = card_of(ready)
    assert card.time_left_seconds is None
    assert card.state_text == "The cluster does not answer at the moment. The session is stopped as soon as it does."


def test_the_timeline_says_what_is_waited_for_and_that_it_can_never_come(alice: User) -> None:
    session = InteractiveSession(owner=alice, state=SessionState.QUEUED, created_at=now(), submitted_at=now())
    assert [(step.label, step.state) for step in timeline_of(session)][1:3] == [
        ("Sent to the cluster", "done"),
        ("Waiting for a computer", "now"),
    ]
    session.job_comment = "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 16 T: 16)"
    assert timeline_of(session)[2].state == "failed"


def test_a_refusal_during_a_later_try_ends_nothing_while_a_job_may_exist(
    demo_cluster: RunningCluster, alice: User
) -> None:
    demo_cluster.fault("qsub_answer", "lost")
    session = launched(alice)
    submit(session.id)
    demo_cluster.mend()
    InteractiveSession.objects.filter(pk=session.pk).update(username="nobody-here")
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.SUBMITTING


def test_files_of_a_session_that_was_refused_are_found_by_the_clean_up(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launched(alice)
    InteractiveSession.objects.filter(pk=session.pk).update(choices={**session.choices, "queue": "nowhere"})
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.ENDED
    assert session.folder.endswith(session.id)


# Jobs that the cluster moves


def answer(session: InteractiveSession, state: JobState, *hosts: str) -> None:
    """What a poll round does with an answer of the scheduler."""
    session.refresh_from_db()
    cluster = clusters()[session.cluster]
    status = JobStatus(job_id=session.job_id, state=state, execution_hosts=hosts)
    decision = decide(watched(cluster, session), status, now())
    services.record_answers({session.id: services.Answer(status, decision)})
    session.refresh_from_db()


@pytest.fixture
def ready(alice: User, demo_cluster: RunningCluster) -> InteractiveSession:
    """A session of alice whose server was found on a computer, without a real job."""
    session = launched(alice)
    claim = services.claim_submission(session.id)
    assert claim is not None
    services.record_submitted(claim, job_id="7.pbs", folder="/home/alice/s", adopted=False)
    answer(session, JobState.RUNNING, "node1")
    services.record_server(session.id, SERVER)
    services.record_ready(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.READY
    return session


SERVER = Connection(host="node1", port=9000, base_url="/", flavor="identity", server="jupyter_server 2")


@pytest.mark.parametrize(("state", "hosts"), [(JobState.QUEUED, ()), (JobState.HELD, ()), (JobState.RUNNING, ("n2",))])
def test_a_job_that_left_its_computer_takes_the_secret_to_no_other_server_there(
    ready: InteractiveSession, state: JobState, hosts: tuple[str, ...]
) -> None:
    cookie = entered(ready, User.objects.get())

    def verdict() -> Verdict:
        return selectors.open_target(label=ready.host_label, cookie_value=cookie).verdict

    assert verdict() is Verdict.OPEN
    answer(ready, state, *hosts)
    assert verdict() is Verdict.NOT_READY
    assert not card_of(ready).can_connect


def test_a_job_that_was_put_back_into_the_queue_can_be_opened_again_on_its_new_computer(
    ready: InteractiveSession,
) -> None:
    answer(ready, JobState.QUEUED)
    answer(ready, JobState.RUNNING, "node2")
    services.record_server(ready.id, replace(SERVER, host="node2"))
    services.record_ready(ready.id)
    ready.refresh_from_db()
    assert (ready.state, ready.upstream_host, ready.execution_host) == (SessionState.READY, "node2", "node2")
    assert card_of(ready).can_connect
    assert events_of(ready).count("session.started") == 2


def test_a_requeued_job_gets_the_whole_time_to_start_again(ready: InteractiveSession) -> None:
    long_ago = now() - dt.timedelta(hours=5)
    InteractiveSession.objects.filter(pk=ready.pk).update(started_at=long_ago, state=SessionState.STARTING)
    answer(ready, JobState.QUEUED)
    answer(ready, JobState.RUNNING, "node1")
    answer(ready, JobState.RUNNING, "node1")
    assert ready.stop_requested_at is None


def test_a_poll_round_looks_for_the_server_of_a_ready_session_that_lost_its_place(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = drive(launched(alice), SessionState.READY)
    host, port = session.upstream_host, session.upstream_port
    answer(session, JobState.QUEUED)
    assert session.upstream_host == ""
    wait_for(lambda: one_round(session).upstream_host == host)
    assert session.upstream_port == port


def test_a_start_that_takes_too_long_does_not_overwrite_who_stopped_the_session(
    ready: InteractiveSession, alice: User
) -> None:
    late = Decision(start_timed_out=True)
    services.request_stop(session=ready, actor=alice, address="")
    services.record_answers({ready.id: services.Answer(None, late)})
    ready.refresh_from_db()
    assert ready.stop_reason == EndReason.STOPPED_BY_USER
    assert events_of(ready).count("session.stop_requested") == 1


def test_a_server_that_answers_in_the_last_round_is_not_stopped_for_being_late(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launched(alice)
    drive(session, SessionState.STARTING)
    InteractiveSession.objects.filter(pk=session.pk).update(started_at=now() + dt.timedelta(hours=1))

    def with_the_server_there() -> bool:
        one_round(session)
        return session.state == SessionState.READY

    wait_for(with_the_server_there)
    InteractiveSession.objects.filter(pk=session.pk).update(
        state=SessionState.STARTING, started_at=now() - dt.timedelta(hours=1)
    )
    one_round(session)
    assert session.state == SessionState.READY


# Sessions that could stay for ever


def test_a_job_id_that_the_scheduler_gives_out_again_fits_a_new_session(ready: InteractiveSession, bob: User) -> None:
    services.end_session(ready.id, reason=EndReason.COMPLETED, code="ended.completed", params={})
    session = launched(bob)
    claim = services.claim_submission(session.id)
    assert claim is not None
    assert services.record_submitted(claim, job_id=ready.job_id, folder="/home/bob/s", adopted=False)


def test_a_cancel_that_the_scheduler_accepted_and_forgot_is_sent_again(
    ready: InteractiveSession, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.request_stop(session=ready, actor=alice, address="")
    services.record_cancelled(ready.id)
    sent: list[str] = []
    monkeypatch.setattr(dispatch, "cancel", sent.append)
    poll(ready.cluster)
    assert sent == []
    long_ago = now() - dt.timedelta(minutes=10)
    InteractiveSession.objects.filter(pk=ready.pk).update(
        stop_requested_at=long_ago, cancelled_at=long_ago, missing_count=0
    )
    poll(ready.cluster)
    assert sent == [ready.id]
    services.record_cancelled(ready.id)
    assert events_of(ready).count("session.cancelled") == 1


def test_a_session_on_a_cluster_that_left_the_clusters_file_can_be_stopped(
    ready: InteractiveSession, alice: User
) -> None:
    InteractiveSession.objects.filter(pk=ready.pk).update(cluster="gone")
    services.request_stop(session=ready, actor=alice, address="")
    ready.refresh_from_db()
    assert (ready.state, ready.end_code) == (SessionState.ENDED, "ended.cluster_gone")
    assert events_of(ready)[-2:] == ["session.stop_requested", "session.ended"]


def test_a_session_on_a_cluster_that_left_the_clusters_file_is_shown_as_out_of_reach(
    ready: InteractiveSession,
) -> None:
    InteractiveSession.objects.filter(pk=ready.pk).update(cluster="gone")
    tick()
    ready.refresh_from_db()
    assert ready.unreachable_since is not None


@pytest.mark.parametrize(("days", "state"), [(6, SessionState.STOPPING), (8, SessionState.ENDED)])
def test_a_stop_is_given_up_when_the_cluster_could_not_be_asked_for_a_week(
    demo_cluster: RunningCluster, ready: InteractiveSession, alice: User, days: int, state: SessionState
) -> None:
    services.request_stop(session=ready, actor=alice, address="")
    long_ago = now() - dt.timedelta(days=days)
    InteractiveSession.objects.filter(pk=ready.pk).update(
        username="nobody-here", stop_requested_at=long_ago, unreachable_since=long_ago
    )
    poll(ready.cluster)
    ready.refresh_from_db()
    assert ready.state == state


def test_what_was_committed_stands_when_valkey_is_away(ready: InteractiveSession, as_alice: Client) -> None:
    with valkey_away():
        assert as_alice.get(f"/sessions/{ready.id}/").status_code == 200
        assert as_alice.get("/launch/jupyter-container/").status_code == 200
        assert as_alice.post(f"/sessions/{ready.id}/stop/").status_code == 302
    ready.refresh_from_db()
    assert ready.state == SessionState.STOPPING


@contextlib.contextmanager
def valkey_away() -> Iterator[None]:
    """Valkey cannot be reached by the cache."""
    nowhere = {"default": {**settings.CACHES["default"], "LOCATION": f"unix://{FOLDER}/nothing-here.sock"}}
    with override_settings(CACHES=nowhere):
        yield


# Doors


def test_guessing_goes_on_and_the_audit_log_does_not_grow_with_it(
    demo_cluster: RunningCluster, db: None, client: Client
) -> None:
    def guess(username: str) -> int:
        return client.post("/sign-in/", {"username": username, "password": "wrong"}).status_code

    assert [guess("not a name") for _ in range(12)][-1] == 429
    assert AuditEvent.objects.count() == 6  # five that were judged, and that there are too many


@pytest.mark.parametrize(("door", "cause"), [("connect", "not_owner"), ("stop", "may_not_stop")])
def test_an_auditor_who_tries_more_than_to_look_is_refused_and_it_is_kept(
    ready: InteractiveSession, as_bob: Client, bob: User, door: str, cause: str
) -> None:
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    assert as_bob.post(f"/sessions/{ready.id}/{door}/").status_code == 404
    event = AuditEvent.objects.get(name="session.access_denied", session_id=ready.id)
    assert (event.actor, event.data["cause"]) == ("bob", cause)


def test_a_code_that_is_on_its_way_while_its_owner_signs_out_opens_nothing(
    ready: InteractiveSession, as_alice: Client
) -> None:
    code = connect(as_alice, ready)
    as_alice.post("/sign-out/")
    assert redeemed(ready, code) is None


def test_what_ran_out_is_deleted(ready: InteractiveSession, as_alice: Client) -> None:
    assert redeemed(ready, connect(as_alice, ready)) is not None
    AccessGrant.objects.update(expires_at=now() - dt.timedelta(days=2))
    Session.objects.update(expire_date=now() - dt.timedelta(days=2))
    clean_up()
    assert not AccessGrant.objects.exists()
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/?page=1%00", 200),
        ("/history/?page=" + "9" * 10_000, 200),
        ("/launch/jupyter/?again=%00", 200),
        ("/launch/jupyter/?again=" + "a" * 10_000, 200),
        ("/sessions/" + "a" * 10_000 + "/", 404),
        ("/sessions/by-address/" + "a" * 10_000 + "/", 404),
        ("/launch/" + "a" * 10_000 + "/", 404),
        ("/sign-in/?next=" + "/" * 10_000, 302),
    ],
)
def test_addresses_of_any_length_are_answered(
    demo_cluster: RunningCluster, as_alice: Client, url: str, status: int
) -> None:
    assert as_alice.get(url, headers={"Accept-Language": "x" * 10_000}).status_code == status


def test_a_number_of_any_length_is_a_mistake_of_the_form(as_admin: Client) -> None:
    for value in ("9" * 30, "9" * 10_000, "-1", "\x00"):
        answered = as_admin.post("/administration/users/", {"user": value, "sessions_allowed": value})
        assert answered.status_code in (200, 404)


@pytest.mark.parametrize("field", ["title", "folder", "environment", "queue", "memory", "hours", "cores", "gpus"])
@pytest.mark.parametrize("value", ["\x00", "\ud800", "x" * 10_000, "９" * 10_000, "1e400", [], {}, None, -1, 10**30])
def test_no_value_of_a_launch_is_an_error_of_the_portal(
    demo_cluster: RunningCluster, alice: User, field: str, value: object
) -> None:
    with contextlib.suppress(services.LaunchRefused):
        launch(user=alice, app_id="jupyter", raw={**RAW, field: value}, address="")


def test_a_new_secret_key_goes_on_with_the_old_ones_audit_log(ready: InteractiveSession) -> None:
    with override_settings(SECRET_KEY="a new key of more than thirty-two letters", SECRET_KEY_FALLBACKS=[]):
        assert verify().broken is not None
    old = settings.SECRET_KEY
    with override_settings(SECRET_KEY="a new key of more than thirty-two letters", SECRET_KEY_FALLBACKS=[old]):
        services.end_session(ready.id, reason=EndReason.COMPLETED, code="ended.completed", params={})
        assert verify().broken is None
        assert not AuditEvent.objects.filter(name="audit.chain_broken").exists()


def test_a_time_zone_that_this_machine_does_not_know_is_no_error(
    demo_cluster: RunningCluster, as_alice: Client, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(time_zone="Gone/Zone")
    assert as_alice.get("/").status_code == 200


def test_a_login_host_with_another_key_is_in_the_audit_log_once(
    demo_cluster: RunningCluster, ready: InteractiveSession
) -> None:
    other_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    text = demo_cluster.toml(host_keys=[other_key]).replace("clusters.demo", "clusters.moved")
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    InteractiveSession.objects.filter(pk=ready.pk).update(cluster="moved")
    for _ in range(2):
        poll("moved")
    event = AuditEvent.objects.get(name="cluster.host_key_rejected")
    assert event.data == {"cluster": "moved", "login_host": f"127.0.0.1:{demo_cluster.demo.port}"}


def test_a_cluster_that_hangs_gets_a_few_tries_a_round_and_not_all_threads(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(alice, sessions=100)
    sessions = [launched(alice) for _ in range(6)]
    InteractiveSession.objects.update(created_at=now() - dt.timedelta(minutes=5))
    tried = [session.id for session in sessions[1:]]
    InteractiveSession.objects.filter(pk__in=tried).update(unreachable_since=now())
    sent: list[str] = []
    monkeypatch.setattr(dispatch, "submit", sent.append)
    poll("demo")
    assert sessions[0].id in sent
    assert len(sent) == 3


def test_a_cluster_that_stays_silent_is_asked_less_and_less_and_at_once_when_somebody_does_something(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launched(alice)
    drive(session, SessionState.QUEUED)
    demo_cluster.fault("scheduler", "down")
    pauses = []
    for silent_seconds in (0, 60, 3600):
        one_round(session)
        assert session.unreachable_since is not None
        InteractiveSession.objects.filter(pk=session.pk).update(
            unreachable_since=now() - dt.timedelta(seconds=silent_seconds)
        )
        one_round(session)
        last = last_round(session.cluster)
        assert last is not None
        pauses.append(last.next_in_seconds)
    usual = clusters()[session.cluster].poll_fast_seconds
    assert pauses[0] == usual
    assert 24 <= pauses[1] <= 31
    assert 240 <= pauses[2] <= LONGEST_PAUSE_SECONDS
    assert not dispatch.poll_is_due(session.cluster)
    services.request_stop(session=session, actor=alice, address="")
    assert dispatch.poll_is_due(session.cluster)
    demo_cluster.mend()
    one_round(session)
    last = last_round(session.cluster)
    assert last is not None
    assert last.next_in_seconds == usual
