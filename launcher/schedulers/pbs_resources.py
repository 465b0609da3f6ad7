"""Reads queues and execution hosts of PBS, from JSON or from text. Pure.

Only an administrator writes these values, so JSON, which users can spoil in the list of jobs, is good enough
here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from launcher.schedulers.base import CommandResult, Node, Queue, SchedulerUnavailable
from launcher.schedulers.values import decoded, duration_seconds, integer, is_host_name, printable, size_mib

_UP = frozenset({"free", "job-busy", "job-exclusive", "resv-exclusive", "busy", "job-sharing"})
"""States of a host that answers. Others (down, offline, unknown, stale, …) take no new job."""


def document(result: CommandResult, section: str) -> Mapping[str, Mapping[str, str]]:
    """Section ``Queue`` or ``nodes`` of a JSON answer as flat records: ``resources_max.ncpus`` → ``"4"``.

    An empty section may be left out. Raises SchedulerUnavailable on a failed command and on invalid JSON.
    """
    if result.exit_status:
        raise SchedulerUnavailable(printable(result.stderr) or f"exit status {result.exit_status}")
    try:
        parsed = json.loads(decoded(result.stdout), strict=False, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise SchedulerUnavailable(f"the scheduler's JSON cannot be read: {error}") from error
    if not isinstance(parsed, dict) or "pbs_server" not in parsed:
        raise SchedulerUnavailable("the scheduler's JSON is not an answer of PBS")
    entries = parsed.get(section, {})
    if not isinstance(entries, dict):
        raise SchedulerUnavailable(f"the scheduler's JSON has no list of {section}")
    return {name: _flat(entry) for name, entry in entries.items() if isinstance(entry, dict)}


def _flat(entry: Mapping[str, Any]) -> dict[str, str]:
    """One level of nesting as dotted keys, every value as text."""
    record: dict[str, str] = {}
    for key, value in entry.items():
        if isinstance(value, dict):
            record.update((f"{key}.{name}", str(inner)) for name, inner in value.items())
        elif not isinstance(value, list):
            record[key] = str(value)
    return record


def queue(name: str, record: Mapping[str, str]) -> Queue:
    """A queue from its record."""
    return Queue(
        name=printable(name, 256),
        accepts_jobs=record.get("enabled", "").strip() == "True",
        starts_jobs=record.get("started", "").strip() == "True",
        max_walltime_seconds=duration_seconds(record.get("resources_max.walltime")),
        max_cores=integer(record.get("resources_max.ncpus")),
        max_memory_mib=size_mib(record.get("resources_max.mem")),
        max_gpus=integer(record.get("resources_max.ngpus")),
    )


def nodes(entries: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[Node, ...]:
    """Hosts from the records of their virtual nodes: what belongs to one host is added up."""
    hosts: dict[str, Node] = {}
    for vnode, record in entries:
        host = record.get("resources_available.host", "").strip() or vnode
        if "state" not in record or not is_host_name(host):
            continue  # a node that PBS does not know comes as an entry with nothing but an error
        part = _node(host, record)
        old = hosts.get(host)
        hosts[host] = part if old is None else _sum(old, part)
    return tuple(hosts.values())


def _node(host: str, record: Mapping[str, str]) -> Node:
    def amount(kind: str, resource: str) -> int:
        text = record.get(f"resources_{kind}.{resource}")
        if resource == "mem":  # what is free must not come out larger than it is
            return size_mib(text, round_up=kind == "assigned") or 0
        return max(0, integer(text) or 0)

    def free(resource: str) -> int:
        return max(0, amount("available", resource) - amount("assigned", resource)) if is_up else 0

    states = {word.strip() for word in record["state"].split(",")}
    is_up = states <= _UP
    return Node(
        name=host,
        is_up=is_up,
        cores=amount("available", "ncpus"),
        cores_free=free("ncpus"),
        memory_mib=amount("available", "mem"),
        memory_free_mib=free("mem"),
        gpus=amount("available", "ngpus"),
        gpus_free=free("ngpus"),
    )


def _sum(one: Node, other: Node) -> Node:
    return Node(
        name=one.name,
        is_up=one.is_up or other.is_up,
        cores=one.cores + other.cores,
        cores_free=one.cores_free + other.cores_free,
        memory_mib=one.memory_mib + other.memory_mib,
        memory_free_mib=one.memory_free_mib + other.memory_free_mib,
        gpus=one.gpus + other.gpus,
        gpus_free=one.gpus_free + other.gpus_free,
    )
