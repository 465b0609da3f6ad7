"""Keeps the portal polite: at most so many scheduler commands a second on one login host.

Every PBS command holds a reserved port of the login host for a minute, so a portal that asks too often takes them away
from everybody else. A command that comes too early waits for its turn; none is refused. Counted per process: a site
with several workers divides the number among them.
"""

from __future__ import annotations

import asyncio


class Budget:
    """Turns for ``per_second`` commands; up to a second's worth may come at once."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._burst = max(1.0, per_second) * self._interval
        self._next_turn = 0.0
        self.waited_seconds = 0.0  # in all, by all commands

    async def take_turn(self) -> None:
        """Return when the next command may run. Turns are given in the order of asking."""
        now = asyncio.get_running_loop().time()
        self._next_turn = max(self._next_turn, now - self._burst) + self._interval
        wait = self._next_turn - now
        if wait > 0:
            self.waited_seconds += wait
            await asyncio.sleep(wait)
