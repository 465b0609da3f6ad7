"""How much the system itself may hold of what passes through a TCP connection.

Left alone, Linux lets megabytes pile up on each side of the proxy before the other end feels that a reader stopped.
Both bounds leave a fast connection fast: they are above what one has under way within a data centre's round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

UNSENT_BYTES = 1 << 20
"""Of what was given to the system to be sent, as much may wait for its turn."""

AHEAD_BYTES = 1 << 20
"""As much may the other side send ahead of us, where the system's own limit (net.core.rmem_max) is not lower."""

NEAR_AHEAD_BYTES = 1 << 17
"""The same for a server in our own network. Linux doubles it, and even so no read of uvloop is full: with more, one
quick download held everybody's frames up for ten milliseconds, as ``launcher.proxy.turns`` tells."""


def bound_unsent(transport: asyncio.BaseTransport) -> None:
    """Let little wait in the system on its way out. Nothing happens where the system knows no such bound."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        _set(transport, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def bound_ahead(transport: asyncio.BaseTransport, most_bytes: int = AHEAD_BYTES) -> None:
    """Let the other side send little ahead of what we read."""
    _set(transport, socket.SOL_SOCKET, socket.SO_RCVBUF, most_bytes)


def _set(transport: asyncio.BaseTransport, level: int, option: int, value: int) -> None:
    link = transport.get_extra_info("socket")
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            link.setsockopt(level, option, value)
