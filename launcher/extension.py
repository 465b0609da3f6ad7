"""Whether a session may run longer now, and for how long in all. Pure: values in, a verdict out.

The site says how often and by how much (``extend_times``, ``extend_hours``), how long a queue lets a job run at most,
how long a person's session may, and when the cluster is not to be used. Where the whole step does not fit, what is left
is offered, if it is worth asking for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.clusters import Cluster
from launcher.schedulers.base import JobState
from launcher.states import SessionState

WORTH_SECONDS = 5 * 60
"""Less than that is not worth asking for."""

_RUNNING = frozenset({SessionState.STARTING, SessionState.READY})


@dataclass(frozen=True, slots=True)
class Running:
    """What the verdict needs to know of a session."""

    state: SessionState
    job_state: str
    queue: str  # empty: the cluster's first
    walltime_seconds: int | None  # in all, as the scheduler grants it
    ends_at: dt.datetime | None  # when that is over
    extensions: int  # granted so far
    extending_to_seconds: int | None  # asked for; the answer is not yet known
    stop_requested: bool
    cluster_silent: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """``walltime_seconds``: how long in all the session may run after the extension; ``None``: it may not be extended.

    ``code``: why not, or (``extend.limited_*``) why it is less than the usual step; empty for the whole step.
    """

    walltime_seconds: int | None
    code: str = ""
    params: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_possible(self) -> bool:
        """Whether the session may be extended now."""
        return self.walltime_seconds is not None


def judge(cluster: Cluster | None, running: Running, now: dt.datetime, *, most_hours: float | None = None) -> Verdict:
    """Whether ``running`` may be extended at ``now``.

    ``cluster``: ``None`` when it has left the clusters file. ``most_hours``: what the person's sessions may run in
    all; ``None``: the queue's limit alone counts.
    """
    if cluster is None or not cluster.operator or not cluster.extend_times:
        return Verdict(None, "extend.not_offered")
    if running.stop_requested or running.state is SessionState.STOPPING:
        return Verdict(None, "extend.stopping")
    if running.state not in _RUNNING or running.job_state not in (JobState.RUNNING, JobState.SUSPENDED):
        return Verdict(None, "extend.not_running")
    if running.extending_to_seconds is not None:
        return Verdict(None, "extend.asked")
    if running.extensions >= cluster.extend_times:
        return Verdict(None, "extend.used_up", {"times": cluster.extend_times})
    if running.cluster_silent:
        return Verdict(None, "extend.cluster_away")
    if running.walltime_seconds is None or running.ends_at is None:
        return Verdict(None, "extend.time_unknown")
    if running.ends_at <= now:
        return Verdict(None, "extend.too_late")
    queue = cluster.queue(running.queue) if running.queue else cluster.queues[0]
    if queue is None:
        return Verdict(None, "extend.queue_gone")
    if most_hours is not None and most_hours < queue.max_hours:
        most, whose = most_hours, "allowance"
    else:
        most, whose = queue.max_hours, "queue"
    return _within_limits(cluster, (most, whose), running.walltime_seconds, running.ends_at, now)


def _within_limits(
    cluster: Cluster, limit: tuple[float, str], walltime_seconds: int, ends_at: dt.datetime, now: dt.datetime
) -> Verdict:
    step, code, params = cluster.extend_hours * 3600, "", dict[str, object]()
    hours, whose = limit
    left = hours * 3600 - walltime_seconds
    if left < step:
        step, code, params = left, whose, {"hours": f"{hours:g}"}
    for maintenance in sorted(cluster.maintenance, key=lambda entry: entry.begins):
        if maintenance.ends <= now:
            continue
        before_it = (maintenance.begins - ends_at).total_seconds()
        if before_it < step:
            step, code, params = before_it, "maintenance", {"at": maintenance.begins.isoformat()}
    if step < min(WORTH_SECONDS, cluster.extend_hours * 3600):
        return Verdict(None, f"extend.no_room_{code}", params)
    return Verdict(walltime_seconds + int(step), f"extend.limited_{code}" if code else "", params)
