"""Turns of the event loop between a quick sender and everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FULL_READ_BYTES = 256_000
"""What uvloop reads at a time. While it gets that many it reads on, up to 32 times, and nobody else has a turn: with a
quick sender for ten milliseconds."""


def give_way(transport: asyncio.Transport, is_held: Callable[[], bool]) -> None:
    """Read on from the next turn. To be called with each full read; ``is_held``: something else stops reading."""
    transport.pause_reading()
    asyncio.get_running_loop().call_soon(_read_on, transport, is_held)


def _read_on(transport: asyncio.Transport, is_held: Callable[[], bool]) -> None:
    if not is_held() and not transport.is_closing():
        transport.resume_reading()
