"""Kills the demo's processes and lets its cluster misbehave, one thing after another, in an order that a seed decides.

Each kind of harm comes once before any comes again. The supervisor restarts what was killed; a process that died twice
within seconds is left in peace for a while, because a supervisor gives up on what keeps dying.
"""

from __future__ import annotations

import collections
import datetime as dt
import os
import random
import signal
import time
from pathlib import Path

from launcher.demo.keeper import descendants
from launcher.demo.supervisor import QUICK_DEATH_SECONDS
from launcher.democluster import faults
from tests.demo_process import StartedDemo
from tests.waiting import wait_for

MARKS = {"worker": "--app portal worker", "beat": "--app portal beat", "web": "portal.asgi:application"}
VALKEY = "valkey"
KILLS = ("worker", "worker", "web", "beat", VALKEY)
FAULTS = (
    "scheduler=down",
    "scheduler=hung",
    "scheduler=slow",
    "scheduler=garbled",
    "qsub_answer=lost",
    "qsub_answer=lost_connection",
    "login=gone",
)
FAULT_SECONDS = (2.0, 6.0)


class Monkey:
    """Harm to one demo. ``done`` counts what was done to it."""

    def __init__(self, demo: StartedDemo, dice: random.Random) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self.worker_died_at: dt.datetime | None = None  # every claim made before belongs to a worker that is no more
        self._demo = demo
        self._dice = dice
        self._deck: list[str] = []
        self._ends_at: dict[str, float] = {}  # by the name of a fault
        self._killed_at: dict[str, list[float]] = collections.defaultdict(list)

    @property
    def not_done(self) -> set[str]:
        """The kinds of harm that were not done yet."""
        return {*FAULTS, *(f"kill {name}" for name in KILLS)} - set(self.done)

    def act(self) -> None:
        """Do the next harm."""
        if not self._deck:
            self._deck = [*FAULTS, *(f"kill {name}" for name in KILLS)]
            self._dice.shuffle(self._deck)
        for index, harm in enumerate(self._deck):
            if self._do(harm):
                del self._deck[index]
                self.done[harm] += 1
                return

    def _do(self, harm: str) -> bool:
        """Whether it could be done now."""
        if harm.startswith("kill "):
            return self._kill(harm.removeprefix("kill "))
        name = harm.partition("=")[0]
        if name in self._ends_at:
            return False
        faults.ask(self._demo.folder.cluster, [harm])
        self._ends_at[name] = time.monotonic() + self._dice.uniform(*FAULT_SECONDS)
        return True

    def heal(self, *, everything: bool = False) -> None:
        """Switch off the faults whose time is over."""
        moment = time.monotonic()
        for name, ends_at in list(self._ends_at.items()):
            if everything or moment >= ends_at:
                faults.ask(self._demo.folder.cluster, [f"{name}=ok"])
                del self._ends_at[name]

    def _kill(self, name: str) -> bool:
        lately = [at for at in self._killed_at[name] if time.monotonic() - at < 2 * QUICK_DEATH_SECONDS]
        pid = self._pid_of(name)
        if len(lately) >= 2 or pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), what=f"the end of {name}", pause_seconds=0.01)
        self._killed_at[name].append(time.monotonic())
        if name == "worker":
            self.worker_died_at = dt.datetime.now(dt.UTC)
        return True

    def _pid_of(self, name: str) -> int | None:
        """The process itself, not its keeper. None while it is being started again."""
        for pid in descendants(self._demo.running.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if any(word.endswith("keeper.py") for word in words):
                continue
            line = " ".join(words)
            if (name == VALKEY and "valkey-server" in words[0]) or (name in MARKS and MARKS[name] in line):
                return pid
        return None
