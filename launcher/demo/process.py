"""One process of the demo, with its log file. It runs below a keeper (``keeper``), so nothing of it is
left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from portal.conf import PROJECT

KEEPER = Path(__file__).with_name("keeper.py")
OLD_LOGS = 3


def rotate(log: Path) -> None:
    """Move the log of the last start to ``.1``, that one to ``.2``, and so on; the oldest goes."""
    for number in range(OLD_LOGS, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)


class Process:
    """A command that can be started again. Everything it prints goes to its log."""

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        grace_seconds: float,
    ) -> None:
        self.name = name
        self.log = log
        self.started_at = 0.0  # time.monotonic()
        self._command = tuple(command)
        self._environment = dict(environment)
        self._grace_seconds = grace_seconds
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    def start(self) -> None:
        """Start it, or start it again. Must be called from the main thread: the keeper watches the calling
        thread.
        """
        with self.log.open("ab") as output:
            self._log_offset = output.tell()
            self.started_at = time.monotonic()
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-IS",
                    str(KEEPER),
                    str(os.getpid()),
                    str(self._grace_seconds),
                    *self._command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=PROJECT,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )

    @property
    def exit_code(self) -> int | None:
        """Its exit code (128 + n for signal n), ``None`` while it runs or before its first start."""
        return None if self._popen is None else self._popen.poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def ask_to_stop(self) -> None:
        """Ask its keeper to stop it; the keeper kills it after its time of grace."""
        if self._popen is not None:
            self._popen.send_signal(signal.SIGTERM)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for its end, and that of everything below it. Whether it has ended."""
        if self._popen is None:
            return True
        try:
            self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the keeper at once; its process goes with it. For when a stop takes too long."""
        if self._popen is not None:
            self._popen.kill()

    def output(self) -> str:
        """What it has printed since its last start."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset)
            return file.read().decode("utf-8", "replace")

    def last_lines(self, count: int) -> list[str]:
        """The end of what it printed since its last start."""
        return self.output().splitlines()[-count:]
