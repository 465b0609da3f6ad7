"""The live WebSockets of this web process, so that news of access taken away reaches them as it reaches the proxy's.

Belongs to the process's one event loop, on which both the news and the consumers run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol


class LiveSocket(Protocol):
    """An open page's socket."""

    user_id: int

    def check(self) -> Awaitable[None]:
        """Look again whether it may stay, and close it if not."""


MOST_FOR_A_PERSON = 200
"""Open pages of one person that hear news at once, in one process: more than anybody looks at, and no flood."""

_open: set[LiveSocket] = set()
_checks: set[asyncio.Future[None]] = set()


def add(socket: LiveSocket) -> None:
    """It is open from now on. Pair with ``remove``."""
    _open.add(socket)


def has_room(*, user_id: int) -> bool:
    """Whether one more socket of this person may be open."""
    return sum(socket.user_id == user_id for socket in _open) < MOST_FOR_A_PERSON


def remove(socket: LiveSocket) -> None:
    """It has closed."""
    _open.discard(socket)


def drop(*, user_id: int | None = None) -> None:
    """Something about a person's rights has changed; without one: about anybody's. Open sockets look again."""
    for socket in [socket for socket in _open if user_id is None or socket.user_id == user_id]:
        check = asyncio.ensure_future(socket.check())
        _checks.add(check)
        check.add_done_callback(_checks.discard)
