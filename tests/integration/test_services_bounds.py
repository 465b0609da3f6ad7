"""Where a rule about sessions begins and ends: seconds before and after, lengths, and whom it does not concern."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from django.core.cache import cache
from django.core.exceptions import ValidationError

from launcher import parts, services
from launcher.models import Allowance, EnrolledKey, InteractiveSession, Notice, NoticeKind
from launcher.monitor import Decision
from launcher.schedulers.base import JobState, JobStatus
from launcher.services import LaunchRefused, facts
from launcher.services.noticing import PAUSES
from launcher.states import EndReason, SessionState
from portal import clock
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.integration.test_services_told import CHOICES, HOUR, a_session, unsubmitted
from tests.story import allow, events_of

pytestmark = [pytest.mark.django_db, pytest.mark.integration, pytest.mark.usefixtures("demo_cluster")]

MINUTE, SECOND = dt.timedelta(minutes=1), dt.timedelta(seconds=1)
OVER: dict[str, Any] = {"state": SessionState.ENDED, "end_reason": EndReason.COMPLETED}


def wanted(ago: dt.timedelta, **values: object) -> dict[str, Any]:
    """Of a session whose end was wanted, and whose cluster has not answered, for so long."""
    return {
        "state": SessionState.STOPPING,
        "stop_requested_at": now() - ago,
        "stop_requested_by": "alice",
        "stop_reason": EndReason.STOPPED_BY_USER,
        "unreachable_since": now() - ago,
    } | values


def is_over(session: InteractiveSession) -> bool:
    session.refresh_from_db()
    return session.state == SessionState.ENDED


def the_row(session: InteractiveSession) -> Mapping[str, Any]:
    return InteractiveSession.objects.filter(pk=session.pk).values().get()


@pytest.mark.parametrize(
    ("values", "is_claimed"),
    [
        ({}, True),
        ({"claim": "mark", "claimed_at": 170 * SECOND}, False),
        ({"claim": "mark", "claimed_at": 190 * SECOND}, True),
        ({"job_id": "1.pbs"}, False),
        ({"state": SessionState.QUEUED}, False),
        (OVER | {"ended_at": now()}, False),
    ],
)
def test_only_what_nobody_has_submitted_or_submits_is_claimed(
    alice: User, values: dict[str, Any], is_claimed: bool
) -> None:
    if "claimed_at" in values:
        values = values | {"claimed_at": now() - values["claimed_at"]}
    session = unsubmitted(alice, **values)
    assert (services.claim_submission(session.pk) is not None) == is_claimed


def test_whoever_comes_after_a_try_looks_for_its_job_first_unless_nothing_was_sent(alice: User) -> None:
    session = unsubmitted(alice)
    sent = [(True, False), (False, True), (True, True), (True, True)]  # nothing sent; whether the next one is a retry
    for nothing_sent, next_is_retry in sent:
        claim = services.claim_submission(session.pk)
        assert claim is not None
        services.release_claim(claim, unreachable=False, nothing_sent=nothing_sent)
        again = services.claim_submission(session.pk)
        assert again is not None
        assert again.is_retry == next_is_retry
        services.release_claim(again, unreachable=False, nothing_sent=True)
    session.refresh_from_db()
    assert session.unreachable_since is None


def test_what_a_try_has_sent_may_take_effect_before_the_next_one(alice: User) -> None:
    session = unsubmitted(alice)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    services.release_claim(claim, unreachable=True, nothing_sent=False, wait_seconds=60, why_unreachable="ssh.timeout")
    assert services.claim_submission(session.pk) is None
    session.refresh_from_db()
    first = session.unreachable_since
    assert first is not None
    assert session.unreachable_code == "ssh.timeout"
    assert session.claimed_at is not None
    session.claimed_at -= 61 * SECOND
    session.save()
    again = services.claim_submission(session.pk)
    assert again is not None
    assert again.is_retry
    services.release_claim(again, unreachable=True, nothing_sent=True)
    session.refresh_from_db()
    assert session.unreachable_since == first


def test_whoever_lost_the_claim_changes_nothing_any_more(alice: User) -> None:
    session = unsubmitted(alice)
    late = services.claim_submission(session.pk)
    assert late is not None
    InteractiveSession.objects.filter(pk=session.pk).update(claimed_at=now() - HOUR)
    assert services.claim_submission(session.pk) is not None
    before = the_row(session)
    services.release_claim(late, unreachable=True, nothing_sent=True)
    services.record_not_submitted(late, reason=EndReason.SUBMIT_REJECTED, code="submit.rejected", params={}, detail="")
    assert the_row(session) == before


def test_the_first_of_two_jobs_stays(alice: User) -> None:
    session = unsubmitted(alice)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    assert services.record_submitted(claim, job_id="1.pbs", folder="/f", adopted=False)
    before = the_row(session)
    assert services.record_submitted(claim, job_id="1.pbs", folder="/g", adopted=True)
    assert not services.record_submitted(claim, job_id="2.pbs", folder="/g", adopted=True)
    assert the_row(session) == before
    assert events_of(session) == ["session.submitted"]


@pytest.mark.parametrize(
    ("values", "needs"),
    [
        ({}, True),
        ({"cancelled_at": 110 * SECOND}, False),
        ({"cancelled_at": 130 * SECOND}, True),
        ({"job_id": ""}, False),
        ({"state": SessionState.READY}, False),
    ],
)
def test_a_cancel_that_has_no_effect_is_sent_again(alice: User, values: dict[str, Any], needs: bool) -> None:
    if "cancelled_at" in values:
        values = values | {"cancelled_at": now() - values["cancelled_at"]}
    session = a_session(alice, **{"state": SessionState.STOPPING} | values)
    assert services.needs_cancel(session) == needs


def test_an_administrator_may_give_up_after_ten_minutes(alice: User, admin: User) -> None:
    early, due = a_session(alice, **wanted(9 * MINUTE)), a_session(alice, **wanted(11 * MINUTE))
    for session in (early, due):
        services.give_up(session=session, actor=admin, address="192.0.2.7")
    assert [is_over(early), is_over(due)] == [False, True]
    assert events_of(due) == ["session.given_up", "session.ended"]
    event = AuditEvent.objects.get(name="session.given_up")
    assert (event.actor, event.address, event.data) == ("admin", "192.0.2.7", {"job_id": due.job_id})


@pytest.mark.parametrize("field", ["stop_requested_at", "unreachable_since"])
def test_the_portal_gives_up_by_itself_after_a_week_of_both(alice: User, field: str) -> None:
    week = dt.timedelta(days=7)
    early = a_session(alice, **wanted(week + HOUR) | {field: now() - week + MINUTE})
    due = a_session(alice, **wanted(week + MINUTE))
    for session in (early, due):
        services.give_up_stopping(session.pk)
    assert [is_over(early), is_over(due)] == [False, True]


def test_only_what_was_to_end_on_a_cluster_without_an_entry_ends_without_it(alice: User) -> None:
    due = a_session(alice, **wanted(16 * MINUTE))
    others = [
        a_session(alice, **wanted(14 * MINUTE)),
        a_session(alice, **wanted(HOUR, unreachable_since=now() - 14 * MINUTE)),
        a_session(alice, **wanted(HOUR, stop_requested_at=now() - 14 * MINUTE)),
        a_session(alice, unreachable_since=now() - HOUR),
    ]
    services.end_without_cluster(["demo"])
    assert not is_over(due)
    services.end_without_cluster(["another"])
    assert is_over(due)
    assert due.end_code == "ended.cluster_gone"
    assert [is_over(session) for session in others] == [False] * 4


def test_what_is_stopped_on_a_cluster_without_an_entry_ends_at_once(alice: User) -> None:
    session = a_session(alice)
    InteractiveSession.objects.filter(pk=session.pk).update(cluster="gone")
    services.request_stop(session=session, actor=alice, address="")
    assert is_over(session)
    assert (session.end_reason, session.end_code) == (EndReason.STOPPED_BY_USER, "ended.cluster_gone")


def test_no_answer_changes_what_has_ended(alice: User) -> None:
    session = a_session(alice, **OVER, ended_at=now())
    before = the_row(session)
    status = JobStatus("1.pbs", JobState.RUNNING, execution_hosts=("node9",))
    assert services.record_answers({session.pk: services.Answer(status, Decision())}) == {}
    services.record_heard({session.pk: 99})
    services.record_unreachable([session.pk], code="ssh.timeout")
    services.record_clusters_gone(())
    services.record_cancelled(session.pk)
    services.end_session(session.pk, reason=EndReason.FAILED, code="ended.failed", params={})
    assert the_row(session) == before
    assert events_of(session) == []


def test_a_cluster_is_silent_since_it_was_first_whatever_the_cause(alice: User) -> None:
    session = a_session(alice)
    services.record_clusters_gone(["demo"])
    session.refresh_from_db()
    assert session.unreachable_since is None
    services.record_clusters_gone(["another"])
    session.refresh_from_db()
    first = session.unreachable_since
    assert first is not None
    services.record_unreachable([session.pk], code="ssh.login_refused")
    session.refresh_from_db()
    assert (session.unreachable_since, session.unreachable_code) == (first, "ssh.login_refused")


def test_a_job_that_starts_while_it_is_stopped_is_no_start_of_the_session(alice: User) -> None:
    session = a_session(alice, state=SessionState.STOPPING, started_at=None)
    status = JobStatus("1.pbs", JobState.RUNNING, execution_hosts=("node1",))
    services.record_answers({session.pk: services.Answer(status, Decision(start_timed_out=True))})
    session.refresh_from_db()
    assert (session.started_at, session.stop_reason) == (None, "")
    assert events_of(session) == []


def test_a_server_that_is_late_while_somebody_stops_the_session_is_not_to_blame(alice: User) -> None:
    session = a_session(
        alice,
        state=SessionState.STARTING,
        stop_requested_at=now(),
        stop_requested_by="alice",
        stop_reason="stopped_by_user",
    )
    status = JobStatus("1.pbs", JobState.RUNNING, execution_hosts=("node1",))
    services.record_answers({session.pk: services.Answer(status, Decision(start_timed_out=True))})
    session.refresh_from_db()
    assert (session.stop_reason, session.end_code) == (EndReason.STOPPED_BY_USER, "")


@pytest.mark.parametrize("state", [SessionState.STARTING, SessionState.READY])
@pytest.mark.parametrize("job_state", [JobState.QUEUED, JobState.HELD])
def test_a_job_that_was_put_back_leaves_no_place_to_go_to(
    alice: User, state: SessionState, job_state: JobState
) -> None:
    session = a_session(
        alice, state=state, server_at=now(), ready_at=now(), active_at=now(), idle_stop_at=now(), execution_host="node1"
    )
    services.record_answers({session.pk: services.Answer(JobStatus("1.pbs", job_state), Decision())})
    session.refresh_from_db()
    assert (session.started_at, session.server_at, session.ready_at) == (None, None, None)
    assert (session.upstream_host, session.upstream_port, session.upstream_socket) == ("", None, "")
    assert (session.active_at, session.idle_stop_at) == (None, None)


def test_numbers_that_no_column_holds_are_cut(alice: User) -> None:
    session = a_session(alice, state=SessionState.STARTING)
    status = JobStatus(
        "1.pbs",
        JobState.RUNNING,
        walltime_seconds=10**12,
        memory_used_mib=10**12,
        run_count=10**12,
        exit_status=-(10**12),
        started_at=now(),
    )
    services.record_answers({session.pk: services.Answer(status, Decision())})
    session.refresh_from_db()
    assert (session.memory_used_mib, session.run_count) == (2**31 - 1, 2**31 - 1)
    assert (session.walltime_seconds, session.exit_status) == (10**8, -(2**31))


def test_a_reason_has_ten_to_three_hundred_characters(alice: User, admin: User, site: Callable[..., None]) -> None:
    site(open_as_user=True)
    session = a_session(alice)
    for length in (9, 301):
        with pytest.raises(services.VisitRefused) as refused:
            services.open_as_user(session=session, actor=admin, reason="x" * length, address="")
        assert refused.value.code == "visit.reason"
    for length in (10, 300):
        visit = services.open_as_user(session=session, actor=admin, reason="x" * length, address="")
        assert visit.expires_at - visit.began_at == 30 * MINUTE


@pytest.mark.parametrize(
    ("values", "stays"),
    [({}, False), ({"enrolled_at": now()}, True), ({"revoked_at": now()}, True)],
)
def test_only_a_key_that_was_never_used_is_forgotten(alice: User, values: dict[str, Any], stays: bool) -> None:
    key = services.key_to_enrol(user=alice, cluster_id="demo")
    EnrolledKey.objects.filter(pk=key.pk).update(**values)
    services.forget_key(key.pk)
    assert EnrolledKey.objects.exists() == stays


def test_a_revoked_keys_private_half_goes_with_its_line_or_after_a_week(alice: User) -> None:
    week = dt.timedelta(days=7)
    key = services.key_to_enrol(user=alice, cluster_id="demo")
    assert not services.give_up_line(key)
    services.revoke_key(user=alice, key_id=key.pk, address="")
    services.record_enrolled(key.pk, address="")
    key.refresh_from_db()
    assert key.enrolled_at is None
    key.revoked_at = now() - week + MINUTE
    assert not services.give_up_line(key)
    assert bytes(EnrolledKey.objects.get().private_key_encrypted) != b""
    key.revoked_at = now() - week - MINUTE
    assert services.give_up_line(key)
    services.record_line_removed(key.pk)
    assert bytes(EnrolledKey.objects.get().private_key_encrypted) == b""
    event = AuditEvent.objects.get(name="credential.line_removed")
    assert (event.actor, event.data["removed"]) == ("portal", False)


def test_a_mail_is_tried_after_each_pause_and_once_more(alice: User) -> None:
    session = a_session(alice)
    notice = Notice.objects.create(
        session=session, kind=NoticeKind.READY, key="ready", created_at=now(), mail_due_at=now()
    )
    for pause in PAUSES:
        assert services.claim_mail(notice.pk) is not None
        assert services.claim_mail(notice.pk) is None, "it is not due"
        notice.refresh_from_db()
        assert notice.mail_due_at is not None
        assert abs(notice.mail_due_at - now() - pause) < 30 * SECOND
        Notice.objects.update(mail_due_at=now())
    assert services.claim_mail(notice.pk) is not None
    notice.refresh_from_db()
    assert (notice.mail_attempts, notice.mail_due_at) == (len(PAUSES) + 1, None)


def test_a_mail_that_was_sent_or_given_up_is_not_due_any_more(alice: User) -> None:
    session = a_session(alice)
    for number, after in enumerate((services.record_mailed, services.give_up_mail)):
        notice = Notice.objects.create(
            session=session, kind=NoticeKind.READY, key=f"ready:{number}", created_at=now(), mail_due_at=now()
        )
        after(notice.pk)
        assert services.claim_mail(notice.pk) is None


@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        ({}, True),
        ({"stop_requested_at": now(), "stop_requested_by": "alice", "stop_reason": "stopped_by_user"}, False),
        ({"state": SessionState.STOPPING}, False),
        ({"state": SessionState.QUEUED}, False),
    ],
)
def test_only_what_runs_and_may_go_on_is_warned_of_its_end(
    alice: User, values: dict[str, Any], is_warned: bool
) -> None:
    session = a_session(alice, walltime_ends_at=now() + 2 * MINUTE, **values)
    assert services.warn_of_end(session.pk) == is_warned


def test_only_a_session_in_use_can_be_kept_running(alice: User) -> None:
    for values in (
        {"state": SessionState.STARTING},
        {"stop_requested_at": now(), "stop_requested_by": "alice", "stop_reason": "stopped_by_user"},
    ):
        session = a_session(alice, idle_stop_at=now(), **values)
        before = the_row(session)
        services.keep_running(session=session, actor=alice, address="")
        assert the_row(session) == before
    assert AuditEvent.objects.count() == 0


def test_no_look_changes_what_is_not_ready_or_was_used_meanwhile(alice: User) -> None:
    long_ago = now() - 30 * HOUR
    idle: dict[str, Any] = {"created_at": long_ago, "ready_at": long_ago, "active_at": long_ago}
    for limit in (3600, 10**7):  # news, and nothing new
        for values in ({"state": SessionState.STOPPING}, {"active_at": now()}, {"stop_requested_at": now()}):
            session = a_session(alice, **idle)
            InteractiveSession.objects.filter(pk=session.pk).update(**values)
            before = the_row(session)
            services.record_look(session, services.Look(at=now(), unused_seconds=30 * 3600), limit=limit)
            after = the_row(session)
            assert (after["state"], after["idle_stop_at"]) == (before["state"], None)
            if "stop_requested_at" not in values:
                assert after["active_at"] == before["active_at"]
    assert not Notice.objects.exists()


def test_a_folder_is_removed_once(alice: User) -> None:
    session = a_session(alice, **OVER, ended_at=now())
    services.record_folder_removed(session.pk)
    before = the_row(session)
    services.record_folder_removed(session.pk)
    assert the_row(session) == before
    assert events_of(session) == ["session.folder_removed"]


def test_who_is_kept_out_is_in_the_log_once_for_each_session_person_and_cause(alice: User) -> None:
    for _ in range(2):
        for session, person, cause in (
            ("one", "alice", "not_yours"),
            ("two", "alice", "not_yours"),
            ("one", "bob", "not_yours"),
            ("one", "alice", "expired"),
            ("one", "", "no_cookie"),
        ):
            services.record_access_denied(
                session_id=session, username=person, door="proxy", cause=cause, address="192.0.2.7"
            )
    assert AuditEvent.objects.count() == 5


@pytest.mark.parametrize(
    ("person", "cause", "seconds"),
    [("alice", "not_yours", 600), ("", "not_yours", 3600), ("alice", "expired", 86_400), ("", "no_cookie", 86_400)],
)
def test_who_is_kept_out_again_is_in_the_log_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, person: str, cause: str, seconds: int
) -> None:
    begun = now()
    for passed, times in ((0, 1), (seconds - 5, 1), (seconds + 5, 2)):
        cache.clear()  # a Valkey that knows nothing: then the log itself is asked
        monkeypatch.setattr(clock, "now", lambda passed=passed: begun + passed * SECOND)
        services.record_access_denied(session_id="one", username=person, door="proxy", cause=cause, address="")
        assert AuditEvent.objects.count() == times


def test_what_could_not_be_kept_is_kept_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny() -> None:
        services.record_access_denied(session_id="one", username="alice", door="proxy", cause="not_yours", address="")

    with monkeypatch.context() as patch:
        patch.setattr(facts, "record_once", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deny()
    deny()
    assert AuditEvent.objects.get().actor == "alice"


def test_the_hours_that_are_allowed_are_allowed_to_the_second(alice: User) -> None:
    allow(alice, hours=0.5, sessions=2)
    for seconds, fits in ((1800, True), (1801, False)):
        with contextlib.nullcontext() if fits else pytest.raises(LaunchRefused):
            services.create_session(
                owner=alice,
                app=parts.apps()["jupyter"],
                cluster=parts.clusters()["demo"],
                choices=replace(CHOICES, walltime_seconds=seconds),
                address="",
            )
    assert InteractiveSession.objects.count() == 1


def test_an_allowance_says_when_it_was_changed_last(alice: User, admin: User) -> None:
    row = allow(alice, sessions=1)
    Allowance.objects.update(changed_at=now() - HOUR)
    services.set_sessions_of(user=alice, sessions=1, actor=admin, address="")
    row.refresh_from_db()
    assert now() - row.changed_at > 59 * MINUTE, "nothing was changed"
    services.set_sessions_of(user=alice, sessions=2, actor=admin, address="")
    row.refresh_from_db()
    assert now() - row.changed_at < MINUTE
    with pytest.raises(ValidationError):
        services.set_sessions_of(user=alice, sessions=-1, actor=admin, address="")
    row.refresh_from_db()
    assert row.sessions == 2


def test_a_key_that_a_host_accepted_twice_was_enrolled_once(alice: User) -> None:
    key = services.key_to_enrol(user=alice, cluster_id="demo")
    services.record_enrolled(key.pk, address="")
    first = EnrolledKey.objects.get().enrolled_at
    services.record_enrolled(key.pk, address="")
    assert EnrolledKey.objects.get().enrolled_at == first
    assert AuditEvent.objects.filter(name="credential.enrolled").count() == 1
