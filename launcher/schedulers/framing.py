"""Several answers in one, each preceded by its length, so that nothing inside one can pass for another. Pure.

Some status commands print users' values raw, line ends included. Where such a command must be asked about
several jobs in one visit, a small shell script runs it once per job and writes a header before each output: a
label, the exit status, and the number of bytes that follow. The script is fixed; paths, options and ids reach
it as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.schedulers.base import Command, SchedulerUnavailable
from launcher.schedulers.values import decoded

ENVIRONMENT = {"TZ": "UTC", "LC_ALL": "C"}
"""Times in UTC, and a shell that counts bytes, not characters."""

_ONCE_PER_JOB = (
    "command=$1; option=$2; shift 2; "
    'for id do answer=$("$command" "$option" "$id"); '
    'printf "%s %d %d\\n%s\\n" "$id" "$?" "${#answer}" "$answer"; done'
)
_HEADER = re.compile(rb"([A-Za-z0-9\[\]._-]{1,256}) (\d{1,3}) (\d{1,9})\n")


def one_command_per_job(command: str, option: str, job_ids: Sequence[str]) -> Command:
    """Run ``command option id`` for each id; read the answer with framed_answers."""
    return Command(("sh", "-c", _ONCE_PER_JOB, "sh", command, option, *job_ids), environment=ENVIRONMENT)


def framed_answers(stdout: bytes) -> list[tuple[str, int, bytes]]:
    """Label, exit status and output of each part. Raises SchedulerUnavailable when headers and lengths do not
    fit.
    """
    answers: list[tuple[str, int, bytes]] = []
    position = 0
    while position < len(stdout):
        header = _HEADER.match(stdout, position)
        if not header:
            raise SchedulerUnavailable("the parts of the answer cannot be told apart")
        start = header.end()
        position = start + int(header[3]) + 1
        if stdout[position - 1 : position] != b"\n":
            raise SchedulerUnavailable("the answer is cut short")
        answers.append((decoded(header[1]), int(header[2]), stdout[start : position - 1]))
    return answers
