"""Recordings of OpenPBS as the demonstration cluster's tests need them: command, stdin, and what came back.

Those that no adapter meets are in ``captures/openpbs-commands``, made in the same way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CAPTURES = Path(__file__).parent / "captures"
_STREAM = re.compile(rb"^--- (stdin|stdout|stderr) \((\d+) bytes\)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One case."""

    command: str
    stdin: bytes
    exit_status: int
    stdout: bytes
    stderr: bytes


def recorded(name: str) -> Recorded:
    """The case called ``name``."""
    path = CAPTURES / "openpbs" / f"{name}.txt"
    raw = (path if path.exists() else CAPTURES / "openpbs-commands" / path.name).read_bytes()
    start = raw.index(b"\n$ ") + 3
    ends = [raw.find(mark, start) for mark in (b"\n--- stdin", b"\nexit code: ")]
    command = raw[start : min(end for end in ends if end >= 0)]
    streams = {b"stdin": b"", b"stdout": b"", b"stderr": b""}
    position = start
    while match := _STREAM.search(raw, position):
        position = match.end() + int(match[2])
        streams[match[1]] = raw[match.end() : position]
    exit_status = re.search(rb"^exit code: (\d+)$", raw, re.MULTILINE)
    assert exit_status, name
    return Recorded(command.decode(), streams[b"stdin"], int(exit_status[1]), streams[b"stdout"], streams[b"stderr"])


def text_fields(answer: bytes) -> list[tuple[str, str]]:
    """Name and value of every line of a ``qstat -f`` text answer, folded lines joined."""
    joined = answer.replace(b"\n\t", b"").decode("utf-8", "surrogateescape")
    found = re.findall(r"^ {4}([A-Za-z_.]+) = ?((?:.|\n(?! {4}|\n|\Z))*)", joined, re.MULTILINE)
    return [(str(name), str(value)) for name, value in found]
