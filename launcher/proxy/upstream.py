"""Our own pool of HTTP/1.1 connections to the servers inside the jobs: some for each session, kept for reuse.

How a transport is opened is the business of a ``Dial``; how many there may be is said by ``Limits``. A request that
finds no room waits its turn, a WebSocket never waits behind a download, and a server that refuses is left alone for a
moment instead of being dialled for every request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from launcher.proxy.access_types import Target
from launcher.proxy.answers import Answers
from launcher.proxy.connection import Connection
from launcher.proxy.errors import UpstreamBusy, UpstreamRefused
from portal.errors import FootbridgeError


class Dial(Protocol):
    """Opens a transport to a target and sets the protocol on it. Raises FootbridgeError, OSError or TimeoutError."""

    async def __call__(
        self, target: Target, protocol_factory: Callable[[], Connection], /
    ) -> tuple[asyncio.Transport, asyncio.Protocol]: ...

    async def aclose(self) -> None:
        """Close what is shared by the transports."""


REMEMBERED_SECONDS = 30.0
"""For so long after a refusal a server is tried by one request at a time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the pool allows. Counts are per session; times are in seconds."""

    connections: int = 64  # at one time, for requests
    waiting: int = 256  # requests that wait for one of those
    sockets: int = 256  # WebSockets at one time
    idle: int = 64  # connections kept open for the next request: as many as a burst has opened, for a moment
    idle_seconds: float = 60.0
    burst_seconds: float = 5.0  # after which only ``idle_after_burst`` of them are left
    idle_after_burst: int = 16
    connect_seconds: float = 15.0
    head_seconds: float = 120.0  # between the last byte sent and the head of the answer
    stall_seconds: float = 300.0  # for a server that stops reading a request's body
    refusal_seconds: float = 1.0  # after a refused connection the next requests are refused without trying


@dataclass(slots=True, eq=False)
class _Slot:
    """The connections to one server."""

    pool: UpstreamPool
    key: tuple[object, ...]
    answers: Answers = field(default_factory=Answers)
    idle: list[Connection] = field(default_factory=list)
    used: set[Connection] = field(default_factory=set)
    sockets: set[Connection] = field(default_factory=set)
    dialing: int = 0
    waiting: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)
    refused_until: float = 0.0
    refusal: str = ""
    is_probed: bool = False  # somebody dials a server that refused before; the others wait for the outcome elsewhere

    @property
    def is_empty(self) -> bool:
        return not (self.idle or self.used or self.sockets or self.dialing or self.waiting)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self.used.discard(connection)
        self.sockets.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.hand_on(None)
        self.pool.tidy(self)

    def hand_on(self, connection: Connection | None) -> bool:
        """Give a connection, or the room for a new one, to whoever has waited longest."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False


class UpstreamPool:
    """Connections to the servers of all sessions. Belongs to one event loop."""

    def __init__(self, dial: Dial, *, limits: Limits = Limits()) -> None:
        self.limits = limits
        self._dial = dial
        self._slots: dict[tuple[object, ...], _Slot] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def kept(self, session_id: str, target: Target) -> Connection | None:
        """A kept connection for one request, if there is one. Pair with ``release``."""
        return self.kept_for(self.key_of(session_id, target))

    def kept_for(self, key: tuple[object, ...]) -> Connection | None:
        """As ``kept``; ``key`` is what ``key_of`` gives."""
        slot = self._slots.get(key)
        while slot is not None and slot.idle:
            connection = slot.idle.pop()
            if connection.is_usable:
                slot.used.add(connection)
                return connection
            connection.abort()
        return None

    async def acquire(self, session_id: str, target: Target, *, fresh: bool = False) -> Connection:
        """A connection for one request. Raises UpstreamRefused or UpstreamBusy. Pair with ``release``."""
        slot = self._slot(session_id, target)
        if not fresh:
            while slot.idle:
                connection = slot.idle.pop()
                if connection.is_usable:
                    slot.used.add(connection)
                    return connection
                connection.abort()
        while len(slot.used) + slot.dialing >= self.limits.connections:
            handed = await self._wait_for_turn(slot)
            if handed is not None:
                if handed.is_usable:
                    return handed
                handed.abort()
            slot = self._slot(session_id, target)  # it may have been forgotten meanwhile
        return await self._dialled(slot, target, slot.used)

    async def open_socket(self, session_id: str, target: Target) -> Connection:
        """A new connection for a WebSocket. Raises as ``acquire``. Close it when done."""
        slot = self._slot(session_id, target)
        if len(slot.sockets) + slot.dialing >= self.limits.sockets:
            raise UpstreamBusy("too many WebSockets of this session")
        return await self._dialled(slot, target, slot.sockets)

    def refuses(self, key: tuple[object, ...]) -> bool:
        """Whether a request would be refused at once, because the server refused a moment ago. ``key``: ``key_of``."""
        slot = self._slots.get(key)
        return slot is not None and bool(slot.refusal) and not slot.idle and self._is_left_alone(slot)

    def release(self, connection: Connection) -> None:
        """Give a connection back. It is kept only if the exchange ended properly on both sides."""
        slot, exchange = cast(_Slot, connection.home), connection.exchange
        connection.exchange = None
        proper = exchange is not None and exchange.complete and exchange.request_sent
        if not proper or not connection.is_usable:
            connection.abort()
            return
        connection.was_used = True
        connection.resume_reading()  # the last browser may have been slow; a paused socket would not notice its end
        if slot.waiting and slot.hand_on(connection):
            return
        slot.used.discard(connection)
        if len(slot.idle) >= self.limits.idle:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        slot.idle.append(connection)
        if self._sweeper is None:
            self._schedule_sweep()

    def drop(self, session_id: str) -> None:
        """Close the idle connections of a session; those in use end with their exchange."""
        for slot in [slot for key, slot in self._slots.items() if key[0] == session_id]:
            for connection in list(slot.idle):
                connection.abort()

    async def aclose(self) -> None:
        """Close everything, in use or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for slot in list(self._slots.values()):
            for connection in [*slot.idle, *slot.used, *slot.sockets]:
                connection.abort()
        await self._dial.aclose()

    @property
    def open_connections(self) -> int:
        """Connections that exist now, idle ones included."""
        return sum(len(slot.idle) + len(slot.used) + len(slot.sockets) for slot in self._slots.values())

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return sum(len(slot.idle) for slot in self._slots.values())

    def tidy(self, slot: _Slot) -> None:
        """Forget a slot in which nothing is left."""
        if slot.is_empty and not slot.refusal:
            self._slots.pop(slot.key, None)

    @staticmethod
    def key_of(session_id: str, target: Target) -> tuple[object, ...]:
        """Which connections may serve requests to this target."""
        return (session_id, target.cluster.id, target.username, target.host, target.port, target.socket)

    @staticmethod
    def _is_left_alone(slot: _Slot) -> bool:
        """Whether a server that refused is not to be dialled now; after a while one request may try, then all."""
        return slot.is_probed or asyncio.get_running_loop().time() < slot.refused_until

    def _slot(self, session_id: str, target: Target) -> _Slot:
        key = self.key_of(session_id, target)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(self, key)
        return slot

    async def _wait_for_turn(self, slot: _Slot) -> Connection | None:
        if len(slot.waiting) >= self.limits.waiting:
            raise UpstreamBusy("too many requests of this session wait for a connection")
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        slot.waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given to us in the same moment
                handed = waiter.result()
                if handed is not None:
                    handed.exchange = None
                    handed.abort()
                else:
                    slot.hand_on(None)
            raise

    async def _dialled(self, slot: _Slot, target: Target, place: set[Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        is_probe = bool(slot.refusal)
        if is_probe:
            if self._is_left_alone(slot):
                raise UpstreamRefused(slot.refusal)
            slot.is_probed = True
        slot.dialing += 1
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                _, protocol = await self._dial(target, lambda: Connection(slot, slot.answers))
        except (FootbridgeError, OSError, TimeoutError) as error:
            slot.refused_until = loop.time() + self.limits.refusal_seconds
            slot.refusal = str(error) or type(error).__name__
            if self._sweeper is None:
                self._schedule_sweep()
            while slot.hand_on(None):  # all who wait hear of it
                pass
            raise UpstreamRefused(slot.refusal) from error
        except BaseException:
            slot.hand_on(None)
            raise
        else:
            connection = cast(Connection, protocol)
            slot.refusal = ""
            if not connection.lost:
                place.add(connection)
            return connection
        finally:
            slot.dialing -= 1
            if is_probe:
                slot.is_probed = False
            self.tidy(slot)

    def _schedule_sweep(self) -> None:
        seconds = max(0.05, min(self.limits.burst_seconds, self.limits.idle_seconds / 2))
        self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close connections that have been idle for too long, and forget old refusals."""
        self._sweeper = None
        moment = asyncio.get_running_loop().time()
        again = False
        for slot in list(self._slots.values()):
            spare = len(slot.idle) - self.limits.idle_after_burst
            for place, connection in enumerate(list(slot.idle)):  # the one that has been idle longest comes first
                allowed = self.limits.burst_seconds if place < spare else self.limits.idle_seconds
                if connection.idle_since + allowed <= moment:
                    connection.abort()
            if slot.refusal and slot.refused_until + REMEMBERED_SECONDS <= moment and not slot.is_probed:
                slot.refusal = ""
            again = again or bool(slot.idle or slot.refusal)
            self.tidy(slot)
        if again:
            self._schedule_sweep()
