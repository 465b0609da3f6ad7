"""How much the far side of a tunnel may send ahead: little at first, more while what comes is taken at once.

What sshd may send ahead of us waits in this process when a browser stops reading, and SSH knows no way to take such a
permission back. A long line needs much of it all the same: a window is what passes in one round trip. So a channel
begins small and doubles its window each time a whole one has come without a long pause. All channels of a connection
share what they may have beyond their beginnings, so that many paused ones stay small whatever was read before.
"""

from __future__ import annotations

from typing import Any, Protocol

from asyncssh.channel import SSHChannel

MOST_BYTES = 2 * 1024 * 1024
"""The largest window of a channel. It is filled up when half of it was used: 20 MB/s over a round trip of 50 ms."""
FIRST_BYTES = 256 * 1024
"""The window of a new channel."""
SHARED_BYTES = 8 * 1024 * 1024
"""As much more than their first windows may all channels of a connection have."""
BULK_BYTES = 4096
"""Pieces below this are not counted: a WebSocket of small messages needs no larger window, nor should it pay for it."""
LONG_SECONDS = 1.0
"""A pause of this length says that the reader, and not the line, is the slow one."""

CAN_GROW = "_init_recv_window" in SSHChannel.__init__.__code__.co_names
"""Whether asyncssh keeps the window where this module changes it. If not, channels have the largest from the start."""
AT_FIRST_BYTES = FIRST_BYTES if CAN_GROW else MOST_BYTES
"""What a channel is opened with."""


class Share(Protocol):
    """What the channels of a connection have in common."""

    lent: int  # bytes of windows beyond the first


class Window:
    """The window of one channel. ``channel`` is asyncssh's."""

    __slots__ = ("_channel", "_extra", "_paused_at", "_share", "_size", "_taken")

    def __init__(self, channel: Any, share: Share) -> None:
        self._channel = channel
        self._share = share
        self._size = AT_FIRST_BYTES
        self._extra = 0  # what of ``lent`` is ours; the far side may still use it after the window has shrunk
        self._taken = 0  # bytes that came since the last change
        self._paused_at = 0.0

    def took(self, count: int) -> None:
        """A piece of at least BULK_BYTES was handed on at once."""
        self._taken += count
        if self._taken < self._size:
            return
        self._taken = 0
        if self._extra > self._size - FIRST_BYTES:  # it has shrunk, and a whole window of the old size may have come
            if self._channel._recv_window <= self._size:
                self._lend(self._size - FIRST_BYTES)
        elif self._size < MOST_BYTES and self._share.lent + self._size <= SHARED_BYTES:
            self._lend(2 * self._size - FIRST_BYTES)
            self._set(2 * self._size)

    def paused(self, now: float) -> None:
        """Reading stops; ``now`` is the loop's time."""
        self._paused_at = now

    def resumed(self, now: float) -> None:
        """Reading goes on. After a long pause with a small window, as at the beginning."""
        if now - self._paused_at > LONG_SECONDS:
            self._taken = 0
            if self._extra:
                self._set(FIRST_BYTES)

    def closed(self) -> None:
        """The channel is gone."""
        self._lend(0)

    def _lend(self, extra: int) -> None:
        self._share.lent += extra - self._extra
        self._extra = extra

    def _set(self, size: int) -> None:
        """From now on the window is filled up to ``size``."""
        self._size = size
        self._channel._init_recv_window = size
