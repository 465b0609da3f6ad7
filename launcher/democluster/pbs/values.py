"""PBS's spelling of amounts, durations, times and resource requests. Pure.

Values are what a user typed: every reader is bounded and raises PBSError with PBS's own words.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from launcher.democluster.pbs.errors import UNKNOWN_RESOURCE, PBSError, illegal_value

_SIZE = re.compile(r"([0-9]{1,15})([kmgtp]?)([bw]?)", re.IGNORECASE)
_KIB_PER_UNIT = {"k": 1, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30, "p": 1 << 40}
_INTEGER = re.compile(r"[0-9]{1,9}")
_DURATION = re.compile(r"[0-9]{1,9}(?::[0-9]{1,9}){0,2}")

JOB_RESOURCES = frozenset({"walltime", "cput", "mem", "ncpus", "ngpus", "vmem", "pmem", "mpiprocs", "software",
                           "nodes", "select", "place", "min_walltime", "max_walltime"})  # fmt: skip
CHUNK_RESOURCES = frozenset({"ncpus", "mem", "ngpus", "vmem", "mpiprocs", "ompthreads", "host", "vnode", "arch"})


def size_kib(text: str, name: str) -> int:
    """Kibibytes, rounded up, from ``100mb``, ``2tb`` or plain bytes. Raises PBSError naming ``name``."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise illegal_value(name)
    amount = int(match[1]) * (8 if match[3].lower() == "w" else 1)
    unit = match[2].lower()
    return amount * _KIB_PER_UNIT[unit] if unit else -(-amount // 1024)


def normalised_size(text: str) -> str:
    """A size as PBS shows it: plain bytes gain their ``b``."""
    return f"{text}b" if text.isdigit() else text.lower()


def size_text(kib: int) -> str:
    """A sum of sizes in the largest unit that keeps it whole."""
    for unit in ("kb", "mb", "gb"):
        if kib % 1024 or kib == 0:
            return f"{kib}{unit}"
        kib //= 1024
    return f"{kib}tb"


def short_size(kib: int) -> str:
    """A size as the scheduler's comments show it: whole gigabytes, otherwise megabytes rounded down."""
    if kib and kib % (1 << 20) == 0:
        return f"{kib >> 20}gb"
    return f"{kib >> 10}mb" if kib >= 1024 else f"{kib}kb"


def duration_seconds(text: str, name: str) -> int:
    """Seconds from ``SS``, ``MM:SS`` or ``HH:MM:SS``. Raises PBSError naming ``name``."""
    if not _DURATION.fullmatch(text):
        raise illegal_value(name)
    seconds = 0
    for part in text.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds


def clock_text(seconds: int) -> str:
    """``HH:MM:SS``; hours may pass 99."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def whole_number(text: str, name: str) -> int:
    """A count. Raises PBSError naming ``name``."""
    if not _INTEGER.fullmatch(text):
        raise illegal_value(name)
    return int(text)


def ctime(at: float, zone: str = "") -> str:
    """``Mon Nov 23 00:01:27 2026`` in ``zone`` (the client's TZ; PBS never says which)."""
    return _local(at, zone).strftime("%a %b %e %H:%M:%S %Y")


def comment_time(at: float) -> str:
    """``Mon Nov 23 at 00:01`` in the server's zone, as in the comments."""
    return time.strftime("%a %b %d at %H:%M", time.localtime(at))


def _local(at: float, zone: str) -> datetime:
    if zone.lstrip(":") in ("UTC", "UTC0", "GMT", "GMT0"):
        return datetime.fromtimestamp(at, UTC)
    if zone and re.fullmatch(r":?[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}", zone):
        try:
            return datetime.fromtimestamp(at, ZoneInfo(zone.lstrip(":")))
        except (OSError, ValueError, KeyError):
            return datetime.fromtimestamp(at, UTC)  # as the C library does with a zone it does not know
    return datetime.fromtimestamp(at).astimezone()


def start_time(text: str) -> float:
    """Epoch seconds from ``[[[[CC]YY]MM]DD]hhmm[.SS]`` of ``qsub -a``. Raises PBSError with exit code 2."""
    match = re.fullmatch(r"((?:[0-9]{2}){2,6})(?:\.([0-9]{2}))?", text)
    if not match:
        raise PBSError(2, "illegal -a value")
    digits, now = match[1], time.localtime()
    pairs = [int(digits[index : index + 2]) for index in range(0, len(digits), 2)]
    minute, hour = pairs.pop(), pairs.pop()
    day = pairs.pop() if pairs else now.tm_mday
    month = pairs.pop() if pairs else now.tm_mon
    year = now.tm_year
    if pairs:
        year = pairs.pop() + (pairs.pop() * 100 if pairs else 2000)
    try:
        return datetime(year, month, day, hour, minute, int(match[2] or 0)).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise PBSError(2, "illegal -a value") from None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a job that fits on one node."""

    cores: int = 1
    memory_kib: int = 0
    gpus: int = 0
    mpi_processes: int = 0
    host: str = ""


def parse_select(text: str, default_gpus: int = 0) -> tuple[Chunk, ...]:
    """Chunks of ``2:ncpus=4:mem=1gb+1:ngpus=1``. Raises PBSError."""
    chunks: list[Chunk] = []
    for part in text.split("+"):
        first, *settings = part.split(":")
        count = 1
        if _INTEGER.fullmatch(first):
            count = int(first)
        else:
            settings.insert(0, first)
        if not 1 <= count <= 10_000 or len(chunks) + count > 10_000:
            raise illegal_value("Resource_List.select")
        chunks += [_chunk(settings, default_gpus)] * count
    return tuple(chunks)


def _chunk(settings: list[str], default_gpus: int) -> Chunk:
    values: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise illegal_value("Resource_List.select")
        if name not in CHUNK_RESOURCES:
            raise PBSError(UNKNOWN_RESOURCE, f"Unknown resource select.{name[:200]}")
        values[name] = value
    return Chunk(
        cores=whole_number(values.get("ncpus", "1"), "select.ncpus"),
        memory_kib=size_kib(values["mem"], "select.mem") if "mem" in values else 0,
        gpus=whole_number(values["ngpus"], "select.ngpus") if "ngpus" in values else default_gpus,
        mpi_processes=whole_number(values.get("mpiprocs", "0"), "select.mpiprocs"),
        host=values.get("host", values.get("vnode", "")),
    )


def select_from_nodes(text: str) -> str:
    """The select that TORQUE's ``nodes=1:ppn=2`` means to PBS. Raises PBSError."""
    parts: list[str] = []
    for part in text.split("+"):
        first, *properties = part.split(":")
        count = int(first) if _INTEGER.fullmatch(first) else 0
        cores = 1
        for prop in properties:
            name, _, value = prop.partition("=")
            if name != "ppn" or not _INTEGER.fullmatch(value):
                raise illegal_value("Resource_List.nodes")
            cores = int(value)
        if count < 1:
            raise illegal_value("Resource_List.nodes")
        parts.append(f"{count}:ncpus={cores}:mpiprocs={cores}")
    return "+".join(parts)
