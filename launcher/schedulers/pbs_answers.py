"""Reads what ``qstat -f`` prints, as dsv or as text, into records, and a record into a JobStatus. Pure.

A record is a mapping from attribute to value. Values are written by users: a job's name, account, paths and
variables may hold anything. The dsv form cannot be forged when its delimiter is the control character 0x1e,
because qstat prints one inside a value as ``\\^^`` and a line end as ``\\n`` (measured on OpenPBS 23.06). The
text form can: see text_records.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from launcher.schedulers.base import CommandResult, JobState, JobStatus, SchedulerUnavailable
from launcher.schedulers.values import (
    ctime_utc,
    decoded,
    duration_seconds,
    execution_hosts,
    integer,
    printable,
    size_mib,
)

DELIMITER = "\x1e"
Record = Mapping[str, str]

_STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,  # waits for its own start time
    "T": JobState.QUEUED,  # on its way to another queue or server
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array that has begun
    "S": JobState.SUSPENDED,
    "U": JobState.SUSPENDED,  # the workstation's owner came back
    "E": JobState.EXITING,
    "F": JobState.FINISHED,
    "X": JobState.FINISHED,  # an ended member of an array
    "C": JobState.FINISHED,  # TORQUE: completed, shown for some minutes
    "M": JobState.UNKNOWN,  # moved to another server, which alone knows
}
_PRERUN = "41"
"""Substate of a job that is R by its letter but still on its way to the host; 42 is really running. Such a
job may go back to the queue, and a session must not count its start-up time yet: we call it queued.
"""

_KEY = re.compile(rb"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_TEXT_FIELD = re.compile(rb" {4}([A-Za-z_][A-Za-z0-9_.-]{0,127}) = ?(.*)", re.DOTALL)
_FREE_TEXT = frozenset(
    {
        b"Account_Name",
        b"depend",
        b"Error_Path",
        b"Output_Path",
        b"Variable_List",
        b"Submit_arguments",
        b"comment",
    }
)
"""Attributes whose values may hold raw line ends in the text form."""


def dsv_records(stdout: bytes) -> list[tuple[str, Record]]:
    """Id and attributes of each job of a dsv answer, in its order; the first occurrence of an attribute
    counts.

    Raises SchedulerUnavailable when a line is not a job's, or the last line is cut short.
    """
    if stdout and not stdout.endswith(b"\n"):
        raise SchedulerUnavailable("the answer of qstat ends in the middle of a line")
    records: list[tuple[str, Record]] = []
    for line in stdout.split(b"\n"):
        if not line.strip():
            continue
        head, *parts = line.split(DELIMITER.encode())
        label, _, job_id = head.partition(b": ")
        if label != b"Job Id" or not job_id:
            raise SchedulerUnavailable("qstat answered with a line that is no job: " + printable(line, 200))
        record: dict[str, str] = {}
        for part in parts:
            key, equals, value = part.partition(b"=")
            if equals and _KEY.fullmatch(key):
                record.setdefault(decoded(key), decoded(value))
        records.append((decoded(job_id), record))
    return records


def text_records(stdout: bytes, label: bytes) -> list[tuple[str, Record]]:
    """Id and attributes from the text form: ``label`` (such as ``Job Id: ``) begins a record, ``    key =
    value`` a field.

    Long values are folded inside words: a line that begins with a tab goes on with the value before it. Line
    ends inside values come out raw here, so a value may imitate fields. Hence what stands before the first
    attribute that a user can write is believed; after it an attribute that occurs twice is dropped. A value
    may also imitate a whole record: callers must not read more than one job from one stream, see
    framed_answers.
    """
    records: list[tuple[str, Record]] = []
    record: dict[bytes, bytes] = {}
    trusted: set[bytes] = set()
    ambiguous: set[bytes] = set()
    free_text_seen = False
    key = b""

    def close() -> None:
        if name:
            kept = {decoded(k): decoded(v) for k, v in record.items() if k in trusted or k not in ambiguous}
            records.append((name, kept))

    name = ""
    for line in stdout.split(b"\n"):
        if line.startswith(label):
            close()
            name, record, ambiguous, free_text_seen, key = decoded(line[len(label) :]), {}, set(), False, b""
            trusted = set()
        elif line.startswith(b"\t") and key:
            record[key] += line[1:]
        elif match := _TEXT_FIELD.fullmatch(line):
            key, value = match[1], match[2]
            if key in record:
                ambiguous.add(key)
                key = b""  # and its folded lines are nobody's
                continue
            record[key] = value
            free_text_seen = free_text_seen or key in _FREE_TEXT
            if not free_text_seen:
                trusted.add(key)
        elif line:
            key = b""  # the rest of a value with a line end in it
    close()
    return records


_SAID_FINISHED = re.compile(r"qstat: (\S{1,256}) Job has finished")


def said_finished(result: CommandResult, job_ids: Collection[str]) -> frozenset[str]:
    """Those of ``job_ids`` that qstat, asked without history, calls finished in its error text (exit 35)."""
    named = _SAID_FINISHED.findall(decoded(result.stderr))
    return frozenset(named) & frozenset(job_ids)


def job_status(job_id: str, record: Record) -> JobStatus:
    """A record in our words. Raises SchedulerUnavailable without ``job_state``: then it is not whole."""
    letter = record.get("job_state", "").strip()
    if not letter:
        raise SchedulerUnavailable(f"qstat says nothing about the state of {job_id}")
    state = _STATES.get(letter, JobState.UNKNOWN)
    if letter == "R" and record.get("substate", "").strip() == _PRERUN:
        state = JobState.QUEUED
    is_waiting = state in (JobState.QUEUED, JobState.HELD)  # what an earlier run left behind does not count
    return JobStatus(
        job_id=job_id,
        state=state,
        raw_state=printable(letter, 16),
        name=printable(record.get("Job_Name", ""), 256),
        owner=printable(record.get("Job_Owner", "").partition("@")[0], 256),
        queue=printable(record.get("queue", ""), 256),
        comment=printable(record.get("comment", "")),
        execution_hosts=() if is_waiting else execution_hosts(record.get("exec_host")),
        # A running or held job may carry the exit status of an earlier run: it counts only at the end.
        exit_status=integer(record.get("Exit_status")) if state is JobState.FINISHED else None,
        submitted_at=ctime_utc(record.get("ctime")),
        started_at=None if is_waiting else ctime_utc(record.get("stime")),
        estimated_start_at=ctime_utc(record.get("estimated.start_time")),
        walltime_seconds=duration_seconds(record.get("Resource_List.walltime")),
        walltime_used_seconds=duration_seconds(record.get("resources_used.walltime")),
        memory_used_mib=size_mib(record.get("resources_used.mem")),
        run_count=integer(record.get("run_count")),
    )
