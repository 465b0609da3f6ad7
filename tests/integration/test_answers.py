"""A round's answers about many sessions are written down together: the same facts as one by one, no wish lost."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import connections
from django.utils import timezone

from launcher import dispatch, selectors, services
from launcher.democluster.pbs.calls import find_job
from launcher.democluster.pbs.job import SUBSTATE_RUNNING
from launcher.flows import poll_keep
from launcher.flows.poll_ask import Round
from launcher.models import InteractiveSession
from launcher.monitor import Decision
from launcher.parts import clusters
from launcher.schedulers.base import JobState, JobStatus
from launcher.services import Answer
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.audit.selectors import verify
from portal.ids import random_name
from tests.conftest import RunningCluster
from tests.integration.test_robustness import launched
from tests.story import drive, events_of, one_round
from tests.waiting import wait_for

RUNNING = JobStatus("1.pbs", JobState.RUNNING, execution_hosts=("node1",), run_count=1)
STARTS = Answer(RUNNING, Decision(move_to=SessionState.STARTING))

pytestmark = pytest.mark.django_db(transaction=True)


def queued(owner: User, count: int) -> list[InteractiveSession]:
    """Sessions of ``owner`` whose jobs wait, as far as the portal knows."""
    moment = timezone.now()
    return InteractiveSession.objects.bulk_create(
        InteractiveSession(
            owner=owner,
            username=owner.username,
            cluster="demo",
            app="jupyter",
            state=SessionState.QUEUED,
            created_at=moment,
            submitted_at=moment,
            job_id=f"{random_name(8)}.pbs",
        )
        for _ in range(count)
    )


def all_start(sessions: list[InteractiveSession]) -> dict[str, Answer]:
    """The answer that every job runs."""
    return {session.id: STARTS for session in sessions}


def test_answers_about_many_say_of_each_what_an_answer_about_one_says(valkey: None, alice: User, bob: User) -> None:
    together, alone = queued(alice, 20), queued(bob, 1)[0]
    services.record_answers(all_start(together))
    services.record_answers(all_start([alone]))
    alone.refresh_from_db()
    for session in together:
        session.refresh_from_db()
        assert events_of(session) == events_of(alone) == ["session.started"]
        assert (session.state, session.execution_host, session.run_count) == (SessionState.STARTING, "node1", 1)
        assert session.started_at == session.polled_at
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"alice", "bob"}
    assert verify().tip.count == 21
    assert verify().broken is None


def test_many_starts_are_recorded_with_one_look_at_the_end_of_the_audit_log(
    valkey: None, alice: User, django_assert_max_num_queries: object
) -> None:
    sessions = queued(alice, 50)
    with django_assert_max_num_queries(50 + 15):  # type: ignore[operator]  # a fixture without a public type
        services.record_answers(all_start(sessions))
    assert AuditEvent.objects.count() == 50


def test_answers_that_cannot_be_kept_leave_no_fact_behind(valkey: None, alice: User) -> None:
    sessions = queued(alice, 3)
    impossible = replace(RUNNING, execution_hosts=(b"no text",))  # type: ignore[arg-type]  # what no adapter gives
    with pytest.raises(TypeError):
        services.record_answers(all_start(sessions[:2]) | {sessions[2].id: replace(STARTS, status=impossible)})
    assert AuditEvent.objects.count() == 0
    assert set(InteractiveSession.objects.values_list("state", flat=True)) == {SessionState.QUEUED}


def test_one_answer_that_cannot_be_kept_leaves_the_others_theirs(demo_cluster: RunningCluster, alice: User) -> None:
    sessions = queued(alice, 5)
    poisoned = sessions[2].id
    impossible = replace(RUNNING, execution_hosts=(b"no text",))  # type: ignore[arg-type]  # what no adapter gives
    result = Round(
        statuses={session.id: RUNNING for session in sessions} | {poisoned: impossible},
        decisions={session.id: STARTS.decision for session in sessions},
    )
    poll_keep.keep(clusters()["demo"], sessions, result)
    states = dict(InteractiveSession.objects.values_list("pk", "state"))
    assert states.pop(poisoned) == SessionState.QUEUED
    assert set(states.values()) == {SessionState.STARTING}
    assert AuditEvent.objects.count() == 4


def test_a_stop_between_question_and_answer_is_not_overwritten(demo_cluster: RunningCluster, alice: User) -> None:
    sessions = queued(alice, 3)
    answers = all_start(sessions)
    services.request_stop(session=sessions[1], actor=alice, address="")
    services.record_answers(answers)
    stopped = sessions[1]
    stopped.refresh_from_db()
    assert (stopped.state, stopped.stop_requested_by) == (SessionState.STOPPING, "alice")
    assert stopped.stop_reason == EndReason.STOPPED_BY_USER


def test_stops_while_answers_are_written_down_are_all_kept(demo_cluster: RunningCluster, alice: User) -> None:
    sessions = queued(alice, 60)
    go = threading.Barrier(3)
    errors: list[Exception] = []

    def stop(some: list[InteractiveSession]) -> None:
        go.wait(60)
        try:
            for session in some:
                services.request_stop(session=session, actor=alice, address="")
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=stop, args=[sessions[start::2]]) for start in (0, 1)]
    for thread in threads:
        thread.start()
    go.wait(60)
    for number in range(12):  # every time other news, so that every row is written
        host = replace(RUNNING, comment=f"news {number}")
        services.record_answers({session.id: Answer(host, STARTS.decision) for session in sessions})
    for thread in threads:
        thread.join(60)
    assert errors == []
    rows = InteractiveSession.objects.values_list("state", "stop_requested_by", "stop_reason").distinct()
    assert list(rows) == [(SessionState.STOPPING, "alice", EndReason.STOPPED_BY_USER)]
    assert AuditEvent.objects.filter(name="session.stop_requested").count() == 60
    assert verify().broken is None


def test_a_person_hears_of_many_changes_in_one_message(valkey: None, alice: User, bob: User) -> None:
    layer = get_channel_layer()
    page = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)(dispatch.user_group(alice.pk), page)
    sessions = queued(alice, 5)
    services.record_answers(all_start([*sessions, *queued(bob, 5)]))
    (last,) = queued(alice, 1)
    services.record_answers(all_start([last]))

    async def heard() -> list[Mapping[str, object]]:
        return [await layer.receive(page) for _ in range(2)]

    first, second = async_to_sync(heard)()
    assert first == {"type": "sessions.changed", "states": {session.id: "starting" for session in sessions}}
    assert second["states"] == {last.id: "starting"}


def test_a_silent_cluster_is_noted_for_all_its_sessions_at_once(
    valkey: None, alice: User, django_assert_max_num_queries: object
) -> None:
    sessions = queued(alice, 50)
    with django_assert_max_num_queries(6):  # type: ignore[operator]  # a fixture without a public type
        services.record_unreachable([session.id for session in sessions])
    assert not InteractiveSession.objects.filter(unreachable_since__isnull=True).exists()


# Jobs that begin to run again


@pytest.fixture
def ready(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session whose server was found on node1, in the job's first run."""
    (session,) = queued(alice, 1)
    services.record_answers({session.id: STARTS})
    InteractiveSession.objects.filter(pk=session.pk).update(
        state=SessionState.READY, upstream_host="node1", upstream_port=9000, ready_at=timezone.now()
    )
    session.refresh_from_db()
    return session


def test_a_job_that_was_run_again_on_the_same_computer_has_left_its_place(ready: InteractiveSession) -> None:
    started_at = ready.started_at
    again = replace(RUNNING, run_count=2)
    assert not services.says_nothing_new(ready, status=again, decision=Decision())
    services.record_answers({ready.id: Answer(again, Decision())})
    ready.refresh_from_db()
    assert (ready.upstream_host, ready.upstream_port, ready.ready_at) == ("", None, None)
    assert (ready.state, ready.run_count) == (SessionState.READY, 2)
    assert ready.started_at > started_at
    assert selectors.open_target(label=ready.host_label, cookie_value="").target is None
    assert events_of(ready) == ["session.started", "session.started"]


@pytest.mark.parametrize("count", [1, None])
def test_a_job_that_still_runs_has_not_left_its_place(ready: InteractiveSession, count: int | None) -> None:
    services.record_answers({ready.id: Answer(replace(RUNNING, run_count=count), Decision())})
    ready.refresh_from_db()
    assert (ready.upstream_host, ready.run_count) == ("node1", 1)


def test_how_often_a_job_ran_is_kept_where_nobody_knew_it(ready: InteractiveSession) -> None:
    ready.run_count = None
    assert not services.says_nothing_new(ready, status=RUNNING, decision=Decision())


def test_a_job_that_ran_again_between_two_rounds_is_opened_where_its_new_server_listens(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = drive(launched(alice), SessionState.READY)
    began = session.started_at
    demo_cluster.fault("requeue_job", session.job_id)
    job = find_job(demo_cluster.demo.scheduler.jobs, session.job_id)
    wait_for(lambda: job.run_count == 2 and job.substate == SUBSTATE_RUNNING, what="the job to run again")
    one_round(session)
    assert (session.state, session.upstream_host, session.run_count) == (SessionState.READY, "", 2)
    assert session.started_at > began
    wait_for(lambda: one_round(session).ready_at, seconds=60, what="the new server to answer")
    assert (session.upstream_host, events_of(session).count("session.ready")) == (session.execution_host, 2)
