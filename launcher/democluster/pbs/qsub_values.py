"""The values of qsub's options: names, variables, resources and attributes. Pure, and strict as PBS is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from launcher.democluster.pbs.errors import UNKNOWN_RESOURCE, PBSError, UsageError, illegal_value
from launcher.democluster.pbs.options import Parsed
from launcher.democluster.pbs.values import (
    JOB_RESOURCES,
    Chunk,
    duration_seconds,
    normalised_size,
    parse_select,
    select_from_nodes,
    size_kib,
    start_time,
    whole_number,
)
from launcher.democluster.settings import QueueDefinition

_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
_LONGEST_NAME = 230
_PLACES = frozenset({"free", "pack", "scatter", "vscatter"})
_SHARING = frozenset({"excl", "shared", "exclhost"})
_CANNOT_SEND = "cannot send environment with the job"


def check_name(name: str) -> list[str]:
    """What qsub says about a job's name: nothing if it is good."""
    if not _NAME.fullmatch(name):
        return ["illegal -N value"]
    if len(name) > _LONGEST_NAME:
        raise PBSError(2, "Job name is too long ")
    return []


def user_variables(lists: Sequence[str], environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables of ``-v``, with qsub's treatment: quotes vanish, ``\\,`` is a comma, other backslashes double.

    Raises PBSError for an open quote and for a name without a value that the environment does not have.
    """
    found: dict[str, str] = {}
    for text in lists:
        for item in _split(text):
            name, equals, value = item.partition("=")
            if not name:
                raise PBSError(1, _CANNOT_SEND)
            if equals:
                found[name] = _unquoted(value)
            elif name in environment:
                found[name] = environment[name]
            else:
                raise PBSError(1, _CANNOT_SEND)
    return list(found.items())


def _split(text: str) -> list[str]:
    """At commas outside quotes. A quote counts only behind the equals sign; a backslash protects a comma only."""
    items, item, quote = [], "", ""
    index = 0
    while index < len(text):
        character = text[index]
        if character == "\\" and text[index + 1 : index + 2] == ",":
            item += "\\,"
            index += 2
            continue
        if quote:
            if character == "'" and quote == '"':
                raise PBSError(1, _CANNOT_SEND)
            quote = "" if character == quote else quote
        elif character in "\"'" and "=" in item:
            quote = character
        if character == "," and not quote:
            items.append(item)
            item = ""
        else:
            item += character
        index += 1
    if quote:
        raise PBSError(1, _CANNOT_SEND)
    return [*items, item]


def _unquoted(value: str) -> str:
    out, quote, index = "", "", 0
    while index < len(value):
        character = value[index]
        if character == "\\":
            comma = value[index + 1 : index + 2] == ","
            out += "," if comma else "\\\\"
            index += 1 if comma else 0
        elif quote and character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        else:
            out += character
        index += 1
    return out


@dataclass(frozen=True, slots=True)
class Resources:
    """What ``-l`` asks for. ``walltime_seconds`` is negative where nothing was said."""

    given: Mapping[str, str]
    chunks: tuple[Chunk, ...]
    place: str
    walltime_seconds: int
    select: str = ""

    def settled(self, queue: QueueDefinition) -> Resources:
        """With the queue's defaults."""
        walltime = self.walltime_seconds if self.walltime_seconds >= 0 else queue.default_walltime_seconds
        chunks, select = self.chunks, self.select
        if queue.default_gpus:
            chunks = parse_select(select, queue.default_gpus)
        return Resources({**self.given, "select": select}, chunks, self.place, walltime, select)

    def violates(self, queue: QueueDefinition) -> bool:
        """Whether it is more than the queue lets through."""
        return any(
            limit is not None and wanted > limit
            for wanted, limit in (
                (self.walltime_seconds, queue.max_walltime_seconds),
                (sum(chunk.cores for chunk in self.chunks), queue.max_cores),
                (-(-sum(chunk.memory_kib for chunk in self.chunks) // 1024), queue.max_memory_mib),
                (sum(chunk.gpus for chunk in self.chunks), queue.max_gpus),
            )
        )


def read_resources(lists: Sequence[str]) -> Resources:
    """The resources of all ``-l`` options. Raises PBSError with the exit codes that were recorded."""
    values: dict[str, str] = {}
    for text in lists:
        for item in text.split(","):
            name, equals, value = item.partition("=")
            if not name or ('"' in value) != (value.count('"') == 2 and '"' in value) or "'" in value:
                raise UsageError("illegal -l value")
            if not equals and name not in JOB_RESOURCES:
                raise UsageError("illegal -l value")
            values[name] = value
    for name in values:
        if name not in JOB_RESOURCES:
            raise PBSError(UNKNOWN_RESOURCE, f"Unknown resource Resource_List.{name[:200]}")
    explicit = "select" in values or "place" in values
    if "nodes" in values and explicit:
        raise PBSError(6, "Cannot be used with select or place: nodes")
    chunk_level = [name for name in ("ncpus", "mem", "ngpus", "mpiprocs", "vmem") if name in values]
    if "select" in values and chunk_level:
        quoted = '"-lresource=" cannot be used with "select" or "place", resource is: '
        raise PBSError(5, quoted + chunk_level[0])
    return _arranged(values, chunk_level)


def _arranged(values: dict[str, str], chunk_level: Sequence[str]) -> Resources:
    given: dict[str, str] = {}
    if "select" in values:
        select, place = values["select"], "free"
    elif "nodes" in values:
        select, place = select_from_nodes(values["nodes"]), "scatter"
        given["nodes"] = values["nodes"]
    else:
        for name in chunk_level:
            if name in ("mem", "vmem"):
                size_kib(values[name], f"Resource_List.{name}")
            else:
                whole_number(values[name], f"Resource_List.{name}")
        select = "1:" + ":".join(f"{name}={values[name]}" for name in chunk_level if name != "ncpus")
        select = f"1:ncpus={values.get('ncpus', '1')}" + select[1:].rstrip(":")
        place = "pack"
    if "place" in values:
        place = values["place"]
        parts = place.split(":")
        if parts[0] not in _PLACES | _SHARING or not set(parts[1:]) <= _SHARING:
            raise illegal_value("Resource_List.place")
    walltime = -1
    if values.get("walltime"):
        walltime = duration_seconds(values["walltime"], "Resource_List.walltime")
    chunks = parse_select(select)
    if len(chunks) == 1 and "mem=" in select:
        memory = re.search(r":mem=([^:+]*)", select)
        given["mem"] = normalised_size(memory[1]) if memory else ""
    return Resources(given, chunks, place, walltime, select)


class Attributes(TypedDict):
    """Fields of a Request that one option each decides."""

    join: str
    keep: str
    remove: str
    rerunable: bool
    account: str
    project: str
    mail_points: str
    mail_users: str
    shell: str
    priority: int
    held: bool
    start_at: float
    umask: int
    block: bool


def attributes(line: Parsed) -> Attributes:
    """What the simple options say. Raises PBSError."""
    project = line.last("P", "_pbs_project_default")
    if re.search(r"[\"'/\[\]:;|=,?*<>+\\]", project):
        raise illegal_value("project")
    umask, block = 0o077, False
    for value in [value for name, value in line.options if name == "W"]:
        name, _, setting = value.partition("=")
        if name == "umask":
            if not re.fullmatch(r"[0-7]{1,4}", setting):
                raise illegal_value("umask")
            umask = int(setting, 8)
        elif name == "block":
            block = setting.lower() in ("true", "t", "1", "y", "yes")
        elif name not in ("sandbox", "group_list"):
            raise UsageError("illegal -W value")
    return Attributes(
        join=line.last("j", "n"),
        keep=line.last("k", "n"),
        remove=line.last("R"),
        rerunable=line.last("r", "y") == "y",
        account=line.last("A"),
        project=project,
        mail_points=line.last("m", "a"),
        mail_users=line.last("M"),
        shell=line.last("S"),
        priority=int(line.last("p", "0")),
        held=line.has("h"),
        start_at=start_time(line.last("a")) if line.has("a") else 0.0,
        umask=umask,
        block=block,
    )
