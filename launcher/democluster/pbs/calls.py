"""What a PBS command is told and what it answers, and helpers that all commands share."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from launcher.democluster.pbs import errors
from launcher.democluster.pbs.errors import PBSError, UsageError
from launcher.democluster.pbs.job import Job
from launcher.democluster.settings import PBS_VERSION, SERVER_NAME, Account

_JOB_ID = re.compile(r"([0-9]{1,12})(\[[0-9]{0,6}\])?(?:\.([A-Za-z0-9][A-Za-z0-9.-]{0,254}))?")


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command. Everything but ``user`` comes from outside."""

    command: str
    arguments: tuple[str, ...]
    folder: str
    user: Account
    environment: Mapping[str, str]
    read_stdin: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the command prints and how it exits."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


def refused(command: str, error: PBSError, usage: str) -> Answer:
    """The answer to a command line that fails as a whole."""
    text = f"{error.preface}{command}: {error.message}\n"
    if isinstance(error, UsageError):
        text += usage
    return Answer(error.exit_code, stderr=encoded(text))


def encoded(text: str) -> bytes:
    """Text with surrogate escapes as the bytes it came from."""
    return text.encode("utf-8", "surrogateescape")


def version_answer() -> Answer:
    """What ``--version`` prints."""
    return Answer(stdout=f"pbs_version = {PBS_VERSION}\n".encode())


def full_id(text: str) -> str:
    """An operand as a complete job id. Raises PBSError if it cannot be one of this server."""
    match = _JOB_ID.fullmatch(text)
    if not match or (match[3] is not None and match[3] != SERVER_NAME):
        raise PBSError(1, f"illegally formed job identifier: {text}")
    return f"{int(match[1])}{match[2] or ''}.{SERVER_NAME}"


def find_job(jobs: Mapping[int, Job], job_id: str) -> Job:
    """The job of a complete id. Raises PBSError."""
    number = job_id.partition(".")[0]
    job = jobs.get(int(number)) if number.isdigit() else None
    if job is None:
        raise errors.unknown_job(job_id)
    return job


def check_owner(job: Job, user: Account) -> None:
    """Raise PBSError unless the user may act on the job."""
    if job.request.owner != user.name and not user.is_operator:
        raise errors.not_permitted(job.job_id)


def for_each_job(call: Call, operands: Iterable[str], jobs: Mapping[int, Job],
                 act: Callable[[Job], None]) -> Answer:  # fmt: skip
    """Do something to every job named; the exit code is that of the last failure, as in PBS."""
    exit_code, stderr = 0, ""
    for operand in operands:
        try:
            act(find_job(jobs, full_id(operand)))
        except PBSError as error:
            exit_code = error.exit_code
            stderr += f"{call.command}: {error.message}\n"
    return Answer(exit_code, stderr=encoded(stderr))
