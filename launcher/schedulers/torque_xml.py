"""Reads TORQUE's XML: one job, or the list of hosts. Pure. Written from documentation, not measured.

The text comes from other people's jobs. Anything that could be a document type, an entity or a comment is
refused before a parser sees it, so no entity can be declared and none expanded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from launcher.schedulers.base import JobStatus, Node, SchedulerUnavailable
from launcher.schedulers.pbs_answers import job_status
from launcher.schedulers.values import decoded, epoch_utc, integer, is_host_name, size_mib

_DECLARATION = re.compile(r"\A\s*<\?xml\s[^<>]{0,200}\?>")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UP = frozenset({"free", "job-exclusive", "job-sharing", "busy", "reserve"})


def _parsed(raw: bytes) -> ElementTree.Element | None:
    """The root, or ``None`` for what is no plain XML."""
    text = _NOT_XML.sub("\ufffd", _DECLARATION.sub("", decoded(raw), count=1))
    if "<!" in text or "<?" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - no declaration of any kind is left, see above
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def job_status_of(raw: bytes, job_id: str) -> JobStatus | None:
    """The job in ``<Data><Job>…``; ``None`` unless it is exactly one, with this id and a state."""
    root = _parsed(raw)
    jobs = root.findall("Job") if root is not None else []
    if len(jobs) != 1 or (jobs[0].findtext("Job_Id") or "").strip() != job_id:
        return None
    record: dict[str, str] = {}
    for element in jobs[0]:
        record.setdefault(element.tag, element.text or "")
        for inner in element:
            record.setdefault(f"{element.tag}.{inner.tag}", inner.text or "")
    # The one spelling that differs. Times, which OpenPBS prints as dates, are seconds here.
    record.setdefault("Exit_status", record.get("exit_status", ""))
    if not record.get("job_state", "").strip():
        return None
    status = job_status(job_id, record)
    return replace(status, submitted_at=epoch_utc(record.get("ctime")), started_at=epoch_utc(record.get("start_time")))


def nodes_of(raw: bytes) -> tuple[Node, ...]:
    """Hosts from ``<Data><Node>…``. Raises SchedulerUnavailable for what is no plain XML."""
    root = _parsed(raw)
    if root is None:
        raise SchedulerUnavailable("the XML of pbsnodes cannot be read")
    return tuple(node for element in root.findall("Node") if (node := _node(element)) is not None)


def _node(element: ElementTree.Element) -> Node | None:
    name = (element.findtext("name") or "").strip()
    if not is_host_name(name):
        return None
    is_up = {word.strip() for word in (element.findtext("state") or "").split(",")} <= _UP
    cores = max(0, integer(element.findtext("np")) or 0)
    status = dict(part.split("=", 1) for part in (element.findtext("status") or "").split(",") if "=" in part)
    memory = size_mib(status.get("physmem")) or 0
    gpus = max(0, integer(element.findtext("gpus")) or 0)
    return Node(
        name=name,
        is_up=is_up,
        cores=cores,
        cores_free=max(0, cores - _busy_slots(element.findtext("jobs") or "")) if is_up else 0,
        memory_mib=memory,
        memory_free_mib=min(memory, size_mib(status.get("availmem")) or 0) if is_up else 0,
        gpus=gpus,
        gpus_free=gpus if is_up else 0,  # TORQUE does not say which are taken
    )


_SLOT = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def _busy_slots(jobs: str) -> int:
    """Slots in ``0/123.host, 1/123.host`` (old) or ``0-3,8/123.host`` (since version 5)."""
    count = 0
    for part in jobs.split(","):
        match = _SLOT.fullmatch(part.strip().partition("/")[0])
        if match:
            count += max(0, int(match[2]) - int(match[1])) + 1 if match[2] else 1
    return count
