"""The main job on a real PBS: launch, ready, a cell, and the ways in which a job ends. It is how acceptance is run."""

from __future__ import annotations

import datetime as dt
import http.client

import pytest

from launcher import parts, services
from launcher.flows.ask import ask
from launcher.flows.launch import launch
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands_loop, scheduler_of
from launcher.schedulers.base import CommandResult, JobState, SchedulerUnavailable, StatusReport
from launcher.states import SessionState
from portal import ids
from portal.accounts.models import User
from portal.accounts.proving import SignInRefused, prove_password
from portal.accounts.services import admit
from portal.audit.selectors import verify
from tests.live.site import CLUSTER_ID, LiveSite
from tests.story import drive, events_of, local_port, one_round, run_cell
from tests.waiting import wait_for

SECONDS = 180
"""How long a cluster may take for one step."""
SHORT_SECONDS = 20
PAUSE_SECONDS = 1.0
"""Every command of PBS holds a reserved port for a minute: nobody asks more often than once a second."""


def launched(live: LiveSite, user: User) -> InteractiveSession:
    return launch(user=user, app_id="jupyter", raw=live.raw, address="192.0.2.1")


def until(session: InteractiveSession, state: SessionState) -> InteractiveSession:
    return drive(session, state, seconds=SECONDS, pause_seconds=PAUSE_SECONDS)


def found(session: InteractiveSession) -> tuple[str, ...]:
    """The ids of all jobs with this session's name, ended ones too where the cluster remembers them."""
    search = ask(
        clusters()[CLUSTER_ID],
        session.username,
        lambda scheduler: scheduler.find_command(name=session.job_name, user=session.username),
        lambda scheduler, result: scheduler.parse_find(result),
    )
    return hands_loop().run(search, SECONDS)


def status(user: str, *job_ids: str) -> StatusReport:
    question = ask(
        clusters()[CLUSTER_ID],
        user,
        lambda scheduler: scheduler.status_command(job_ids),
        lambda scheduler, result: scheduler.parse_status(result, job_ids),
    )
    return hands_loop().run(question, SECONDS)


def same_host(one: str, other: str) -> bool:
    """Schedulers and people disagree about domains."""
    return one.partition(".")[0].lower() == other.partition(".")[0].lower()


def test_a_session_goes_from_launch_over_a_cell_to_its_end_with_every_step_audited(live: LiveSite, user: User) -> None:
    session = until(launched(live, user), SessionState.READY)
    assert same_host(session.execution_host, live.execution_host)
    assert same_host(session.upstream_host, live.execution_host)
    assert run_cell(session, "import getpass; print(6 * 7, getpass.getuser())") == f"42 {live.user}"
    services.request_stop(session=session, actor=user, address="192.0.2.1")
    until(session, SessionState.ENDED)
    assert session.end_reason == "stopped_by_user"
    assert events_of(session) == [
        "session.launched",
        "session.submitted",
        "session.started",
        "session.ready",
        "session.stop_requested",
        "session.cancelled",
        "session.ended",
    ]
    assert verify().broken is None


def test_sessions_of_two_people_run_side_by_side_and_neither_opens_the_others(
    live: LiveSite, user: User, other: User
) -> None:
    first, second = launched(live, user), launched(live, other)
    until(first, SessionState.READY)
    until(second, SessionState.READY)
    one_round(first)
    for session in (first, second):
        session.refresh_from_db()
        assert (session.state, session.job_state, session.unreachable_since) == ("ready", "running", None)
        assert run_cell(session, "print(6 * 7)") == "42"
    with local_port(first) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", f"{first.base_url}api/contents")
        assert client.getresponse().status == 403
        client.close()


def test_a_job_that_is_over_its_time_ends_with_walltime_as_the_reason(live: LiveSite, user: User) -> None:
    session = launched(live, user)
    session.choices = {**session.choices, "walltime_seconds": SHORT_SECONDS}  # less than the form allows
    session.save()
    until(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("walltime", "ended.walltime")


def test_a_job_that_was_deleted_outside_the_portal_is_told_as_that(live: LiveSite, user: User) -> None:
    session = until(launched(live, user), SessionState.READY)
    live.run(live.user, "qdel", session.job_id)
    until(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("stopped_by_user", "ended.deleted_outside")
    assert session.log_tail


def test_a_lost_answer_of_qsub_leads_to_one_job_that_is_adopted(
    live: LiveSite, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: object, result: CommandResult) -> str:
        raise SchedulerUnavailable("the line broke before the answer came")

    session = launched(live, user)
    with monkeypatch.context() as patch:
        patch.setattr(type(scheduler_of(CLUSTER_ID)), "parse_submit", lost)
        submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.SUBMITTING, "")
    until(session, SessionState.READY)
    assert found(session) == (session.job_id,)
    assert "session.job_adopted" in events_of(session)


def test_the_time_that_is_left_is_known(live: LiveSite, user: User) -> None:
    session = until(launched(live, user), SessionState.READY)
    assert session.started_at is not None
    assert session.walltime_ends_at is not None
    granted = session.walltime_ends_at - session.started_at
    assert abs(granted - dt.timedelta(hours=float(str(live.raw["hours"])))) < dt.timedelta(minutes=1)


def test_one_status_command_tells_held_running_and_finished_jobs_and_leaves_out_unknown_ones(live: LiveSite) -> None:
    def put(script: str, *options: str) -> str:
        name = f"fb-{ids.session_id()}"
        words = ("qsub", "-N", name, "-q", live.values["QUEUE"], "-j", "oe", "-o", "/dev/null", *options)
        return live.run(live.user, *words, stdin=f"#!/bin/sh\n{script}\n".encode()).split()[-1]

    held, running, ended = put("true", "-h"), put("sleep 600"), put("exit 7")
    unknown = "999999999" + ended.lstrip("0123456789")
    wanted = {held: JobState.HELD, running: JobState.RUNNING, ended: JobState.FINISHED}
    try:
        wait_for(
            lambda: {job: state.state for job, state in status(live.user, *wanted, unknown).jobs.items()} == wanted,
            seconds=SECONDS,
            pause_seconds=PAUSE_SECONDS,
            what=lambda: status(live.user, *wanted, unknown),
        )
        report = status(live.user, *wanted, unknown)
        assert report.missing == {unknown}
        assert report.jobs[ended].exit_status == 7
        assert report.jobs[running].owner == live.user
        assert report.jobs[running].execution_hosts
    finally:
        live.run(live.user, "qdel", held, running)


def test_queues_and_hosts_are_read(live: LiveSite) -> None:
    cluster = clusters()[CLUSTER_ID]
    queues = hands_loop().run(
        ask(cluster, live.user, lambda s: s.queues_command(), lambda s, result: s.parse_queues(result)), SECONDS
    )
    nodes = hands_loop().run(
        ask(cluster, live.user, lambda s: s.nodes_command(), lambda s, result: s.parse_nodes(result)), SECONDS
    )
    assert live.values["QUEUE"] in {queue.name for queue in queues}
    assert any(same_host(node.name, live.execution_host) and node.is_up and node.cores for node in nodes)


def test_the_clusters_password_signs_in_and_another_does_not(live: LiveSite) -> None:
    if not live.password:
        pytest.skip("FOOTBRIDGE_LIVE_PASSWORD is not set")
    proved = prove_password(username=live.user, password=live.password, address="192.0.2.1")
    user = admit(proved=proved, address="192.0.2.1").user
    assert user.username == live.user
    assert bool(user.groups_on_cluster) == bool(parts.sign_in_cluster().operator)
    with pytest.raises(SignInRefused):
        prove_password(username=live.user, password=f"not {live.password}", address="192.0.2.1")
