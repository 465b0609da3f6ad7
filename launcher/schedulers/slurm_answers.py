"""Reads what squeue, sacct, scontrol and sinfo print into our words. Pure.

squeue and sinfo print columns of a fixed width, padded with spaces, which no value can leave; sacct separates
fields by a control character. Times are in UTC, because the commands run with ``TZ=UTC``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from launcher.schedulers.base import JobState, JobStatus, Node, Queue, SchedulerUnavailable
from launcher.schedulers.values import decoded, duration_seconds, integer, is_host_name, plausible, printable

SEPARATOR = "\x1e"


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of fields and their widths, in the order of ``--Format``."""

    widths: Mapping[str, int]

    @property
    def text(self) -> str:
        """The value of ``--Format``."""
        return ",".join(f"{name}:{width}" for name, width in self.widths.items())

    def rows(self, stdout: bytes) -> Iterator[dict[str, str]]:
        """Each line as a mapping. Raises SchedulerUnavailable when a line has another length."""
        total = sum(self.widths.values())
        for raw in stdout.split(b"\n"):
            if not raw.strip():
                continue
            line = decoded(raw)
            if len(line) != total:
                raise SchedulerUnavailable("Slurm answered with a line of another width: " + printable(line, 200))
            row, position = {}, 0
            for name, width in self.widths.items():
                row[name] = line[position : position + width].strip()
                position += width
            yield row


COLUMNS = Columns(
    {
        "JobID": 24,
        "State": 24,
        "exit_code": 16,
        "Reason": 160,
        "BatchHost": 256,
        "UserName": 128,
        "Partition": 128,
        "SubmitTime": 32,
        "StartTime": 32,
        "TimeLimit": 32,
        "TimeUsed": 32,
        "RestartCnt": 16,
    }
)
NODE_COLUMNS = Columns(
    {
        "NodeList": 256,
        "StateLong": 64,
        "CPUsState": 64,
        "Memory": 32,
        "AllocMem": 32,
        "Gres": 256,
        "GresUsed": 256,
    }
)
ACCOUNTING_FIELDS = "JobIDRaw,State,ExitCode,User,Partition,NodeList,Submit,Start,Timelimit,Elapsed"

_STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,  # hosts are set aside and may still have to boot
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETING": JobState.EXITING,
    "STAGE_OUT": JobState.EXITING,
    "COMPLETED": JobState.FINISHED,
    "CANCELLED": JobState.FINISHED,
    "FAILED": JobState.FINISHED,
    "TIMEOUT": JobState.FINISHED,
    "DEADLINE": JobState.FINISHED,
    "OUT_OF_MEMORY": JobState.FINISHED,
    "NODE_FAIL": JobState.FINISHED,
    "BOOT_FAIL": JobState.FINISHED,
    "PREEMPTED": JobState.FINISHED,
    "REVOKED": JobState.FINISHED,  # a sibling in a federation got it
}
_HELD = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})
_NOTHING = frozenset({"", "N/A", "n/a", "(null)", "None", "NONE", "Unknown", "INVALID", "UNLIMITED"})


def queue_rows(stdout: bytes) -> list[JobStatus]:
    """Jobs from squeue. ``exit_code`` there is a wait status, as of wait(2)."""
    return [_queue_job(row) for row in COLUMNS.rows(stdout)]


def _queue_job(row: Mapping[str, str]) -> JobStatus:
    state = _STATES.get(row["State"], JobState.UNKNOWN)
    if state is JobState.QUEUED and row["Reason"] in _HELD:
        state = JobState.HELD
    is_waiting = state in (JobState.QUEUED, JobState.HELD)
    start = _time(row["StartTime"])
    reason = row["Reason"] if is_waiting or row["Reason"] not in _NOTHING else ""
    return JobStatus(
        job_id=row["JobID"],
        state=state,
        raw_state=printable(row["State"], 32),
        owner=printable(row["UserName"], 128),
        queue=printable(row["Partition"], 128),
        comment=printable(reason),
        execution_hosts=() if is_waiting else _hosts(row["BatchHost"]),
        exit_status=_wait_status(integer(row["exit_code"])) if state is JobState.FINISHED else None,
        submitted_at=_time(row["SubmitTime"]),
        started_at=None if is_waiting else start,
        estimated_start_at=start if is_waiting else None,
        walltime_seconds=duration_seconds(row["TimeLimit"]),
        walltime_used_seconds=None if is_waiting else duration_seconds(row["TimeUsed"]),
        run_count=_run_count(integer(row["RestartCnt"]), is_waiting=is_waiting),
    )


def _run_count(restarts: int | None, *, is_waiting: bool) -> int | None:
    return None if restarts is None else restarts + (0 if is_waiting else 1)


def _wait_status(status: int | None) -> int | None:
    """The exit status, or 128 + n when signal n ended the job."""
    if status is None or status < 0:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else (status >> 8) & 0xFF


def accounting_rows(stdout: bytes) -> list[JobStatus]:
    """Ended jobs from sacct. Others are left out: the controller does not know them, so they do not run.

    Raises SchedulerUnavailable when a line has another number of fields.
    """
    names = ACCOUNTING_FIELDS.split(",")
    jobs: list[JobStatus] = []
    for raw in stdout.split(b"\n"):
        if not raw.strip():
            continue
        values = decoded(raw).split(SEPARATOR)
        if len(values) != len(names):
            raise SchedulerUnavailable("sacct answered with something else: " + printable(raw, 200))
        row = dict(zip(names, values, strict=True))
        word = row["State"].partition(" ")[0]  # "CANCELLED by 1001"
        if _STATES.get(word) is not JobState.FINISHED:
            continue
        jobs.append(
            JobStatus(
                job_id=row["JobIDRaw"],
                state=JobState.FINISHED,
                raw_state=word,
                owner=printable(row["User"], 128),
                queue=printable(row["Partition"], 128),
                execution_hosts=_hosts(row["NodeList"]),
                exit_status=_exit_and_signal(row["ExitCode"]),
                submitted_at=_time(row["Submit"]),
                started_at=_time(row["Start"]),
                walltime_seconds=duration_seconds(row["Timelimit"]),
                walltime_used_seconds=duration_seconds(row["Elapsed"]),
            )
        )
    return jobs


def _exit_and_signal(text: str) -> int | None:
    """``3:0`` is exit status 3, ``0:15`` is signal 15."""
    code, _, signal = text.partition(":")
    number, by_signal = integer(code), integer(signal)
    return 128 + by_signal if by_signal else number


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def _time(text: str) -> dt.datetime | None:
    if not text.isascii() or not _TIME.fullmatch(text):
        return None
    try:
        return plausible(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC))
    except ValueError:
        return None


def _hosts(text: str) -> tuple[str, ...]:
    """Our jobs run on one host: a list in brackets, or a word for "none", is none."""
    return (text,) if text not in _NOTHING and is_host_name(text) else ()


_ATTRIBUTE = re.compile(r"([A-Za-z][A-Za-z0-9/:]{0,63})=(\S*)")


def partitions(stdout: bytes) -> tuple[Queue, ...]:
    """Partitions from ``scontrol --oneliner show partition``."""
    queues: list[Queue] = []
    for line in decoded(stdout).split("\n"):
        record: dict[str, str] = {}
        for key, value in _ATTRIBUTE.findall(line):
            record.setdefault(key, value)
        if not record.get("PartitionName"):
            continue
        state = record.get("State", "")
        queues.append(
            Queue(
                name=printable(record["PartitionName"], 128),
                accepts_jobs=state in ("UP", "DOWN"),
                starts_jobs=state in ("UP", "DRAIN"),
                max_walltime_seconds=duration_seconds(record.get("MaxTime")),
                max_cores=integer(record.get("MaxCPUsPerNode")),
                max_memory_mib=integer(record.get("MaxMemPerNode")),
            )
        )
    return tuple(queues)


_UP = frozenset({"idle", "allocated", "mixed", "completing"})
_GPUS = re.compile(r"(?:^|,)gpu:(?:[^:,()]{1,64}:)?(\d{1,6})")


def nodes(stdout: bytes) -> tuple[Node, ...]:
    """Nodes from sinfo, each once. A mark behind the state (``*``, ``~``, ``#`` …) means that it does not
    answer now.
    """
    found: dict[str, Node] = {}
    for row in NODE_COLUMNS.rows(stdout):
        name, is_up = row["NodeList"], row["StateLong"] in _UP
        if name in found or not is_host_name(name):
            continue
        parts = [integer(part) or 0 for part in row["CPUsState"].split("/")]  # allocated/idle/other/total
        memory, used = integer(row["Memory"]) or 0, integer(row["AllocMem"]) or 0
        gpus, gpus_used = _gpus(row["Gres"]), _gpus(row["GresUsed"])
        found[name] = Node(
            name=name,
            is_up=is_up,
            cores=parts[3] if len(parts) == 4 else 0,
            cores_free=parts[1] if is_up and len(parts) == 4 else 0,
            memory_mib=memory,
            memory_free_mib=max(0, memory - used) if is_up else 0,
            gpus=gpus,
            gpus_free=max(0, gpus - gpus_used) if is_up else 0,
        )
    return tuple(found.values())


def _gpus(gres: str) -> int:
    return sum(int(count) for count in _GPUS.findall(gres))
