"""Whether a session may be extended, to which walltime, and why not."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from launcher.clusters import Cluster, Maintenance, QueueLimits
from launcher.extension import Running, judge
from launcher.states import SessionState

HOUR = 3600
NOW = dt.datetime(2027, 3, 1, 12, 0, tzinfo=dt.UTC)
CLUSTER = Cluster(
    id="main",
    name="Main",
    login_hosts=("login1",),
    host_keys=("ssh-ed25519 AAAA",),
    operator="portal",
    extend_times=2,
    extend_hours=1,
    queues=(QueueLimits(name="workq", max_hours=8), QueueLimits(name="short", max_hours=2.5)),
)
RUNNING = Running(
    state=SessionState.READY,
    job_state="running",
    queue="",
    walltime_seconds=2 * HOUR,
    ends_at=NOW + dt.timedelta(minutes=20),
    extensions=0,
    extending_to_seconds=None,
    stop_requested=False,
    cluster_silent=False,
)


def maintained(begins_in_minutes: float, lasts_minutes: float = 600) -> Cluster:
    begins = NOW + dt.timedelta(minutes=begins_in_minutes)
    entry = Maintenance(begins=begins, ends=begins + dt.timedelta(minutes=lasts_minutes))
    return CLUSTER.model_copy(update={"maintenance": (entry,)})


@pytest.mark.parametrize(
    ("code", "cluster", "running"),
    [
        ("extend.not_offered", None, RUNNING),
        ("extend.not_offered", CLUSTER.model_copy(update={"operator": ""}), RUNNING),
        ("extend.not_offered", CLUSTER.model_copy(update={"extend_times": 0}), RUNNING),
        ("extend.used_up", CLUSTER, replace(RUNNING, extensions=2)),
        ("extend.not_running", CLUSTER, replace(RUNNING, state=SessionState.QUEUED, job_state="queued")),
        ("extend.not_running", CLUSTER, replace(RUNNING, job_state="queued")),
        ("extend.not_running", CLUSTER, replace(RUNNING, state=SessionState.ENDED)),
        ("extend.stopping", CLUSTER, replace(RUNNING, stop_requested=True)),
        ("extend.stopping", CLUSTER, replace(RUNNING, state=SessionState.STOPPING)),
        ("extend.cluster_away", CLUSTER, replace(RUNNING, cluster_silent=True)),
        ("extend.asked", CLUSTER, replace(RUNNING, extending_to_seconds=3 * HOUR)),
        ("extend.time_unknown", CLUSTER, replace(RUNNING, walltime_seconds=None)),
        ("extend.time_unknown", CLUSTER, replace(RUNNING, ends_at=None)),
        ("extend.too_late", CLUSTER, replace(RUNNING, ends_at=NOW)),
        ("extend.queue_gone", CLUSTER, replace(RUNNING, queue="closed")),
        ("extend.no_room_queue", CLUSTER, replace(RUNNING, walltime_seconds=8 * HOUR)),
        ("extend.no_room_queue", CLUSTER, replace(RUNNING, walltime_seconds=8 * HOUR - 299)),
        ("extend.no_room_maintenance", maintained(24), RUNNING),
        ("extend.no_room_maintenance", maintained(10), RUNNING),
        ("extend.no_room_maintenance", maintained(-10), RUNNING),
    ],
)
def test_it_may_not_be_extended(code: str, cluster: Cluster | None, running: Running) -> None:
    verdict = judge(cluster, running, NOW)
    assert (verdict.code, verdict.walltime_seconds, verdict.is_possible) == (code, None, False)


@pytest.mark.parametrize(
    ("to_seconds", "code", "cluster", "running"),
    [
        (3 * HOUR, "", CLUSTER, RUNNING),
        (3 * HOUR, "", CLUSTER, replace(RUNNING, extensions=1)),
        (3 * HOUR, "", CLUSTER, replace(RUNNING, state=SessionState.STARTING)),
        (3 * HOUR, "", CLUSTER, replace(RUNNING, job_state="suspended")),
        (int(2.5 * HOUR), "extend.limited_queue", CLUSTER, replace(RUNNING, queue="short")),
        (8 * HOUR, "extend.limited_queue", CLUSTER, replace(RUNNING, walltime_seconds=8 * HOUR - 300)),
        (8 * HOUR, "", CLUSTER, replace(RUNNING, walltime_seconds=7 * HOUR)),
        (2 * HOUR + 1800, "extend.limited_maintenance", maintained(50), RUNNING),
        (3 * HOUR, "", maintained(80), RUNNING),
        (3 * HOUR, "", maintained(-700, 600), RUNNING),
    ],
)
def test_it_may_be_extended_to(to_seconds: int, code: str, cluster: Cluster, running: Running) -> None:
    verdict = judge(cluster, running, NOW)
    assert (verdict.walltime_seconds, verdict.code) == (to_seconds, code)


def test_a_person_who_may_have_less_than_the_queue_allows_gets_no_more() -> None:
    assert judge(CLUSTER, RUNNING, NOW, most_hours=2.25).walltime_seconds == int(2.25 * HOUR)
    assert judge(CLUSTER, RUNNING, NOW, most_hours=2).code == "extend.no_room_allowance"
    assert judge(CLUSTER, RUNNING, NOW, most_hours=24).walltime_seconds == 3 * HOUR


def test_a_step_shorter_than_what_is_usually_worth_it_is_granted_where_the_site_wants_it() -> None:
    cluster = CLUSTER.model_copy(update={"extend_hours": 0.02})
    assert judge(cluster, RUNNING, NOW).walltime_seconds == 2 * HOUR + 72
