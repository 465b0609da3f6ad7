"""How a PBS command fails: an exit code, which is the PBS error number & 0xff, and a line on stderr."""

from __future__ import annotations

UNKNOWN_JOB = 153
UNKNOWN_QUEUE = 170
NOT_PERMITTED = 159
BAD_VALUE = 166
UNKNOWN_RESOURCE = 187
OVER_LIMIT = 188
QUEUE_DISABLED = 173
TOO_MANY_QUEUED = 38
FINISHED = 35
WRONG_STATE = 168
HOST_UNREACHABLE = 222
BAD_UID = 175
USAGE = 2


class PBSError(Exception):
    """A command or one of its operands is refused. ``message`` stands after "<command>: " on stderr, ``preface`` on a
    line before it.
    """

    def __init__(self, exit_code: int, message: str, *, preface: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.preface = preface


class UsageError(PBSError):
    """The command line is wrong; the usage text follows ``message``."""

    def __init__(self, message: str) -> None:
        super().__init__(USAGE, message)


def unknown_job(job_id: str) -> PBSError:
    """Nobody knows this id."""
    return PBSError(UNKNOWN_JOB, f"Unknown Job Id {job_id}")


def finished(job_id: str) -> PBSError:
    """Too late."""
    return PBSError(FINISHED, f"Job has finished {job_id}")


def not_permitted(job_id: str) -> PBSError:
    """Somebody else's job. PBS prints two spaces here."""
    return PBSError(NOT_PERMITTED, f"Unauthorized Request  {job_id}")


def illegal_value(name: str) -> PBSError:
    """A resource or attribute whose value PBS cannot read."""
    return PBSError(BAD_VALUE, f"Illegal attribute or resource value {name}")
