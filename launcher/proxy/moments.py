"""Tells apart what is over in a moment from what takes longer, with one timer for all instead of one for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MOMENT_SECONDS = 0.25
"""A request that takes longer than this, or than twice this at most, is looked after."""

One = TypeVar("One", bound=Hashable)


class Moments(Generic[One]):
    """Belongs to one event loop. ``outlasted`` is called once for each that takes longer."""

    __slots__ = ("_old", "_outlasted", "_timer", "_young")

    def __init__(self, outlasted: Callable[[One], object]) -> None:
        self._outlasted = outlasted
        self._young: set[One] = set()
        self._old: set[One] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: One) -> None:
        """It begins."""
        self._young.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._tick)

    def discard(self, one: One) -> None:
        """It is over, or needs no looking after any more."""
        self._young.discard(one)
        self._old.discard(one)

    def _tick(self) -> None:
        lasting, self._old, self._young = self._old, self._young, set()
        again = bool(self._old)
        self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._tick) if again else None
        for one in lasting:
            self._outlasted(one)
