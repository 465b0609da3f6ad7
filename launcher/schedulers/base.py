"""What every scheduler adapter offers: values in, a command out; an answer in, values out. Pure, no I/O.

The caller runs the command over SSH and hands back what came; nothing here knows how. The answer is hostile
input: parsers accept only job ids that were asked for and never trust that a field is what it should be.

    SchedulerError
    ├── SchedulerUnavailable   no usable answer: down, hung, garbled (transient)
    │   └── UnresolvableJob    one of the ids asked for made the scheduler refuse the whole question
    ├── SubmitRejected         the scheduler said no to a job, with its own words in ``detail``
    └── NotPermitted           this account may not do that
"""

from __future__ import annotations

import abc
import datetime as dt
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from portal.errors import FootbridgeError


class SchedulerError(FootbridgeError):
    """The scheduler refused, or gave no usable answer."""

    code = "scheduler.error"


class SchedulerUnavailable(SchedulerError):
    """No usable answer: nothing follows from it about any job."""

    code = "scheduler.unavailable"
    transient = True


class UnresolvableJob(SchedulerUnavailable):
    """Because of one of the ids the scheduler refused the whole question: nothing follows about any job. Asked in
    parts, it answers about the others.
    """

    code = "scheduler.bad_job_id"
    transient = False


class SubmitRejected(SchedulerError):
    """The scheduler said no, or a value could not be asked of it. ``code`` narrows it down where the answer
    tells: ``scheduler.rejected.`` and ``unknown_queue, queue_disabled, not_authorized, over_limit,
    unknown_resource, bad_value, bad_name, bad_account, bad_script, too_many_queued, site_hook`` or
    ``never_fits``.
    """

    code = "scheduler.rejected"


class NotPermitted(SchedulerError):
    """The account may not do this to that job."""

    code = "scheduler.not_permitted"


class JobState(enum.StrEnum):
    """The scheduler's view of a job, the same words for every scheduler."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    EXITING = "exiting"
    FINISHED = "finished"
    UNKNOWN = "unknown"


class CancelOutcome(enum.StrEnum):
    """What became of a wish to cancel."""

    ACCEPTED = "accepted"  # the scheduler will end the job; it may stay visible for a while
    FINISHED = "finished"  # it had already ended
    UNKNOWN = "unknown"  # the scheduler does not know the job


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the login host: an argument list that is quoted by whoever runs it, never joined here."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    dies_after_seconds: float = 0  # killed on the login host itself, even where nobody is connected any more; 0: never


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command on the login host answered."""

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""


_REQUEST_TEXTS = {
    "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"),
    "queue": re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?"),
    "account": re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127})?"),
    # No colon, comma, caret, percent, quote, backslash or "$": some scheduler reads more into each of them.
    "output_path": re.compile(r"(?:/[\w./@+=~-](?:[\w./@+=~ -]{0,1022}[\w./@+=~-])?)?"),
}
_REQUEST_NUMBERS = {
    "cores": (1, 100_000),
    "memory_mib": (1, 2**30),
    "walltime_seconds": (1, 366 * 86_400),
    "gpus": (0, 1_024),
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to submit. The script travels on stdin, without directives: what the scheduler must know is here.

    Raises SubmitRejected when a value could not be passed to every scheduler as what it is;
    ``params["field"]`` names it.
    """

    name: str  # letters, digits and "-"; carries the session's marker
    script: bytes
    cores: int
    memory_mib: int
    walltime_seconds: int
    gpus: int = 0
    queue: str = ""  # empty: the scheduler's default
    account: str = ""
    output_path: str = ""  # absolute path of the job's own output on the cluster

    def __post_init__(self) -> None:
        for field_name, pattern in _REQUEST_TEXTS.items():
            if not pattern.fullmatch(getattr(self, field_name)):
                narrow = "bad_name" if field_name == "name" else "bad_value"
                raise SubmitRejected(code=f"scheduler.rejected.{narrow}", params={"field": field_name})
        for field_name, (least, most) in _REQUEST_NUMBERS.items():
            value = getattr(self, field_name)
            if type(value) is not int or not least <= value <= most:
                raise SubmitRejected(code="scheduler.rejected.bad_value", params={"field": field_name})
        if not self.script.startswith(b"#!") or b"\0" in self.script:
            raise SubmitRejected(code="scheduler.rejected.bad_script", params={"field": "script"})


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job as the scheduler sees it now. What it did not say is ``None`` or empty."""

    job_id: str
    state: JobState
    raw_state: str = ""  # the scheduler's own letter or word
    name: str = ""
    owner: str = ""  # account name, without a host
    queue: str = ""
    comment: str = ""  # the scheduler's own words about why it waits or ended
    execution_hosts: tuple[str, ...] = ()
    exit_status: int | None = None
    submitted_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    estimated_start_at: dt.datetime | None = None
    walltime_seconds: int | None = None  # granted
    walltime_used_seconds: int | None = None
    memory_used_mib: int | None = None
    run_count: int | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """One usable answer to "how are these jobs".

    ``jobs`` holds the ids we asked for that the scheduler knows. ``missing`` are those it left out of a valid
    answer: one report proves nothing about them. ``without_history`` says that finished jobs are not kept by
    this scheduler.
    """

    jobs: Mapping[str, JobStatus]
    missing: frozenset[str] = frozenset()
    without_history: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and what it lets through. ``None`` means the scheduler states no limit."""

    name: str
    accepts_jobs: bool = True
    starts_jobs: bool = True
    max_walltime_seconds: int | None = None
    max_cores: int | None = None
    max_memory_mib: int | None = None
    max_gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An execution host and what is free on it."""

    name: str
    is_up: bool
    cores: int = 0
    cores_free: int = 0
    memory_mib: int = 0
    memory_free_mib: int = 0
    gpus: int = 0
    gpus_free: int = 0


class Scheduler(abc.ABC):
    """A scheduler's dialect. ``commands_folder``: where its commands are on the login host ("": PATH)."""

    name: str
    batch_size: int = 500
    """Ids that one status command may ask for."""
    commands: tuple[str, ...]
    """The programs without which no session can be run."""

    def __init__(self, commands_folder: str = "") -> None:
        self.commands_folder = commands_folder.rstrip("/")

    def command_path(self, command: str) -> str:
        """The command with its folder."""
        return f"{self.commands_folder}/{command}" if self.commands_folder else command

    def downgrade(self, result: CommandResult) -> Scheduler | None:
        """Another adapter to use from now on, where ``result`` shows that client or server lack something.

        Look here after any command that failed; when there is another adapter, nothing was done: ask again
        with it. ``None``: this adapter is right.
        """
        del result
        return None

    @abc.abstractmethod
    def submit_command(self, request: JobRequest) -> Command:
        """Submit ``request``."""

    @abc.abstractmethod
    def parse_submit(self, result: CommandResult) -> str:
        """The new job's id. Raises SubmitRejected, or SchedulerUnavailable where the outcome is not known."""

    @abc.abstractmethod
    def find_command(self, *, name: str, user: str) -> Command:
        """Look for jobs of ``user`` whose name is ``name``, finished ones included where history is kept."""

    @abc.abstractmethod
    def parse_find(self, result: CommandResult) -> tuple[str, ...]:
        """Ids of the jobs found, oldest first. Raises SchedulerUnavailable: an empty answer means "none"."""

    @abc.abstractmethod
    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Ask for all of ``job_ids`` (one or more, all belonging to this scheduler) with one command."""

    @abc.abstractmethod
    def parse_status(self, result: CommandResult, job_ids: Sequence[str]) -> StatusReport:
        """The jobs among ``job_ids`` that the answer knows. Raises SchedulerUnavailable when in doubt."""

    @abc.abstractmethod
    def cancel_command(self, job_id: str) -> Command:
        """Cancel a job."""

    @abc.abstractmethod
    def parse_cancel(self, result: CommandResult) -> CancelOutcome:
        """What became of it. Raises NotPermitted or SchedulerUnavailable."""

    @abc.abstractmethod
    def extend_command(self, job_id: str, *, walltime_seconds: int) -> Command:
        """Ask for a new total walltime (needs an operator's account on PBS and Slurm)."""

    @abc.abstractmethod
    def parse_extend(self, result: CommandResult) -> None:
        """Return when granted. Raises NotPermitted, SubmitRejected or SchedulerUnavailable."""

    @abc.abstractmethod
    def queues_command(self) -> Command:
        """Ask for the queues and their limits."""

    @abc.abstractmethod
    def parse_queues(self, result: CommandResult) -> tuple[Queue, ...]:
        """The queues. Raises SchedulerUnavailable."""

    @abc.abstractmethod
    def nodes_command(self) -> Command:
        """Ask for the execution hosts."""

    @abc.abstractmethod
    def parse_nodes(self, result: CommandResult) -> tuple[Node, ...]:
        """The execution hosts. Raises SchedulerUnavailable."""
