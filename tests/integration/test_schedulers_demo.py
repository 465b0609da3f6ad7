"""The OpenPBS adapter's commands, run over SSH by a user of the demo cluster, in both forms of its status command."""

from __future__ import annotations

import pytest

from launcher.parts import clusters, hands, hands_loop
from launcher.schedulers.base import (
    CancelOutcome,
    Command,
    CommandResult,
    JobRequest,
    JobState,
    JobStatus,
    NotPermitted,
    SchedulerUnavailable,
    SubmitRejected,
)
from launcher.schedulers.endings import ending
from launcher.schedulers.pbs import PBS, Client
from launcher.states import EndReason
from portal.ids import session_id
from tests.conftest import RunningCluster
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


class Site:
    """What a user can do on the demo cluster with the adapter's commands."""

    def __init__(self, client: Client) -> None:
        cluster = clusters()["demo"]
        self.pbs = PBS(cluster.commands_folder, client)
        self._cluster = cluster

    def run(self, command: Command, user: str = "alice") -> CommandResult:
        return hands_loop().run(hands().run(self._cluster, user, command), 60)

    def submit(self, name: str, script: str, **values: object) -> str:
        wanted: dict[str, object] = {"cores": 1, "memory_mib": 256, "walltime_seconds": 600, **values}
        request = JobRequest(name, f"#!/bin/sh\n{script}\n".encode(), **wanted)  # type: ignore[arg-type]  # the fields of JobRequest, by name
        return self.pbs.parse_submit(self.run(self.pbs.submit_command(request)))

    def status(self, *job_ids: str) -> dict[str, JobStatus]:
        return dict(self.pbs.parse_status(self.run(self.pbs.status_command(job_ids)), job_ids).jobs)


@pytest.fixture(params=[Client(), Client(grouped=False, dsv=False)], ids=["dsv", "text"])
def site(demo_cluster: RunningCluster, request: pytest.FixtureRequest) -> Site:
    """A user's view of the demo cluster, with a new client and with an old one."""
    return Site(request.param)


def test_the_life_of_a_job(site: Site) -> None:
    name = f"fb-{session_id()}"
    job_id = site.submit(name, "exit 7")
    assert site.pbs.parse_find(site.run(site.pbs.find_command(name=name, user="alice"))) == (job_id,)
    wait_for(lambda: site.status(job_id)[job_id].state is JobState.FINISHED)
    job = site.status(job_id)[job_id]
    assert (job.name, job.owner, job.exit_status) == (name, "alice", 7)
    assert ending(job, "").params == {"exit_status": 7}
    cancelled = site.pbs.parse_cancel(site.run(site.pbs.cancel_command(job_id)))
    assert cancelled is CancelOutcome.FINISHED


def test_a_running_job_names_its_host_and_may_be_shortened_but_not_lengthened(site: Site) -> None:
    job_id = site.submit(f"fb-{session_id()}", "sleep 300")
    wait_for(lambda: site.status(job_id)[job_id].state is JobState.RUNNING)
    assert site.status(job_id)[job_id].execution_hosts
    site.pbs.parse_extend(site.run(site.pbs.extend_command(job_id, walltime_seconds=300)))
    with pytest.raises(NotPermitted):
        site.pbs.parse_extend(site.run(site.pbs.extend_command(job_id, walltime_seconds=900)))
    with pytest.raises(NotPermitted):
        site.pbs.parse_cancel(site.run(site.pbs.cancel_command(job_id), "bob"))
    assert site.pbs.parse_cancel(site.run(site.pbs.cancel_command(job_id))) is CancelOutcome.ACCEPTED
    wait_for(lambda: site.status(job_id)[job_id].state is JobState.FINISHED)
    assert ending(site.status(job_id)[job_id], "").reason is EndReason.STOPPED_BY_USER


def test_an_unknown_job_is_missing_among_known_ones_and_alone(site: Site) -> None:
    job_id = site.submit(f"fb-{session_id()}", "true")
    unknown = "999999." + job_id.partition(".")[2]
    for asked in ([job_id, unknown], [unknown]):
        report = site.pbs.parse_status(site.run(site.pbs.status_command(asked)), asked)
        assert report.missing == {unknown}


def test_an_unknown_queue_is_rejected(site: Site) -> None:
    with pytest.raises(SubmitRejected) as caught:
        site.submit("fb-x", "true", queue="nosuch")
    assert caught.value.code == "scheduler.rejected.unknown_queue"


def test_nothing_found_is_an_answer(site: Site) -> None:
    assert site.pbs.parse_find(site.run(site.pbs.find_command(name="fb-nothing", user="alice"))) == ()


def test_queues_and_hosts(site: Site) -> None:
    queues = site.pbs.parse_queues(site.run(site.pbs.queues_command()))
    assert "workq" in {queue.name for queue in queues}
    nodes = site.pbs.parse_nodes(site.run(site.pbs.nodes_command()))
    assert any(node.is_up and node.cores for node in nodes)


def test_a_scheduler_that_is_down_says_nothing_about_any_job(site: Site, demo_cluster: RunningCluster) -> None:
    job_id = site.submit(f"fb-{session_id()}", "true")
    demo_cluster.fault("scheduler", "down")
    with pytest.raises(SchedulerUnavailable):
        site.status(job_id)
    with pytest.raises(SchedulerUnavailable):
        site.submit("fb-x", "true")
    with pytest.raises(SchedulerUnavailable):
        site.pbs.parse_find(site.run(site.pbs.find_command(name="fb-x", user="alice")))
