"""The execution hosts: what is free on them, where a job fits, and why it does not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from launcher.democluster.pbs.job import Job
from launcher.democluster.pbs.values import Chunk, short_size
from launcher.democluster.settings import Node


@dataclass(slots=True, eq=False)
class NodeState:
    """One node and what is assigned on it."""

    node: Node
    cores: int = 0
    memory_kib: int = 0
    gpus: int = 0
    slots: set[int] = field(default_factory=set)
    jobs: dict[str, None] = field(default_factory=dict)
    is_down: bool = False
    state_changed_at: float = field(default_factory=time.time)
    used_at: float = 0.0

    def free(self) -> tuple[int, int, int]:
        """Cores, memory in KiB and GPUs that nobody has."""
        return (
            self.node.cores - self.cores,
            self.node.memory_mib * 1024 - self.memory_kib,
            self.node.gpus - self.gpus,
        )

    @property
    def state(self) -> str:
        """PBS's word for it."""
        if self.is_down:
            return "down"
        return "job-busy" if self.cores >= self.node.cores else "free"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each chunk of a job goes, in PBS's spelling."""

    parts: tuple[tuple[NodeState, int, Chunk], ...]  # node, job slot on it, chunk

    @property
    def execution_host(self) -> str:
        """``demo-node01/0*2+demo-node02/1``."""
        return "+".join(
            f"{state.node.name}/{slot}" + (f"*{chunk.cores}" if chunk.cores != 1 else "")
            for state, slot, chunk in self.parts
        )

    @property
    def execution_vnode(self) -> str:
        """``(demo-node01:ncpus=2:mem=1048576kb)``."""
        return "+".join(f"({state.node.name}{_assigned(chunk)})" for state, _, chunk in self.parts)


def _assigned(chunk: Chunk) -> str:
    text = f":ncpus={chunk.cores}"
    text += f":mem={chunk.memory_kib}kb" if chunk.memory_kib else ""
    return text + (f":ngpus={chunk.gpus}" if chunk.gpus else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job cannot start now, or ever, as PBS writes it into the comment."""

    comment: str


class Nodes:
    """All nodes, in order."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.states = {node.name: NodeState(node) for node in nodes}

    def place(self, job: Job) -> Placement | Refusal:
        """Room for ``job``, not yet assigned, or why there is none."""
        up = [state for state in self.states.values() if not state.is_down]
        if refusal := self._too_much(job, up):
            return refusal
        free = {state.node.name: list(state.free()) for state in up}
        slots = {state.node.name: set(state.slots) for state in up}
        parts: list[tuple[NodeState, int, Chunk]] = []
        for chunk in job.request.chunks:
            state = self._room(chunk, up, free, job.request.place, {part[0].node.name for part in parts})
            if state is None:
                return Refusal("Not Running: Not enough free nodes available")
            name = state.node.name
            for index, amount in enumerate((chunk.cores, chunk.memory_kib, chunk.gpus)):
                free[name][index] -= amount
            slot = next(number for number in range(len(slots[name]) + 1) if number not in slots[name])
            slots[name].add(slot)
            parts.append((state, slot, chunk))
        return Placement(tuple(parts))

    @staticmethod
    def _room(
        chunk: Chunk, up: list[NodeState], free: dict[str, list[int]], place: str, used: set[str]
    ) -> NodeState | None:
        need = (chunk.cores, chunk.memory_kib, chunk.gpus)
        for state in up:
            name = state.node.name
            if chunk.host and chunk.host != name:
                continue
            if "scatter" in place and name in used:
                continue
            if place.startswith("pack") and used and name not in used:
                continue
            if "excl" in place.split(":") and state.jobs:
                continue
            if all(have >= wanted for have, wanted in zip(free[name], need, strict=True)):
                return state
        return None

    def _too_much(self, job: Job, up: list[NodeState]) -> Refusal | None:
        everything = list(self.states.values())
        for resource, needs, total, available in (
            ("ncpus", [chunk.cores for chunk in job.request.chunks], [s.node.cores for s in everything],
             [s.free()[0] for s in up]),
            ("mem", [chunk.memory_kib for chunk in job.request.chunks],
             [s.node.memory_mib * 1024 for s in everything], [s.free()[1] for s in up]),
            ("ngpus", [chunk.gpus for chunk in job.request.chunks], [s.node.gpus for s in everything],
             [s.free()[2] for s in up]),
        ):  # fmt: skip
            show = short_size if resource == "mem" else str
            if max(needs) > max(total):
                numbers = f"R: {show(max(needs))} A: {show(max(available, default=0))} T: {show(max(total))}"
                return Refusal(f"Can Never Run: Insufficient amount of resource: {resource} ({numbers})")
            if sum(needs) > sum(available):
                never = "Can Never Run" if sum(needs) > sum(total) else "Not Running"
                numbers = f"R: {show(sum(needs))} A: {show(sum(available))} T: {show(sum(total))}"
                if not up:
                    break
                return Refusal(f"{never}: Insufficient amount of resource: {resource} ({numbers})")
        return None

    def assign(self, job: Job, placement: Placement) -> None:
        """Take what ``placement`` names and write it into the job."""
        for state, slot, chunk in placement.parts:
            state.cores += chunk.cores
            state.memory_kib += chunk.memory_kib
            state.gpus += chunk.gpus
            state.slots.add(slot)
            state.jobs[job.job_id] = None
            state.used_at = time.time()
        job.execution_host, job.execution_vnode = placement.execution_host, placement.execution_vnode

    def release(self, job: Job) -> None:
        """Give back what the job has. Once."""
        hosts = job.execution_host.split("+") if job.execution_host else []
        for host, chunk in zip(hosts, job.request.chunks, strict=False):
            name, _, slot = host.partition("/")
            state = self.states.get(name)
            if state is None or job.job_id not in state.jobs:
                continue
            state.cores -= chunk.cores
            state.memory_kib -= chunk.memory_kib
            state.gpus -= chunk.gpus
            state.slots.discard(int(slot.partition("*")[0]))
            state.used_at = time.time()
        for state in self.states.values():
            state.jobs.pop(job.job_id, None)

    def set_down(self, names: frozenset[str]) -> None:
        """Let exactly these nodes be down."""
        for name, state in self.states.items():
            if state.is_down != (name in names):
                state.is_down = name in names
                state.state_changed_at = time.time()
