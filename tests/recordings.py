"""Recordings of real schedulers: a command with its exit status and output, one case a file under
``tests/captures``.

They were taken on OpenPBS 23.06.06 and on Slurm 22.05.8. ``LEFT_OUT.txt`` says which cases were not taken
over, and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from launcher.schedulers.base import CommandResult

CAPTURES = Path(__file__).parent / "captures"

_EXIT = re.compile(rb"^exit code: (\d+)\n", re.MULTILINE)
_STREAM = re.compile(rb"^--- (stdout|stderr) \((\d+) bytes\)\n", re.MULTILINE)
_SLURM = re.compile(rb"\A\$ (.*)\n--- stdout\n(.*?)--- stderr\n(.*?)--- rc=(\d+)\n\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Recording:
    """One case: the command line as typed, and what came back."""

    name: str
    command: str
    result: CommandResult


def openpbs(name: str) -> Recording:
    """The OpenPBS case called ``name``."""
    raw = (CAPTURES / "openpbs" / f"{name}.txt").read_bytes()
    command = re.search(rb"^\$ (.*)$", raw, re.MULTILINE)
    exit_status = _EXIT.search(raw)
    assert exit_status, name
    streams: dict[bytes, bytes] = {}
    position = exit_status.end()
    while match := _STREAM.search(raw, position):
        position = match.end() + int(match[2])
        streams[match[1]] = raw[match.end() : position]
    result = CommandResult(int(exit_status[1]), streams[b"stdout"], streams[b"stderr"])
    return Recording(name, command[1].decode() if command else "", result)


def slurm(name: str) -> Recording:
    """The Slurm case called ``name``."""
    match = _SLURM.match((CAPTURES / "slurm" / f"{name}.txt").read_bytes())
    assert match, name
    return Recording(name, match[1].decode(), CommandResult(int(match[4]), match[2], match[3]))


def names(scheduler: str) -> list[str]:
    """Every case of ``scheduler``, a folder of ``tests/captures``."""
    return sorted(path.stem for path in (CAPTURES / scheduler).glob("*.txt") if path.stem != "LEFT_OUT")
