"""What the scheduler's own queues and hosts say about a wish: can it ever run, and is there room for it now. Pure.

Only what is proven counts. A host or a queue that says nothing about a resource, or a queue that the scheduler does not
show, proves nothing; a host that is down may come back, so it counts where "ever" is asked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.choices import LaunchChoices, Mistake
from launcher.schedulers.base import Node, Queue


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a scheduler said about itself at one moment. Empty: it was not understood, or said nothing."""

    asked_at: dt.datetime
    queues: tuple[Queue, ...] = ()
    nodes: tuple[Node, ...] = ()

    def queue(self, name: str) -> Queue | None:
        """The queue called ``name``."""
        return next((queue for queue in self.queues if queue.name == name), None)


def impossible(facts: ClusterFacts, choices: LaunchChoices) -> tuple[Mistake, ...]:
    """Why a session with these choices could never start: one entry for each field; none where nothing is proven."""
    mistakes = [*_against_queue(facts.queue(choices.queue), choices), *_against_nodes(facts.nodes, choices)]
    first: dict[str, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.field, mistake)
    return tuple(first.values())


def _against_queue(queue: Queue | None, choices: LaunchChoices) -> Iterable[Mistake]:
    if queue is None:
        return
    if not queue.accepts_jobs:
        yield Mistake("queue", "queue.takes_no_jobs", {"queue": queue.name})
    if queue.max_cores and choices.cores > queue.max_cores:
        yield Mistake("cores", "cores.too_many", {"max": queue.max_cores})
    if queue.max_memory_mib and choices.memory_mib > queue.max_memory_mib:
        yield Mistake("memory", "memory.too_much", {"max": queue.max_memory_mib})
    if queue.max_gpus is not None and choices.gpus > queue.max_gpus:
        code = "gpus.too_many" if queue.max_gpus else "gpus.none"
        yield Mistake("gpus", code, {"max": queue.max_gpus, "queue": queue.name})
    longest = queue.max_walltime_seconds
    if longest and choices.walltime_seconds > longest:
        yield Mistake("hours", "hours.over_queue_limit", {"max": f"{longest / 3600:.4g}", "queue": queue.name})


def _against_nodes(nodes: tuple[Node, ...], choices: LaunchChoices) -> Iterable[Mistake]:
    if not nodes:
        return
    cores, memory, gpus = _largest(nodes)
    alone = []
    if cores and choices.cores > cores:
        alone.append(Mistake("cores", "cores.no_computer", {"max": cores}))
    if memory and choices.memory_mib > memory:
        alone.append(Mistake("memory", "memory.no_computer", {"max": memory}))
    # Where no host names a GPU the scheduler may simply not count them.
    if gpus and choices.gpus > gpus:
        alone.append(Mistake("gpus", "gpus.no_computer", {"max": gpus}))
    if not alone and cores and memory and not any(_has(node, choices, gpus_count=bool(gpus)) for node in nodes):
        alone.append(Mistake("cores", "cores.no_computer_together"))
    yield from alone


def _largest(nodes: Iterable[Node]) -> tuple[int, int, int]:
    """The most cores, MiB and GPUs of one host; 0 where some host does not say (GPUs: where none does)."""
    known = list(nodes)
    return (
        max(node.cores for node in known) if all(node.cores for node in known) else 0,
        max(node.memory_mib for node in known) if all(node.memory_mib for node in known) else 0,
        max(node.gpus for node in known),
    )


def _has(node: Node, choices: LaunchChoices, *, gpus_count: bool) -> bool:
    return (
        node.cores >= choices.cores
        and node.memory_mib >= choices.memory_mib
        and (node.gpus >= choices.gpus or not gpus_count)
    )


@dataclass(frozen=True, slots=True)
class Room:
    """How much is free on the one host where a session fits best, or where most cores are free."""

    cores_free: int
    memory_free_mib: int
    fits: bool


def room(facts: ClusterFacts, *, queue: str, cores: int, memory_mib: int, gpus: int) -> Room | None:
    """Whether a session of this size would find room at once; ``None`` where that is not known.

    No promise: other jobs may be before it, and a queue may use a part of the hosts only.
    """
    up = [node for node in facts.nodes if node.is_up and node.cores]
    known = facts.queue(queue)
    if not up or (known is not None and not (known.starts_jobs and known.accepts_jobs)):
        return None

    def fits(node: Node) -> bool:
        memory_is_there = node.memory_free_mib >= memory_mib or not node.memory_mib
        return node.cores_free >= cores and memory_is_there and node.gpus_free >= gpus

    best = max(up, key=lambda node: (fits(node), node.cores_free))
    return Room(best.cores_free, best.memory_free_mib, fits(best))
