"""Waiting for a condition, for tests: never for luck. Every wait ends in a failure that says what did not come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

LOOKS_AT_A_STANDSTILL = 5


def wait_for(
    condition: Callable[[], T], *, seconds: float = 60, what: object = "the condition", pause_seconds: float = 0.05
) -> T:
    """The first true value of ``condition``. ``what``: text, or a function that makes it when the time is over."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what() if callable(what) else what}")
        pause.wait(pause_seconds)
    return value


def listens(port: int) -> bool:
    """Whether somebody answers at this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


async def until(condition: Callable[[], object], what: str = "the condition", *, seconds: float = 60) -> None:
    """Wait, inside a loop, until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.01)


async def standstill(count: Callable[[], int], *, seconds: float = 60) -> int:
    """Wait until ``count`` has begun to grow and then grows no more for several looks in a row; what it is then.

    For senders that are to be held back: everything between them and a reader that does not read has filled up.
    """
    deadline = time.monotonic() + seconds
    last, same = 0, 0
    while same < LOOKS_AT_A_STANDSTILL:
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds} s it " + ("still grows" if last else "has not begun"))
        await asyncio.sleep(0.1)
        now = count()
        same = same + 1 if now and now == last else 0
        last = now
    return last
