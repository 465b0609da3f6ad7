"""Starts a job's processes, passes orders to them, and delivers the job's output. One ``Runner`` per job.

Real processes live below a shepherd (see ``shepherd``). ``TimerRunner`` stands in for them where a
cluster only simulates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.democluster.pbs.job import Job

_SHEPHERD = Path(__file__).with_name("shepherd.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job's processes ended. ``exit_status`` is PBS's: 256 + signal for a killed shell."""

    exit_status: int
    cpu_seconds: float = 0.0
    memory_kib: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's files are and what it finds around itself."""

    spool: Path
    temporary: Path
    home: Path
    environment: Mapping[str, str]


class Runner(ABC):
    """A job's processes."""

    @abstractmethod
    async def run(self, on_start: Callable[[int], None]) -> Outcome:
        """Run to the end; ``on_start`` hears the session id. Cancelling this kills everything."""

    @abstractmethod
    def order(self, line: str) -> None:
        """``term``, ``kill`` or ``say TEXT``."""


class TimerRunner(Runner):
    """No processes: runs until it is told to stop."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    async def run(self, on_start: Callable[[int], None]) -> Outcome:
        """See the base class."""
        on_start(0)
        await self._stopped.wait()
        return Outcome(271)

    def order(self, line: str) -> None:
        """See the base class."""
        if line in ("term", "kill"):
            self._stopped.set()


class ProcessRunner(Runner):
    """Real processes, below a shepherd."""

    def __init__(self, job: Job, place: Place) -> None:
        self.job = job
        self.place = place
        self._process: asyncio.subprocess.Process | None = None
        self._orders: list[str] = []

    def spooled(self, kind: str) -> Path:
        """Where output (``OU``) or error (``ER``) goes while the job runs."""
        direct = "d" in self.job.request.keep and kind[0].lower() in self.job.request.keep
        if direct or (kind == "ER" and self.job.request.join == "oe" and "d" in self.job.request.keep):
            return Path(self.job.path_of("o" if kind == "OU" else "e"))
        return self.place.spool / f"{self.job.job_id}.{kind}"

    async def run(self, on_start: Callable[[int], None]) -> Outcome:
        """See the base class."""
        request = self.job.request
        script = self.place.spool / f"{self.job.job_id}.SC"
        _write_private(script, request.script, 0o700)
        self.place.temporary.mkdir(mode=0o700, exist_ok=True)
        output, error = self.spooled("OU"), self.spooled("ER")
        output, error = {"oe": (output, output), "eo": (error, error)}.get(request.join, (output, error))
        spec = {
            "command": str(script),
            "shell": request.shell.partition(",")[0] or "/bin/bash",
            "folder": str(self.place.home),
            "umask": request.umask,
            "stdout": str(output),
            "stderr": str(error),
            "environment": dict(self.place.environment),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_SHEPHERD), str(os.getpid()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the demonstration's terminal is for the server alone
        )  # fmt: skip
        self._process = process
        try:
            self._send(json.dumps(spec))
            for line in self._orders:
                self._send(line)
            return await self._follow(process, on_start)
        finally:
            await self._end(process)
            script.unlink(missing_ok=True)
            shutil.rmtree(self.place.temporary, ignore_errors=True)

    async def _follow(self, process: asyncio.subprocess.Process, on_start: Callable[[int], None]) -> Outcome:
        if process.stdout is None:
            raise OSError("the shepherd has no pipe")
        async for line in process.stdout:
            report = json.loads(line)
            if "session" in report:
                on_start(report["session"])
            elif "failed" in report:
                return Outcome(-3)  # PBS: output cannot be opened
            elif "exit" in report:
                return Outcome(report["exit"], report["cpu_seconds"], report["memory_kib"])
        return Outcome(265)  # the shepherd itself was killed

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """Closing its stdin lets a shepherd kill the tree and go."""
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        await process.wait()

    def order(self, line: str) -> None:
        """See the base class."""
        if self._process is None:
            self._orders.append(line)
        else:
            self._send(line)

    def _send(self, line: str) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(line.replace("\n", " ").encode("utf-8", "surrogateescape") + b"\n")


def deliver(job: Job, spool: Path, *, home_is_full: bool) -> bool:
    """Move spooled output to where the user wants it, mode 0600. Whether all of it arrived.

    What cannot be delivered stays in ``spool``/undelivered, as on a real execution host.
    """
    delivered = True
    for kind, letter in (("OU", "o"), ("ER", "e")):
        spooled = spool / f"{job.job_id}.{kind}"
        if not spooled.exists():
            continue
        if letter in job.request.remove:
            spooled.unlink()
            continue
        target = Path(job.path_of(letter))
        try:
            if home_is_full or not target.parent.is_dir():
                raise OSError("no room, or no such folder")
            shutil.copyfile(spooled, target)
            if target.is_file():  # "-o /dev/null" is common, and as root this would close the device to everybody
                target.chmod(0o600)
            spooled.unlink()
        except OSError:
            (spool / "undelivered").mkdir(exist_ok=True)
            spooled.replace(spool / "undelivered" / spooled.name)
            delivered = False
    return delivered


def _write_private(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
