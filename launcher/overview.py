"""Puts together what administrators see of each cluster: does it answer, what is it asked, what is free on it.

Everything comes from the shared cache, the database and Valkey; only the queues and hosts may be asked of the cluster
itself, for a moment (``launcher.flows.facts``). No names of people in it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass

from launcher import clusterwords, selectors, wording
from launcher.clusters import Cluster
from launcher.figures import LastRound, last_round
from launcher.fits import ClusterFacts
from launcher.flows import facts as cluster_facts
from launcher.parts import clusters, hands_loop, shared_turns
from launcher.schedulers.base import Node, Queue
from launcher.ssh.budget import TurnsAway
from launcher.ssh.errors import TimedOut
from launcher.ssh.hands import budget_host
from launcher.states import SessionState
from launcher.turns import Load
from portal.accounts.models import User

FACTS_SECONDS = 2.0
"""The page waits so long for all clusters together; what comes later is shown the next time."""
COUNTS_SECONDS = 2.0
MOST_HOSTS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What one login host was asked in the last minute, against what it may be asked."""

    login_host: str
    commands: int
    allowed: int
    waited_seconds: float
    refused: int

    @property
    def percent(self) -> int:
        """How much of the budget was used."""
        return min(100, round(100 * self.commands / max(1, self.allowed)))


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue in words."""

    name: str
    is_offered: bool  # people may choose it
    state: str
    tone: str
    limits: str


@dataclass(frozen=True, slots=True)
class Free:
    """What all hosts that are up have free, together."""

    up: int
    hosts: int
    cores_free: int
    cores: int
    gpus_free: int
    gpus: int


@dataclass(frozen=True, slots=True)
class ClusterOverview:
    """One cluster of the page."""

    id: str
    name: str
    scheduler: str
    asks_as: str  # the operator's account; empty: each person's own
    health: str  # answering, silent or unknown
    health_text: str
    silent_since: dt.datetime | None
    asked_again_at: dt.datetime | None
    last_round: LastRound | None
    live: list[tuple[str, str, int]]  # state, its label, how many sessions
    live_in_all: int
    hosts: list[HostLoad] | None  # None: nobody counts at the moment
    facts: ClusterFacts | None
    queues: list[QueueLine]
    free: Free | None
    nodes: tuple[Node, ...]
    nodes_left_out: int


def overview(viewer: User) -> list[ClusterOverview]:
    """All clusters of the clusters file, in its order."""
    deadline = time.monotonic() + FACTS_SECONDS
    live = selectors.live_counts()
    loads = _loads(list(clusters().values()))
    found = []
    for cluster in clusters().values():
        facts = cluster_facts.facts_of(cluster, viewer.username, wait_seconds=max(0.0, deadline - time.monotonic()))
        found.append(_overview(cluster, facts, live.get(cluster.id, {}), loads, viewer))
    return found


def _overview(
    cluster: Cluster,
    facts: ClusterFacts | None,
    live: Mapping[str, int],
    loads: Mapping[str, Load] | None,
    viewer: User,
) -> ClusterOverview:
    last = last_round(cluster.id)
    since = selectors.silent_since(cluster.id)
    facts_failed = facts is None and cluster_facts.could_not_be_asked(cluster, viewer.username)
    health = _health(last, since, facts)
    nodes = facts.nodes if facts else ()
    return ClusterOverview(
        id=cluster.id,
        name=cluster.name,
        scheduler=clusterwords.scheduler_label(cluster.scheduler),
        asks_as=cluster.operator,
        health=health,
        health_text=clusterwords.cluster_health_text(health, facts_failed=facts_failed),
        silent_since=since if health == "silent" else None,
        asked_again_at=last.next_at if last else None,
        last_round=last,
        live=[(state, wording.state_label(state), live[state]) for state in SessionState if live.get(state)],
        live_in_all=sum(live.values()),
        hosts=None if loads is None else [_host_load(cluster, host, loads) for host in cluster.login_hosts],
        facts=facts,
        queues=[_queue_line(cluster, queue) for queue in facts.queues] if facts else [],
        free=_free(nodes) if nodes else None,
        nodes=nodes[:MOST_HOSTS_SHOWN],
        nodes_left_out=max(0, len(nodes) - MOST_HOSTS_SHOWN),
    )


def _health(last: LastRound | None, since: dt.datetime | None, facts: ClusterFacts | None) -> str:
    """The newest word counts: of the last round, or of the scheduler about itself.

    No answer about a few sessions among others is those sessions' affair: an account that is locked, an odd job.
    """
    if last is not None and 0 < last.unanswered < last.sessions:
        return "answering"
    has_answered_since = facts is not None and since is not None and facts.asked_at > since
    if since is not None and not (has_answered_since and (last is None or not last.unanswered)):
        return "silent"
    if facts is not None or (last is not None and last.commands and not last.unanswered):
        return "answering"
    return "unknown"


def _loads(known: list[Cluster]) -> dict[str, Load] | None:
    hosts = [budget_host(cluster, host) for cluster in known for host in cluster.login_hosts]
    try:
        return hands_loop().run(shared_turns().load(hosts), COUNTS_SECONDS)
    except (TurnsAway, TimedOut):
        return None


def _host_load(cluster: Cluster, login_host: str, loads: Mapping[str, Load]) -> HostLoad:
    load = loads.get(budget_host(cluster, login_host), Load())
    return HostLoad(
        login_host=login_host,
        commands=round(load.commands),
        allowed=round(cluster.commands_per_second * 60),
        waited_seconds=load.waited_seconds,
        refused=round(load.refused),
    )


def _queue_line(cluster: Cluster, queue: Queue) -> QueueLine:
    is_open = queue.accepts_jobs and queue.starts_jobs
    return QueueLine(
        name=queue.name,
        is_offered=cluster.queue(queue.name) is not None,
        state=clusterwords.queue_state(queue),
        tone="good" if is_open else "warn",
        limits=clusterwords.queue_limits(queue),
    )


def _free(nodes: tuple[Node, ...]) -> Free:
    up = [node for node in nodes if node.is_up]
    return Free(
        up=len(up),
        hosts=len(nodes),
        cores_free=sum(node.cores_free for node in up),
        cores=sum(node.cores for node in up),
        gpus_free=sum(node.gpus_free for node in up),
        gpus=sum(node.gpus for node in up),
    )
