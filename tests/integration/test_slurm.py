"""The main job on a real Slurm, over OpenSSH: launch, ready, a cell, and every way in which a job ends or does not."""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import parts, services
from launcher.catalog import LaunchChoices
from launcher.fits import impossible, room
from launcher.flows.cancel import cancel
from launcher.flows.extend import extend
from launcher.flows.facts import facts_of
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.schedulers.base import CommandResult, SchedulerUnavailable
from launcher.schedulers.slurm import Slurm
from launcher.services import LaunchRefused
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.selectors import verify
from tests.settings import FOLDER
from tests.slurm import SlurmSite, slurm_site, why_not
from tests.slurm_files import HOST, OPERATOR, PARTITION
from tests.story import drive, events_of, one_round, run_cell
from tests.waiting import wait_for

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.integration,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]

RAW: dict[str, object] = {"cores": "2", "memory": "1 GB", "hours": "1", "title": "Trial"}


@pytest.fixture(scope="module")
def site(user_ca: Path) -> Iterator[SlurmSite]:
    """One Slurm for all tests here."""
    with slurm_site(user_ca, {"alice": "a password of alice", "bob": "a password of bob"}) as site:
        if found := site.unreadable("alice"):
            pytest.skip(f"an ordinary account cannot run this Python and its packages: {found[-200:]}")
        yield site
        parts.hands_loop().run(parts.hands().pool.aclose(), 60)
        parts.hands_loop().run(parts.shared_turns().aclose(), 60)
        parts.hands.cache_clear()


@pytest.fixture
def slurm(site: SlurmSite, valkey: None) -> Iterator[SlurmSite]:
    """The Slurm, empty before and after."""
    (FOLDER / "clusters.toml").write_text(site.toml(), encoding="utf-8")
    parts.forget()
    yield site
    site.mend()


def launched(user: User, **changes: object) -> InteractiveSession:
    return launch(user=user, app_id="jupyter", raw={**RAW, **changes}, address="192.0.2.1")


def submitted(user: User) -> InteractiveSession:
    session = launched(user)
    submit(session.id)
    session.refresh_from_db()
    assert session.job_id
    return session


def jobs(slurm: SlurmSite) -> list[str]:
    """The names of all jobs that Slurm knows and that have not ended."""
    return slurm.root("squeue", "--noheader", "--format=%j").split()


def test_a_session_goes_from_launch_over_a_cell_to_its_end_with_every_step_audited(
    slurm: SlurmSite, alice: User
) -> None:
    session = drive(launched(alice), SessionState.READY)
    assert (session.upstream_host, session.execution_host) == (HOST, HOST)
    assert run_cell(session, "import getpass; print(6 * 7, getpass.getuser())") == "42 alice"
    services.request_stop(session=session, actor=alice, address="192.0.2.1")
    drive(session, SessionState.ENDED)
    assert session.end_reason == "stopped_by_user"
    assert jobs(slurm) == []
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


def test_the_job_has_what_the_form_said(slurm: SlurmSite, alice: User) -> None:
    session = submitted(alice)
    asked = slurm.root("squeue", "--noheader", f"--jobs={session.job_id}", "--format=%j %u %C %m %l %P").split()
    assert asked == [session.job_name, "alice", "2", "1G", "1:00:00", PARTITION]


def test_sessions_of_two_people_are_seen_in_one_round(slurm: SlurmSite, alice: User, bob: User) -> None:
    first, second = submitted(alice), submitted(bob)
    drive(first, SessionState.READY)
    drive(second, SessionState.READY)
    assert run_cell(second, "import os; print(os.environ['USER'])") == "bob"
    poll(first.cluster)
    for session in (first, second):
        session.refresh_from_db()
        assert (session.job_state, session.unreachable_since) == ("running", None)
        assert session.walltime_ends_at is not None


def test_a_job_that_is_over_its_time_ends_with_walltime_as_the_reason(slurm: SlurmSite, alice: User) -> None:
    session = drive(launched(alice), SessionState.STARTING)
    slurm.update(JobId=session.job_id, EndTime="now+1")  # Slurm looks at its clock twice a minute
    drive(session, SessionState.ENDED, seconds=120)
    assert (session.end_reason, session.end_code) == ("walltime", "ended.walltime")


@pytest.mark.parametrize("who", ["alice", "root"])
def test_a_job_that_was_cancelled_outside_the_portal_is_told_as_that(slurm: SlurmSite, alice: User, who: str) -> None:
    session = drive(launched(alice), SessionState.STARTING)
    slurm.user(who, "scancel", session.job_id)
    drive(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("stopped_by_user", "ended.deleted_outside")


def test_a_job_that_was_cancelled_while_it_waited_is_told_as_that(slurm: SlurmSite, alice: User) -> None:
    slurm.update(PartitionName=PARTITION, State="DOWN")
    session = submitted(alice)
    slurm.user("alice", "scancel", session.job_id)
    drive(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("stopped_by_user", "ended.deleted_outside")


def test_a_job_that_waits_says_why_and_starts_when_it_can(slurm: SlurmSite, alice: User) -> None:
    slurm.update(PartitionName=PARTITION, State="DOWN")
    session = submitted(alice)
    wait_for(lambda: one_round(session).job_comment == "PartitionDown", what=lambda: session.job_comment)
    assert (session.state, session.job_state) == (SessionState.QUEUED, "queued")
    slurm.update(PartitionName=PARTITION, State="UP")
    drive(session, SessionState.STARTING)


def test_a_held_job_is_shown_as_held_and_goes_on_when_it_is_released(slurm: SlurmSite, alice: User) -> None:
    slurm.update(PartitionName=PARTITION, State="DOWN")
    session = submitted(alice)
    slurm.user("alice", "scontrol", "hold", session.job_id)
    wait_for(lambda: one_round(session).job_comment == "JobHeldUser", what=lambda: session.job_comment)
    assert (session.state, session.job_state) == (SessionState.QUEUED, "held")
    slurm.update(PartitionName=PARTITION, State="UP")
    slurm.user("alice", "scontrol", "release", session.job_id)
    drive(session, SessionState.STARTING)


def test_a_suspended_job_is_shown_as_suspended_and_its_session_goes_on(slurm: SlurmSite, alice: User) -> None:
    session = drive(launched(alice), SessionState.STARTING)
    slurm.root("scontrol", "suspend", session.job_id)
    one_round(session)
    assert (session.state, session.job_state) == (SessionState.STARTING, "suspended")
    slurm.root("scontrol", "resume", session.job_id)
    one_round(session)
    assert session.job_state == "running"


def test_a_lost_host_is_the_reason(slurm: SlurmSite, alice: User) -> None:
    session = drive(launched(alice), SessionState.STARTING)
    slurm.update(NodeName=HOST, State="DOWN", Reason="test")
    drive(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("node_failed", "ended.node_failed")


def test_while_the_controller_is_down_nothing_ends_and_work_goes_on(slurm: SlurmSite, alice: User) -> None:
    session = drive(launched(alice), SessionState.READY)
    slurm.stop_controller()
    one_round(session)
    assert session.state == SessionState.READY
    assert session.unreachable_since is not None
    assert run_cell(session, "print(6 * 7)") == "42"
    slurm.start_controller()
    one_round(session)
    assert (session.state, session.unreachable_since) == (SessionState.READY, None)


def test_a_launch_while_the_controller_is_down_is_sent_later(slurm: SlurmSite, alice: User) -> None:
    slurm.stop_controller()
    session = launched(alice)
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.SUBMITTING
    assert session.unreachable_since is not None
    slurm.start_controller()
    drive(session, SessionState.QUEUED)
    assert jobs(slurm) == [session.job_name]


def test_a_stop_while_the_controller_is_down_is_carried_out_later(slurm: SlurmSite, alice: User) -> None:
    session = drive(launched(alice), SessionState.STARTING)
    slurm.stop_controller()
    services.request_stop(session=session, actor=alice, address="")
    cancel(session.id)
    session.refresh_from_db()
    assert (session.state, session.cancelled_at) == (SessionState.STOPPING, None)
    slurm.start_controller()
    drive(session, SessionState.ENDED)
    assert session.end_reason == "stopped_by_user"


def test_a_lost_answer_of_sbatch_leads_to_one_job_that_is_adopted(
    slurm: SlurmSite, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: Slurm, result: CommandResult) -> str:
        raise SchedulerUnavailable("the line broke before the answer came")

    slurm.update(PartitionName=PARTITION, State="DOWN")
    session = launched(alice)
    with monkeypatch.context() as patch:
        patch.setattr(Slurm, "parse_submit", lost)
        submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.SUBMITTING, "")
    submit(session.id)
    assert jobs(slurm) == [session.job_name]
    assert "session.job_adopted" in events_of(session)


def test_a_queue_that_is_gone_is_named_as_the_reason(slurm: SlurmSite, alice: User) -> None:
    text = slurm.toml().replace(f'name = "{PARTITION}"', 'name = "gone"')
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    session = launched(alice)
    submit(session.id)
    session.refresh_from_db()
    assert (session.end_reason, session.end_code) == ("submit_rejected", "scheduler.rejected.unknown_queue")
    assert "partition" in session.end_detail


def test_more_than_the_queue_allows_is_refused_before_slurm_is_asked(slurm: SlurmSite, alice: User) -> None:
    with pytest.raises(LaunchRefused):
        launched(alice, cores="9")
    assert jobs(slurm) == []


def test_slurms_own_facts_say_what_can_never_run_and_what_is_free(slurm: SlurmSite, alice: User) -> None:
    cluster = next(iter(parts.clusters().values()))
    facts = facts_of(cluster, alice.username, wait_seconds=60)
    assert facts is not None
    assert facts.queue(cluster.queues[0].name) is not None
    assert all(node.cores and node.memory_mib for node in facts.nodes)
    most = max(node.cores for node in facts.nodes)
    asked = LaunchChoices(cores=most, memory_mib=64, walltime_seconds=60, queue=cluster.queues[0].name)
    assert impossible(facts, asked) == ()
    assert [mistake.field for mistake in impossible(facts, replace(asked, cores=most + 1))] == ["cores"]
    assert room(facts, queue=asked.queue, cores=1, memory_mib=64, gpus=0) is not None


@pytest.mark.parametrize("operator", ["alice", "bob"])
def test_slurm_lets_no_ordinary_account_lengthen_a_running_job(slurm: SlurmSite, alice: User, operator: str) -> None:
    (FOLDER / "clusters.toml").write_text(slurm.toml(extend_times=1, operator=operator), encoding="utf-8")
    parts.forget()
    session = submitted(alice)
    wait_for(lambda: one_round(session).walltime_ends_at is not None and session.started_at, what="the job to run")
    extend(session=session, user=alice, address="")
    session.refresh_from_db()
    limit = slurm.root("squeue", "--noheader", "--format=%l", f"--job={session.job_id}").strip()
    assert (limit, session.extensions) == ("1:00:00", 0)
    assert session.extension_refused == "scheduler.not_permitted"
    assert session.extending_to_seconds is None


def test_its_accounts_stay_when_those_of_the_machine_change(slurm: SlurmSite) -> None:
    """Both programs put another file in the place of /etc/passwd; tests of PAM do so, too."""
    subprocess.run(["useradd", "--no-create-home", "fb-slurm-test"], check=True, capture_output=True, timeout=60)
    try:
        assert slurm.user("alice", "squeue", "--noheader") == ""
    finally:
        subprocess.run(["userdel", "fb-slurm-test"], check=True, capture_output=True, timeout=60)
    assert slurm.user("alice", "squeue", "--noheader") == ""


def test_slurms_operator_lengthens_a_running_job(slurm: SlurmSite, alice: User) -> None:
    text = slurm.toml(extend_times=1, extend_hours=2, operator=OPERATOR)
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    session = submitted(alice)
    wait_for(lambda: one_round(session).walltime_ends_at is not None and session.started_at, what="the job to run")
    before = session.walltime_ends_at
    assert before is not None
    extend(session=session, user=alice, address="")
    one_round(session)
    limit = slurm.root("squeue", "--noheader", "--format=%l", f"--job={session.job_id}").strip()
    assert (limit, session.extensions, session.extending_to_seconds) == ("3:00:00", 1, None)
    assert session.walltime_ends_at == before + dt.timedelta(hours=2)
    assert events_of(session)[-1] == "session.extended"
