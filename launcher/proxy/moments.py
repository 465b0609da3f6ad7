"""Tells apart what is over in a moment from what takes longer, with one timer for all instead of one for each."""

from __future__ import annotations

import asyncio
from typing import Protocol

MOMENT_SECONDS = 0.25
"""A request that takes longer than this, or than twice this at most, is looked after."""


class Lasting(Protocol):
    """What may take longer."""

    def outlast(self) -> None:
        """It does. Called once."""


class Moments:
    """Belongs to one event loop."""

    __slots__ = ("_old", "_timer", "_young")

    def __init__(self) -> None:
        self._young: set[Lasting] = set()
        self._old: set[Lasting] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Lasting) -> None:
        """It begins."""
        self._young.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._tick)

    def discard(self, one: Lasting) -> None:
        """It is over, or needs no looking after any more."""
        self._young.discard(one)
        self._old.discard(one)

    def _tick(self) -> None:
        lasting, self._old, self._young = self._old, self._young, set()
        again = bool(self._old)
        self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._tick) if again else None
        for one in lasting:
            one.outlast()
