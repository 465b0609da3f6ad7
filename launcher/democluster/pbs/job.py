"""A job: what was asked for, what became of it, and how it is kept across a restart."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.democluster.pbs.values import Chunk
from launcher.democluster.settings import SERVER_NAME


class State(enum.StrEnum):
    """PBS's letters."""

    QUEUED = "Q"
    HELD = "H"
    WAITING = "W"
    RUNNING = "R"
    EXITING = "E"
    FINISHED = "F"


SUBSTATE_QUEUED = 10
SUBSTATE_HELD = 20
SUBSTATE_WAITING = 30
SUBSTATE_PRERUN = 41  # R by its letter, but no process runs yet
SUBSTATE_RUNNING = 42
SUBSTATE_EXITING = 51
SUBSTATE_TERMINATED = 91
SUBSTATE_FINISHED = 92
SUBSTATE_FAILED = 93


@dataclass(frozen=True, slots=True)
class Request:
    """What qsub was told, checked and in PBS's own spelling."""

    name: str
    owner: str
    queue: str
    script: bytes = field(repr=False)
    resources: Mapping[str, str]  # Resource_List, without what is derived from the chunks
    chunks: tuple[Chunk, ...]
    place: str
    walltime_seconds: int
    working_folder: str
    output_path: str = ""  # absolute, or empty for the default
    error_path: str = ""
    join: str = "n"
    keep: str = "n"
    remove: str = ""  # -R: which files to remove at the end
    rerunable: bool = True
    account: str = ""
    project: str = "_pbs_project_default"
    mail_points: str = "a"
    mail_users: str = ""
    shell: str = ""
    priority: int = 0
    held: bool = False
    start_at: float = 0.0
    umask: int = 0o077
    block: bool = False
    variables: tuple[tuple[str, str], ...] = ()
    arguments: str = ""


@dataclass(slots=True, eq=False)
class Job:
    """One job. Times are epoch seconds, 0 where it has not happened."""

    sequence: int
    request: Request
    state: State = State.QUEUED
    substate: int = SUBSTATE_QUEUED
    hold_types: str = "n"
    created_at: float = 0.0
    modified_at: float = 0.0
    eligible_at: float = 0.0
    started_at: float = 0.0
    running_at: float = 0.0  # when its processes began
    ended_at: float = 0.0  # obittime
    history_at: float = 0.0
    comment: str = ""
    execution_host: str = ""
    execution_vnode: str = ""
    session_id: int = 0
    run_count: int = 0
    exit_status: int | None = None
    staged_out: bool = False
    cpu_seconds: float = 0.0
    memory_kib: int = 0
    vmem_kib: int = 0
    walltime_used: int | None = None
    used_known: bool = False  # PBS shows resources_used only once the host has reported
    deleted_by: str = ""

    @property
    def job_id(self) -> str:
        """``123.demo-pbs``."""
        return f"{self.sequence}.{SERVER_NAME}"

    @property
    def is_active(self) -> bool:
        """It has processes, or will have in a moment."""
        return self.state in (State.RUNNING, State.EXITING)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its execution hosts, each once."""
        return tuple(dict.fromkeys(part.split("/")[0] for part in self.execution_host.split("+") if part))

    @property
    def cores(self) -> int:
        """Cores over all chunks."""
        return sum(chunk.cores for chunk in self.request.chunks)

    @property
    def memory_kib_requested(self) -> int:
        """Memory over all chunks, or what ``-l mem`` said."""
        return sum(chunk.memory_kib for chunk in self.request.chunks)

    @property
    def gpus(self) -> int:
        """GPUs over all chunks."""
        return sum(chunk.gpus for chunk in self.request.chunks)

    def path_of(self, kind: str) -> str:
        """Absolute path of the output (``o``) or error (``e``) file, without a host."""
        given = self.request.output_path if kind == "o" else self.request.error_path
        name = f"{self.request.name}.{kind}{self.sequence}"
        if given.endswith("/"):
            return f"{given}{self.job_id}.{'OU' if kind == 'o' else 'ER'}"
        return given or f"{self.request.working_folder.rstrip('/')}/{name}"


def to_record(job: Job) -> dict[str, Any]:
    """A job as JSON-able values; the script is left out, an ended job needs it no more."""
    record = dataclasses.asdict(job)
    del record["request"]["script"]
    return record


def from_record(record: Mapping[str, Any]) -> Job:
    """The job of a record. Raises KeyError, TypeError or ValueError on a record that is none."""
    values = dict(record)
    request = dict(values.pop("request"))
    request["chunks"] = tuple(Chunk(**chunk) for chunk in request["chunks"])
    request["variables"] = tuple((str(name), str(value)) for name, value in request["variables"])
    values["state"] = State(values["state"])
    return Job(request=Request(script=b"", **request), **values)
