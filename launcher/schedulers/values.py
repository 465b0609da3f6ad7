"""Small readers for what schedulers print: text for people, amounts, durations, times, host names. Pure.

Everything here meets hostile input: each reader is linear, bounded, and answers ``None`` (or nothing) instead
of raising when a value is not what it should be.
"""

from __future__ import annotations

import datetime as dt
import re

DETAIL_LIMIT = 2_000
"""Characters kept of a scheduler's own words."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CTIME = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")
_SIZE = re.compile(r"(\d{1,18})([kmgtpe]?)([bw]?)", re.IGNORECASE)
_BYTES_PER_UNIT = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50, "e": 2**60}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_INTEGER = re.compile(r"[+-]?\d{1,18}")


def decoded(raw: bytes) -> str:
    """Bytes as text without loss. A byte that is not UTF-8 becomes a lone surrogate: compare it, do not store
    it.
    """
    return raw.decode("utf-8", "surrogateescape")


def printable(text: str | bytes, limit: int = DETAIL_LIMIT) -> str:
    """``text`` for a person: valid Unicode, no control characters but line ends, at most ``limit``
    characters.
    """
    if isinstance(text, bytes):
        text = decoded(text[: limit * 8])
    text = text[: limit * 2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    kept = "".join(character if character == "\n" or character.isprintable() else " " for character in text)
    return kept.strip()[:limit]


def integer(text: str | None) -> int | None:
    """A whole number of at most 18 digits."""
    digits = text.strip() if text is not None else ""  # strip knows more blanks than int does, such as 0x1f
    return int(digits) if _INTEGER.fullmatch(digits) and digits.isascii() else None


def size_mib(text: str | None, *, round_up: bool = True) -> int | None:
    """Mebibytes from an amount such as ``6244kb``, ``4gb`` or plain bytes; ``w`` counts words of eight bytes."""
    match = _SIZE.fullmatch(text.strip()) if text is not None and text.isascii() else None
    if not match:
        return None
    size = int(match[1]) * _BYTES_PER_UNIT[match[2].lower()] * (8 if match[3].lower() == "w" else 1)
    return -(-size // 2**20) if round_up else size // 2**20


def duration_seconds(text: str | None) -> int | None:
    """Seconds from ``SS``, ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS``; hours may exceed 24."""
    if text is None:
        return None
    days, dash, clock = text.strip().rpartition("-")
    parts = clock.split(".")[0].split(":")
    if len(parts) > 3 or (dash and not days) or not all(re.fullmatch("[0-9]{1,12}", part) for part in parts):
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    if dash:
        if not re.fullmatch("[0-9]{1,6}", days):
            return None
        # Slurm counts the first number after the dash in hours: "1-12" and "1-12:30".
        seconds = int(days) * 86_400 + seconds * 60 ** (3 - len(parts))
    return seconds


def clock_text(seconds: int) -> str:
    """``HH:MM:SS`` as PBS and Slurm take it; hours may exceed 24."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def ctime_utc(text: str | None) -> dt.datetime | None:
    """A time such as ``Sun Nov 22 23:56:41 2026``, printed by a client that runs with ``TZ=UTC``.

    Read without strptime, whose month names follow the process's locale.
    """
    match = _CTIME.fullmatch(text.strip()) if text is not None and text.isascii() else None
    if not match or match[1] not in _MONTHS:
        return None
    try:
        day, hour, minute, second, year = (int(match[group]) for group in range(2, 7))
        return plausible(dt.datetime(year, _MONTHS.index(match[1]) + 1, day, hour, minute, second, tzinfo=dt.UTC))
    except ValueError:
        return None


def plausible(moment: dt.datetime) -> dt.datetime | None:
    """``moment`` unless no job can mean it: what is near the ends of the calendar has no time in every zone."""
    return moment if 1970 < moment.year < 2200 else None


def epoch_utc(text: str | None) -> dt.datetime | None:
    """A time in seconds since 1970. Zero means "not known" to schedulers."""
    seconds = integer(text)
    return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds and 0 < seconds < 2**33 else None


def is_host_name(text: str) -> bool:
    """Whether ``text`` can be the name or the IPv4 address of a host."""
    return _HOST.fullmatch(text) is not None


def execution_hosts(text: str | None) -> tuple[str, ...]:
    """Hosts, each once, from ``pbs01/0*2+node01/0``. All or nothing: an odd part makes the whole value
    worthless.
    """
    if not text:
        return ()
    hosts = [part.partition("/")[0].strip() for part in text.split("+")]
    return tuple(dict.fromkeys(hosts)) if all(is_host_name(host) for host in hosts) else ()
