"""The words by which a job script tells the portal how far it is and why it failed. Pure.

Job scripts (``launcher/jobfiles/functions.sh`` and the server's own configuration) write marker lines into
the session's log, between everything else that is printed there:

    footbridge: step=environment at=1763870000
    footbridge: failed=module_missing subject=anaconda/9.9
    footbridge: ended=idle

The log belongs to the user, who can write such lines too: they explain a session, they never decide anything.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from dataclasses import dataclass

_STEP = re.compile(r"^footbridge: step=([a-z_]{1,32}) at=(\d{1,11})\r?$", re.MULTILINE | re.ASCII)
_FAILED = re.compile(r"^footbridge: failed=([a-z_]{1,32}) subject=([^\n]{0,1024}?)\r?$", re.MULTILINE)
_ENDED = re.compile(r"^footbridge: ended=idle\r?$", re.MULTILINE)
_MARKER = re.compile(r"^footbridge: (?:step|failed|ended)=[^\n]*(?:\n|\Z)", re.MULTILINE)


class ExitCode(enum.IntEnum):
    """Why a job script gave up, as its exit status. Any other status is the server's own, or a signal's
    (128 + n).

    The names in lower case are the words after ``failed=`` and the last part of the codes ``ended.<word>``.
    """

    FILES_MISSING = 70  # a file that the portal wrote into the session folder is not readable on this host
    MODULE_MISSING = 71  # the module command is missing, or did not load the module
    ENVIRONMENT_MISSING = 72  # the path is no conda or virtual environment
    IMAGE_MISSING = 73  # the container image is not there or not readable
    RUNTIME_MISSING = 74  # neither apptainer nor singularity was found
    JUPYTER_MISSING = 75  # none of the app's start commands was found
    JUPYTER_TOO_OLD = 76  # older than notebook 5
    FOLDER_MISSING = 77  # the working folder is not there
    CONFIG_FAILED = 78  # the server's configuration could not be applied; it must not run without

    @property
    def word(self) -> str:
        """The word after ``failed=``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Step:
    """A step that the job script has begun: environment, container, server, listening or ended."""

    name: str
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the script gave up: a word of ``ExitCode`` and what it was about (a module's name, a path;
    hostile text)."""

    word: str
    subject: str


def steps(log: str) -> tuple[Step, ...]:
    """The steps that the log tells of, in its order."""
    return tuple(Step(name, dt.datetime.fromtimestamp(int(at), dt.UTC)) for name, at in _STEP.findall(log))


def failure(log: str) -> Failure | None:
    """Why the script gave up, if it says so; the last word counts."""
    known = {code.word for code in ExitCode}
    found = [Failure(word, subject) for word, subject in _FAILED.findall(log) if word in known]
    return found[-1] if found else None


def stopped_when_idle(log: str) -> bool:
    """Whether the server says that it shut itself down because nobody used it."""
    return _ENDED.search(log) is not None


def without_markers(text: str) -> str:
    """The log as its owner reads it: what the marker lines say stands beside it, in words."""
    return _MARKER.sub("", text)
