"""Keeps the portal polite: at most so many scheduler commands a second on one login host.

Every PBS command holds a reserved port of the login host for a minute, so a portal that asks too often takes them away
from everybody else. A command that comes too early waits for its turn; one that would wait too long is told so. The
turns of all processes are given by a shared store, which the caller hands in; while that is away each process keeps to
the budget by itself. Both count by the generic cell rate algorithm.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from launcher.ssh.errors import TooBusy

LONGEST_WAIT_SECONDS = 30.0
"""A command whose turn is further away than this is not asked at all: whoever wants it hears so and comes again."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a store of turns answers. Not ``is_given``: the wait would be longer than wanted, and no turn was taken."""

    is_given: bool
    wait_seconds: float


class TurnsAway(Exception):
    """The shared store of turns does not answer."""


class Turns(Protocol):
    """A store of turns that several processes share."""

    async def take(self, host: str, per_second: float, longest_wait_seconds: float) -> Turn:
        """The next turn on ``host`` (any text that names it), in one step for all who ask. Raises TurnsAway."""


class OwnTurns:
    """Turns of this process alone."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}  # by host: when the budget will be whole again, in the loop's time

    async def take(self, host: str, per_second: float, longest_wait_seconds: float) -> Turn:
        """See ``Turns``. Never raises."""
        now, interval = asyncio.get_running_loop().time(), 1 / per_second
        last = max(self._next.get(host, 0.0), now - burst_seconds(per_second)) + interval
        wait = max(0.0, last - now)
        if wait > longest_wait_seconds:
            return Turn(is_given=False, wait_seconds=wait)
        self._next[host] = last
        return Turn(is_given=True, wait_seconds=wait)


def burst_seconds(per_second: float) -> float:
    """How much time may be saved up: a second's worth of commands, and always one, may come at once."""
    return max(1.0, per_second) / per_second


class Budget:
    """Gives turns on login hosts: by the shared store where it answers, else by this process's own count."""

    def __init__(self, shared: Turns | None = None) -> None:
        self._shared = shared
        self._own = OwnTurns()

    async def take_turn(
        self, host: str, per_second: float, *, longest_wait_seconds: float = LONGEST_WAIT_SECONDS
    ) -> None:
        """Return when the next command may run on ``host``. Turns are given in the order of asking.

        Raises TooBusy at once where the turn is further away than ``longest_wait_seconds``.
        """
        turn = await self._turn(host, per_second, longest_wait_seconds)
        if not turn.is_given:
            raise TooBusy(
                f"{host}: {per_second:g} commands a second are allowed, and the next turn is in"
                f" {turn.wait_seconds:.1f} s",
                params={"wait_seconds": round(turn.wait_seconds, 1)},
            )
        if turn.wait_seconds > 0:
            await asyncio.sleep(turn.wait_seconds)

    async def _turn(self, host: str, per_second: float, longest_wait_seconds: float) -> Turn:
        if self._shared is not None:
            try:
                return await self._shared.take(host, per_second, longest_wait_seconds)
            except TurnsAway:
                pass
        return await self._own.take(host, per_second, longest_wait_seconds)
