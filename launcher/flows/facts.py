"""The scheduler's own word about its queues and hosts, asked once a minute and never waited for long.

Pages show it and the launch form takes its advice from it, so it must hold nothing up: it is asked behind the budget of
commands, only where its turn is near, and goes on in the background when the page does not wait any longer. What the
cluster's operator heard is for everybody; what came through a person's own account, whose shell may make it say
anything, is for that person alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.core.cache import cache
from redis import RedisError

from launcher.clusters import Cluster
from launcher.fits import ClusterFacts
from launcher.flows.ask import ask
from launcher.parts import hands_loop
from launcher.schedulers.base import Command, CommandResult, Scheduler, SchedulerError
from launcher.ssh.errors import SSHError
from portal.clock import now

log = structlog.get_logger(__name__)

FRESH_SECONDS = 60
"""So long an answer is as good as new."""
KEEP_SECONDS = 300
"""So long it may still be shown, with its time, or make somebody look again."""
FAILED_SECONDS = 30
"""After a failure the same account does not ask again for so long."""
LONGEST_WAIT_SECONDS = 1.0
"""When the next turn for a command is further away, sessions need it more."""
MOST_HOSTS = 5_000
"""Of a larger cluster nothing is said about hosts: only all of them together prove what can never run."""
MOST_QUEUES = 200

Part = TypeVar("Part")
_asking: set[asyncio.Task[ClusterFacts | None]] = set()


def known_facts(cluster: Cluster, username: str) -> ClusterFacts | None:
    """What was heard for ``username`` in the last minutes, without asking."""
    with contextlib.suppress(RedisError):
        kept = cache.get(_key(cluster.id, _account(cluster, username)))
        if isinstance(kept, ClusterFacts):
            return kept
    return None


def is_fresh(facts: ClusterFacts) -> bool:
    """Whether it may be acted on."""
    return now() - facts.asked_at < dt.timedelta(seconds=FRESH_SECONDS)


def facts_of(cluster: Cluster, username: str, *, wait_seconds: float) -> ClusterFacts | None:
    """What the scheduler says, asked as the cluster's operator or as ``username`` where it is not fresh.

    Waits ``wait_seconds`` at most; then what was known before, if anything. Never raises.
    """
    kept = known_facts(cluster, username)
    if kept is not None and is_fresh(kept):
        return kept
    account = _account(cluster, username)
    try:
        if cache.get(_failed_key(cluster.id, account)):
            return kept
        if not cache.add(_turn_key(cluster.id, account), 1, FAILED_SECONDS):
            return kept
        return hands_loop().run(_ask_for(cluster, account, wait_seconds), wait_seconds + 2) or kept
    except (RedisError, SSHError) as error:
        log.info("facts_not_known", cluster=cluster.id, error=str(error))
        return kept


def could_not_be_asked(cluster: Cluster, username: str) -> bool:
    """Whether the last try, moments ago, failed."""
    with contextlib.suppress(RedisError):
        return bool(cache.get(_failed_key(cluster.id, _account(cluster, username))))
    return False


def _account(cluster: Cluster, username: str) -> str:
    """Whose commands ask, and for whom the answer counts."""
    return cluster.operator or username


def _key(cluster_id: str, account: str) -> str:
    return f"facts:2:{cluster_id}:{account}"


def _failed_key(cluster_id: str, account: str) -> str:
    return f"facts:failed:{cluster_id}:{account}"


def _turn_key(cluster_id: str, account: str) -> str:
    return f"facts:asking:{cluster_id}:{account}"


async def _ask_for(cluster: Cluster, account: str, wait_seconds: float) -> ClusterFacts | None:
    task = asyncio.create_task(_ask_and_keep(cluster, account), name=f"facts of {cluster.id}")
    _asking.add(task)  # the loop itself would let it be collected
    task.add_done_callback(_asking.discard)
    done, _ = await asyncio.wait({task}, timeout=wait_seconds)
    return task.result() if done else None


async def _ask_and_keep(cluster: Cluster, account: str) -> ClusterFacts | None:
    facts = None
    try:
        async with asyncio.timeout(FAILED_SECONDS):
            facts = await _ask(cluster, account)
    except (SSHError, SchedulerError, TimeoutError) as error:
        log.info("facts_not_known", cluster=cluster.id, account=account, error=str(error))
    except Exception:  # an answer that trips the parser is no answer
        log.exception("facts_not_understood", cluster=cluster.id)
    await asyncio.to_thread(_keep, cluster.id, account, facts)
    return facts


def _keep(cluster_id: str, account: str, facts: ClusterFacts | None) -> None:
    with contextlib.suppress(RedisError):
        if facts is None:
            cache.set(_failed_key(cluster_id, account), 1, FAILED_SECONDS)
        else:
            cache.set(_key(cluster_id, account), facts, KEEP_SECONDS)
        cache.delete(_turn_key(cluster_id, account))


async def _ask(cluster: Cluster, account: str) -> ClusterFacts:
    """Raises SSHError or SchedulerError where neither the queues nor the hosts can be had."""

    async def part(
        build: Callable[[Scheduler], Command], parse: Callable[[Scheduler, CommandResult], tuple[Part, ...]]
    ) -> tuple[Part, ...]:
        return await ask(cluster, account, build, parse, longest_wait_seconds=LONGEST_WAIT_SECONDS)

    queues = await part(
        lambda scheduler: scheduler.queues_command(), lambda scheduler, result: scheduler.parse_queues(result)
    )
    try:
        nodes = await part(
            lambda scheduler: scheduler.nodes_command(), lambda scheduler, result: scheduler.parse_nodes(result)
        )
    except SchedulerError as error:  # old clients cannot say it in a form that can be read
        log.info("hosts_not_known", cluster=cluster.id, error=str(error))
        nodes = ()
    return ClusterFacts(now(), queues[:MOST_QUEUES], nodes if len(nodes) <= MOST_HOSTS else ())
