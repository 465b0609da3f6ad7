"""From what a browser or a program sent for one field to a value inside its bounds. Pure; raises only ``Wrong``.

``launcher.choices`` puts the fields of a launch together and gathers what is wrong with them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from launcher.clusters import QueueLimits, memory_mib

MAX_PATH = 1024

_NUMBER = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})", re.ASCII)
_BEYOND = 1e12  # larger than every limit; keeps huge input finite
_BIDI_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Wrong(Exception):
    """One value is wrong."""

    def __init__(self, code: str, **params: object) -> None:
        super().__init__(code)
        self.code = code
        self.params = params


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked for in one queue: the app's limits, the queue's and the person's, whichever is tighter."""

    min_cores: int
    max_cores: int
    min_memory_mib: int
    max_memory_mib: int
    min_hours: float
    max_hours: float
    min_gpus: int
    max_gpus: int


def text_of(kind: str, raw: object, max_length: int) -> str:
    """One line of text without white space around it. Quotes, emoji and every script are welcome."""
    if not isinstance(raw, str):
        raise Wrong("not_text")
    text = raw.strip(" \t")
    if kind != "title":
        text = text.strip()
    for character in text:
        # Cc: control characters; Zl, Zp: line and paragraph ends; Cs: half a character, which no database
        # takes.
        if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in _BIDI_OVERRIDES:
            raise Wrong("control_characters")
    if len(text) > max_length:
        raise Wrong("too_long", max=max_length)
    return text


def environment_path(path: str) -> str:
    if not path.startswith(("/", "~/")):
        raise Wrong("not_absolute")
    if len(path) > MAX_PATH:
        raise Wrong("too_long", max=MAX_PATH)
    return path


def folder_of(raw: object) -> str:
    """A folder; ``~/data`` and ``data`` are the same, ``~`` and nothing are the home folder."""
    text = text_of("folder", raw, MAX_PATH)
    if text == "~":
        return ""
    return text.removeprefix("~/").lstrip("/") if text.startswith("~/") else text


def _number(raw: object) -> float:
    """A finite number from a number or from text. True and false are no numbers."""
    if isinstance(raw, str):
        text = raw.strip()
        if not text:
            raise Wrong("required")
        if not _NUMBER.fullmatch(text):
            raise Wrong("not_a_number")
        number = float(text)
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        if isinstance(raw, float) and not math.isfinite(raw):
            raise Wrong("not_a_number")
        number = float(max(-_BEYOND, min(_BEYOND, raw)))
    else:
        raise Wrong("not_a_number")
    return max(-_BEYOND, min(_BEYOND, number))


def _whole(raw: object) -> int:
    number = _number(raw)
    if number != int(number):
        raise Wrong("not_whole")
    return int(number)


def cores_of(raw: object, bounds: Limits) -> int:
    cores = _whole(raw)
    if cores < bounds.min_cores:
        raise Wrong("too_few", min=bounds.min_cores)
    if cores > bounds.max_cores:
        raise Wrong("too_many", max=bounds.max_cores)
    return cores


def memory_of(raw: object, bounds: Limits) -> int:
    if isinstance(raw, str) and raw.strip():
        try:
            amount = memory_mib(raw)
        except ValueError:
            raise Wrong("not_an_amount") from None
    else:
        try:
            amount = round(_number(raw) * 1024)
        except Wrong as wrong:
            raise Wrong("required" if wrong.code == "required" else "not_an_amount") from None
    if amount < bounds.min_memory_mib:
        raise Wrong("too_little", min=bounds.min_memory_mib)
    if amount > bounds.max_memory_mib:
        raise Wrong("too_much", max=bounds.max_memory_mib)
    return amount


def walltime_of(raw: object, bounds: Limits, queue: QueueLimits, most_hours: float | None) -> int:
    """Seconds from hours."""
    hours = _number(raw)
    if most_hours is not None and most_hours < bounds.min_hours:
        raise Wrong("none_allowed", min=tidy(bounds.min_hours), max=tidy(most_hours))
    if hours < bounds.min_hours:
        raise Wrong("too_few", min=tidy(bounds.min_hours))
    if most_hours is not None and hours > most_hours == bounds.max_hours:
        raise Wrong("over_allowance", max=tidy(most_hours))
    if hours > queue.max_hours:
        raise Wrong("over_queue_limit", max=tidy(bounds.max_hours), queue=queue.label or queue.name)
    if hours > bounds.max_hours:
        raise Wrong("too_many", max=tidy(bounds.max_hours))
    return max(1, round(hours * 3600))


def gpus_of(raw: object, bounds: Limits, queue: QueueLimits) -> int:
    gpus = _whole(raw)
    if gpus < bounds.min_gpus:
        raise Wrong("too_few", min=bounds.min_gpus)
    if gpus > bounds.max_gpus:
        if queue.max_gpus == 0:
            raise Wrong("none", queue=queue.label or queue.name)
        raise Wrong("too_many", max=bounds.max_gpus)
    return gpus


def tidy(number: float) -> int | float:
    """24 rather than 24.0, for people."""
    return int(number) if number == int(number) else number
