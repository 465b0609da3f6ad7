"""What has come through a tunnel and waits, because the protocol paused reading.

asyncssh alone does not bound it: a channel grants the far side a whole new window as soon as the first packet
of a full buffer is handed over, so a protocol that pauses and resumes in small steps would let the buffer
grow for ever. Here the channel is resumed only when nothing waits any more; at most two windows are ever
held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The far side will send no more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The channel is gone."""

    error: Exception | None


Arrival = bytes | EndOfData | Closed


class Pausable(Protocol):
    """The side of a channel that is needed here."""

    def pause_reading(self) -> None:
        """Keep what comes, and grant no more."""
        ...

    def resume_reading(self) -> None:
        """Hand over what was kept, at once."""
        ...


class Inbox:
    """Hands every arrival to ``deliver``, in order, and none while paused. Never calls it from ``pause`` or
    ``resume``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Pausable, deliver: Callable[[Arrival], None]) -> None:
        self.paused = False
        self.handing_over = False  # the channel is handing over what it kept
        self._loop = loop
        self._channel = channel
        self._deliver = deliver
        self._waiting: deque[Arrival] = deque()

    @property
    def holds(self) -> bool:
        """Whether what comes has to wait."""
        return self.paused or bool(self._waiting)

    def put(self, arrival: Arrival) -> None:
        """Something came from the channel."""
        if self.paused or self._waiting:
            self._waiting.append(arrival)
        else:
            self._deliver(arrival)

    def pause(self) -> None:
        """Deliver nothing from now on."""
        self.paused = True
        # Later: in the middle of a hand-over, pausing the channel would leave it with a rest and a new
        # window.
        self._loop.call_soon(self._hold)

    def resume(self) -> None:
        """Deliver again, from the loop's next turn."""
        self.paused = False
        self._loop.call_soon(self._drain)

    def discard(self) -> None:
        """Nobody wants what waits, or what comes."""
        self._waiting.clear()
        self.paused = False

    def _hold(self) -> None:
        if self.paused or self._waiting:  # it may have been resumed meanwhile, and still hold a rest
            self._channel.pause_reading()

    def _drain(self) -> None:
        while self._waiting and not self.paused:
            self._deliver(self._waiting.popleft())
        if not self.paused:
            self.handing_over = True
            self._channel.resume_reading()
            self.handing_over = False
