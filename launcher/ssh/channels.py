"""What is going on over one connection: how many tunnels, and a turn for every command.

sshd allows ten sessions (commands and SFTP) over a connection unless its ``MaxSessions`` says otherwise, and
its own loop slows down with every open channel. So sessions take turns, and the pool opens another connection
before one is crowded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncssh

from launcher.ssh.errors import TimedOut, Unreachable

T = TypeVar("T")

MOST_UNANSWERED = 250
"""Tunnels of a connection that the host was asked for and has not said a word about, in time. Such a connection gets no
further ones: each costs a few kilobytes until the host answers or the connection ends.
"""
MAX_SESSIONS = 8
"""Commands and SFTP sessions at one time over one connection: OpenSSH's default of 10, less two in
reserve.
"""


@dataclass(slots=True, eq=False)
class Channels:
    """The state of one connection."""

    tunnels: int = 0
    opening: int = 0  # tunnels that were asked for
    sessions: int = 0
    unanswered: int = 0  # tunnels that nobody waits for any more, and which the host may still open
    lent: int = 0  # bytes; see ``windows``
    used_at: float = field(default_factory=time.monotonic)  # monotonic seconds
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SESSIONS))

    @property
    def open(self) -> int:
        """Channels in use, or waiting for their turn."""
        return self.tunnels + self.opening + self.sessions

    def touch(self) -> None:
        """Note that the connection was used now."""
        self.used_at = time.monotonic()

    def tunnel_opened(self) -> None:
        """Count one more tunnel."""
        self.tunnels += 1
        self.touch()

    def tunnel_closed(self) -> None:
        """Count one tunnel less."""
        self.tunnels -= 1
        self.touch()


_channels: WeakKeyDictionary[asyncssh.SSHClientConnection, Channels] = WeakKeyDictionary()


def channels_of(connection: asyncssh.SSHClientConnection) -> Channels:
    """The state of ``connection``; the same object every time."""
    found = _channels.get(connection)
    if found is None:
        found = _channels[connection] = Channels()
    return found


@asynccontextmanager
async def session_turn(connection: asyncssh.SSHClientConnection, timeout_seconds: float) -> AsyncIterator[None]:
    """Wait for a turn to open a session, and keep it. Raises TimedOut."""
    channels = channels_of(connection)
    channels.sessions += 1
    try:
        try:
            async with asyncio.timeout(timeout_seconds):
                await channels.turns.acquire()
        except TimeoutError:
            raise TimedOut(f"{MAX_SESSIONS} commands of this user were still running") from None
        try:
            yield
        finally:
            channels.turns.release()
    finally:
        channels.sessions -= 1
        channels.touch()


async def session_opened(
    connection: asyncssh.SSHClientConnection,
    opening: Callable[[], Coroutine[Any, Any, T]],
    *,
    timeout_seconds: float,
    give_back: Callable[[T], None],
    what: str,
) -> T:
    """A session over ``connection``, in one's turn. Raises TimedOut, Unreachable.

    sshd frees the place of a session only when its process is gone, a moment after we saw its end, and refuses a new
    one until then: nothing was started yet, so it is asked again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    pause_seconds = 0.02
    while True:
        try:
            return await opened(
                opening(), timeout_seconds=max(0.0, deadline - loop.time()), give_back=give_back, what=what
            )
        except asyncssh.ChannelOpenError as error:
            if connection.is_closed() or loop.time() + pause_seconds > deadline:
                raise Unreachable(f"{what} could not be started: {error.reason}") from None
        except (asyncssh.Error, OSError) as error:
            raise Unreachable(f"{what} could not be started: {error}") from None
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(0.5, pause_seconds * 2)


async def opened(
    opening: Coroutine[Any, Any, T], *, timeout_seconds: float, give_back: Callable[[T], None], what: str
) -> T:
    """Wait for a channel to open. Raises TimedOut.

    A channel that is opened after nobody waits for it any more (timeout, cancellation) goes to ``give_back``.
    Cancelling the coroutine instead would leave asyncssh with an open channel that nobody knows and that only
    the connection's end would close.
    """
    task = asyncio.ensure_future(opening)

    def late(task: asyncio.Task[T]) -> None:
        if not task.cancelled() and task.exception() is None:
            give_back(task.result())

    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
    except asyncio.CancelledError:
        task.add_done_callback(late)
        raise
    if not done:
        task.add_done_callback(late)
        raise TimedOut(f"no answer within {timeout_seconds:g} s: {what}")
    return task.result()
