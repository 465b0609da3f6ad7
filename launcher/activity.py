"""When somebody last worked in a session, from what its Jupyter server says. Pure; reads it as hostile input.

Three answers are asked for: ``api/status``, ``api/kernels`` and ``api/terminals``. A kernel that computes is work now,
however long it has printed nothing. Where the session runs our own configuration of Jupyter
(``launcher/jobfiles/jupyter_server.py``), programs that compute in a terminal or in the background count, and an open
page without anybody in front of it does not. Whatever is not understood is not known, and what is not known is never
idle.
"""

from __future__ import annotations

import datetime as dt
import email.utils
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from portal.errors import FootbridgeError

T = TypeVar("T")

PATHS = ("api/status?no_track_activity=1", "api/kernels?no_track_activity=1", "api/terminals?no_track_activity=1")
"""What is asked, in this order, below the server's base address. An answer to us is no activity."""
LOOK_HEADER = "X-Footbridge-Look"
"""Tells our configuration of Jupyter that the portal looks after the session."""
MAX_BYTES = 256 * 1024
"""Of one answer. A kernel takes about 200 bytes."""

_STARTING_SECONDS = 600
"""A kernel that nobody connects to says "starting" for ever; after so long it does not start any more."""
_COMPUTES = frozenset({"busy", "restarting", "autorestarting"})


class NotUnderstood(FootbridgeError):
    """What Jupyter said cannot be believed; ``detail`` holds nothing of it."""

    code = "activity.not_understood"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its status, its ``Date`` field, its body."""

    status: int
    date: str
    body: bytes


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Seen(_Strict):
    """The server as a whole, or a terminal."""

    last_activity: AwareDatetime


class _Kernel(_Seen):
    execution_state: str = Field(max_length=40)


_SERVER = TypeAdapter(_Seen)
_KERNELS = TypeAdapter(list[_Kernel])
_TERMINALS = TypeAdapter(list[_Seen])


def unused_seconds(answers: Sequence[Answer]) -> float:
    """For how long nobody has worked, from the answers to ``PATHS``; never below 0. Raises NotUnderstood.

    All times are compared with the ``Date`` of their own answer: the job's clock may be wrong, but it is one clock.
    """
    if len(answers) != len(PATHS):
        raise NotUnderstood(f"{len(answers)} answers")
    status, kernels, terminals = answers
    ages = [_age(status, _parsed(status, _SERVER).last_activity)]
    for kernel in _parsed(kernels, _KERNELS):
        age = _age(kernels, kernel.last_activity)
        if kernel.execution_state in _COMPUTES or (kernel.execution_state == "starting" and age < _STARTING_SECONDS):
            age = 0.0
        ages.append(age)
    if terminals.status != 404:  # a server without terminals
        ages += [_age(terminals, terminal.last_activity) for terminal in _parsed(terminals, _TERMINALS)]
    return min(ages)


def _parsed(answer: Answer, shape: TypeAdapter[T]) -> T:
    if answer.status != 200 or len(answer.body) > MAX_BYTES:
        raise NotUnderstood(f"status {answer.status}, {len(answer.body)} bytes")
    try:
        return shape.validate_json(answer.body)
    except (ValidationError, RecursionError) as error:
        raise NotUnderstood(type(error).__name__) from None


def _age(answer: Answer, moment: dt.datetime) -> float:
    """Seconds from ``moment`` to the answer. A moment in the future is now."""
    try:
        date = email.utils.parsedate_to_datetime(answer.date)
        return max(0.0, (date.astimezone(dt.UTC) - moment).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        raise NotUnderstood("no usable date") from None
