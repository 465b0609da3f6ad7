"""Our own HTTP/1.1 client towards the servers inside the jobs: connections, and a pool of them per session.

A ``Connection`` is an asyncio protocol over any transport: a TCP or Unix socket, or a channel of an SSH connection;
the pool's ``dial`` decides. It carries one ``Exchange`` at a time. Nothing is buffered whole: a reader that is slow stops
the transport's reading, a server that is slow stops the writer. The server's bytes are hostile: a head has a limit, two
framings are refused, and whatever is left over after an answer costs the connection.

    UpstreamError
    ├── UpstreamRefused   no connection could be made (transient)
    ├── UpstreamSilent    no answer in time (transient)
    ├── UpstreamBroken    the answer broke off, or is no HTTP
    └── UpstreamBusy      too many requests of this session are waiting (transient)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import httptools

from launcher.proxy.access_types import Target
from portal.errors import FootbridgeError

HIGH_WATER_BYTES = 256 * 1024
"""What is held of an answer that the browser does not take before reading stops."""
MAX_HEAD_BYTES = 128 * 1024
"""The longest head of an answer."""


class UpstreamError(FootbridgeError):
    """The server in the job could not be reached or did not answer properly."""

    code = "upstream.error"


class UpstreamRefused(UpstreamError):
    """No connection could be made."""

    code = "upstream.refused"
    transient = True


class UpstreamSilent(UpstreamError):
    """No answer in time."""

    code = "upstream.silent"
    transient = True


class UpstreamBroken(UpstreamError):
    """The answer broke off, or is no HTTP."""

    code = "upstream.broken"


class UpstreamBusy(UpstreamError):
    """Too many requests of this session are waiting."""

    code = "upstream.busy"
    transient = True


class Dial(Protocol):
    """Opens a transport to a target and sets the protocol on it. Raises FootbridgeError, OSError or TimeoutError."""

    async def __call__(
        self, target: Target, protocol_factory: Callable[[], Connection], /
    ) -> tuple[asyncio.Transport, asyncio.Protocol]: ...

    async def aclose(self) -> None:
        """Close what is shared by the transports."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the pool allows. Counts are per session; times are in seconds."""

    connections: int = 64  # at one time, for requests
    waiting: int = 256  # requests that wait for one of those
    sockets: int = 256  # WebSockets at one time
    idle: int = 16  # connections kept open for the next request
    idle_seconds: float = 60.0
    connect_seconds: float = 15.0
    head_seconds: float = 120.0  # between the last byte sent and the head of the answer
    stall_seconds: float = 300.0  # for a server that stops reading a request's body
    refusal_seconds: float = 1.0  # after a refused connection the next requests are refused without trying


@dataclass(slots=True)
class Head:
    """The head of an answer; names as the server wrote them."""

    status: int
    fields: list[tuple[bytes, bytes]]
    connection: bytes = b""  # the Connection field, joined
    length: int | None = None
    chunked: bool = False

    def get(self, name: bytes) -> bytes:
        """The field's last value, empty when there is none."""
        return next((value for key, value in reversed(self.fields) if key.lower() == name), b"")


class Exchange:
    """One request and its answer. Reading is pulled: ``head``, then ``read`` until it returns no bytes."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_error",
        "_head",
        "_waiters",
        "complete",
        "got_bytes",
        "head_only",
        "may_send",
        "progress_at",
        "request_sent",
        "until_close",
        "wants_upgrade",
    )

    def __init__(self, connection: Connection, *, head_only: bool, wants_upgrade: bool = False) -> None:
        self._connection = connection
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.head_only = head_only  # the answer to HEAD
        self.wants_upgrade = wants_upgrade
        self.until_close = False  # the body ends where the connection does
        self.may_send = False  # 100 Continue came
        self.got_bytes = False  # the server has begun to answer
        self.request_sent = False
        self.complete = False
        self.progress_at = 0.0  # loop time of the last piece of the request's body

    async def head(self) -> Head:
        """The head of the final answer. Raises UpstreamError, or what ``fail`` was given."""
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._head

    async def continue_or_head(self) -> bool:
        """Wait for 100 Continue (True) or the final head (False)."""
        while not self.may_send and self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.may_send and self._head is None

    async def read(self) -> bytes:
        """The next piece of the body, all that has arrived; empty at the end. Raises as ``head`` does."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._wait()
        if self._error is not None:
            raise self._error
        piece = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._buffered >= HIGH_WATER_BYTES:
            self._connection.resume_reading()
        self._buffered = 0
        return piece

    @property
    def has_head(self) -> bool:
        """Whether the final head has come."""
        return self._head is not None

    @property
    def at_end(self) -> bool:
        """Whether the answer is complete and all of it has been read."""
        return self.complete and not self._chunks

    def fail(self, error: Exception) -> None:
        """End the exchange; a reader gets ``error``. Without effect once the answer is complete and read."""
        if self._error is None:
            self._error = error
            self._wake()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)  # the reader, and perhaps a sender that waits for 100 Continue
        await waiter

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # Called by the connection

    def take_head(self, head: Head) -> None:
        self._head = head
        self._wake()

    def take_continue(self) -> None:
        self.may_send = True
        self._wake()

    def take_body(self, data: bytes) -> None:
        self._chunks.append(data)
        before = self._buffered
        self._buffered = before + len(data)
        if before < HIGH_WATER_BYTES <= self._buffered:
            self._connection.pause_reading()
        self._wake()

    def take_end(self) -> None:
        self.complete = True
        self._wake()


class Tunnel(Protocol):
    """What takes over a connection after an upgrade."""

    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to a server in a job."""

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        self._upgraded = False
        self._after_upgrade = b""  # what came right behind the answer to a handshake
        self.was_used = False
        self.lost = False
        self.keep_alive = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._stale_parser = False  # it waits for a body that does not come
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = True
        self._surplus = False  # the server sent what nobody asked for
        self._read_paused = False
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None

    # Sending

    def start(self, method: str, head: bytes, *, wants_upgrade: bool = False) -> Exchange:
        """Send a request's head (with its body, where that is at hand) and return the exchange."""
        if self._stale_parser:
            self._parser = httptools.HttpResponseParser(self)
            self._stale_parser = False
        self._fields = []
        self._head_bytes = 0
        self._in_head = True
        exchange = self.exchange = Exchange(self, head_only=method == "HEAD", wants_upgrade=wants_upgrade)
        if self.lost:
            exchange.fail(UpstreamBroken("the connection had been closed"))
        else:
            self.write(head)
        return exchange

    def write(self, data: bytes) -> None:
        """Send bytes; follow with ``drain`` where there may be many."""
        if self.transport is not None and not self.lost:
            self.transport.write(data)

    def attach(self, tunnel: Tunnel) -> None:
        """Give all further bytes to ``tunnel``, beginning with those behind the answer to the handshake."""
        self.tunnel = tunnel
        early, self._after_upgrade = self._after_upgrade, b""
        if early:
            tunnel.data_received(early)
        if self.lost:
            tunnel.connection_lost()
        self.resume_reading()

    @property
    def is_congested(self) -> bool:
        """Whether the server takes less than was sent."""
        return self._write_paused

    async def drain(self) -> None:
        """Wait until the server has taken most of what was sent. Returns also when the connection is lost."""
        while self._write_paused and not self.lost:
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def pause_reading(self) -> None:
        """Take no more from the server for now."""
        if not self._read_paused and not self.lost and self.transport is not None:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the server again."""
        if self._read_paused and not self.lost and self.transport is not None:
            self._read_paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """Close after what was written is sent."""
        if self.transport is not None and not self.lost:
            self.transport.close()

    def finish(self, seconds: float) -> None:
        """Close after what was written is sent, but within ``seconds``."""
        if self.transport is not None and not self.lost:
            self.transport.close()
            asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent."""
        return (
            not self.lost
            and self.keep_alive
            and not self._surplus
            and not self._write_paused
            and self.transport is not None
            and not self.transport.is_closing()
        )

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.data_received(data)
            return
        exchange = self.exchange
        if exchange is None:
            self._surplus = True
            self.abort()
            return
        if self._upgraded:
            self._after_upgrade += data  # a transport may hand over what it holds even after a pause
            return
        exchange.got_bytes = True
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade = data[upgrade.args[0] :]
            if exchange.wants_upgrade:
                self._upgraded = True
                self.pause_reading()  # until somebody attaches a tunnel
            else:
                self._break("an upgrade nobody asked for")
        except httptools.HttpParserError as error:
            self._break(f"no HTTP: {error}")
        else:
            if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._break("the head is too long")

    def eof_received(self) -> bool | None:
        self._end_of_stream(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._end_of_stream(exc)
        if self.tunnel is not None:
            self.tunnel.connection_lost()
        self.slot.forget(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _end_of_stream(self, exc: Exception | None) -> None:
        exchange = self.exchange
        self.keep_alive = False
        if exchange is None or exchange.complete:
            return
        if exchange.until_close and exc is None and not self._in_head:
            exchange.take_end()
        else:
            exchange.fail(UpstreamBroken("the connection was closed before the end of the answer"))

    def _break(self, detail: str) -> None:
        self.keep_alive = False
        if self.exchange is not None and not self.exchange.complete:
            self.exchange.fail(UpstreamBroken(detail))
        self.abort()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self.exchange is None or self.exchange.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after it, these are trailers: they belong to this hop
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:
            self._surplus = True
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            if status == 100:
                exchange.take_continue()
            self._fields = []
            return  # the final head follows
        self._in_head = False
        head = Head(status, self._fields)
        problem = self._frame(head)
        if problem:
            # Not now: httptools is in the middle of this very piece of data.
            exchange.fail(UpstreamBroken(problem))
            self._surplus = True
            asyncio.get_running_loop().call_soon(self.abort)
            return
        exchange.take_head(head)
        if status == 101:
            return
        if exchange.head_only or status in (204, 304):
            self._stale_parser = True
            exchange.take_end()
        elif not head.chunked and head.length is None:
            exchange.until_close = True
            self.keep_alive = False

    def _frame(self, head: Head) -> str:
        """Read how the body is framed and whether the connection stays. Returns what is wrong, if something is."""
        connection: list[bytes] = []
        for name, value in head.fields:
            lower = name.lower()
            if lower == b"content-length":
                if head.length is not None or not value.isdigit() or len(value) > 18:
                    return "no usable content length"
                head.length = int(value)
            elif lower == b"transfer-encoding":
                if head.chunked or value.lower() != b"chunked":
                    return "a transfer coding other than chunked"
                head.chunked = True
            elif lower == b"connection":
                connection.append(value)
        if head.chunked and head.length is not None:
            return "two framings in one answer"
        if not 100 <= head.status < 600:
            return "no status of HTTP"
        if head.status == 101 and self.exchange is not None and not self.exchange.wants_upgrade:
            return "an upgrade nobody asked for"
        head.connection = b",".join(connection)
        options = head.connection.lower()
        if self._parser.get_http_version() == "1.1":
            self.keep_alive = b"close" not in options
        else:
            self.keep_alive = b"keep-alive" in options
        return ""

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:
            self._surplus = True
        else:
            exchange.take_body(body)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is not None and not self._in_head and not exchange.complete and not self._surplus:
            exchange.take_end()


@dataclass(slots=True, eq=False)
class _Slot:
    """The connections to one server."""

    pool: UpstreamPool
    key: tuple[object, ...]
    idle: list[Connection] = field(default_factory=list)
    used: set[Connection] = field(default_factory=set)
    sockets: set[Connection] = field(default_factory=set)
    dialing: int = 0
    waiting: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)
    refused_until: float = 0.0
    refusal: str = ""

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
            if handed is not None and handed.is_usable:
                return handed
        return await self._dialled(slot, target, slot.used)

    async def open_socket(self, session_id: str, target: Target) -> Connection:
        """A new connection for a WebSocket. Raises as ``acquire``. Close it when done."""
        slot = self._slot(session_id, target)
        if len(slot.sockets) + slot.dialing >= self.limits.sockets:
            raise UpstreamBusy("too many WebSockets of this session")
        return await self._dialled(slot, target, slot.sockets)

    def release(self, connection: Connection) -> None:
        """Give a connection back. It is kept only if the exchange ended properly on both sides."""
        slot, exchange = connection.slot, connection.exchange
        connection.exchange = None
        proper = exchange is not None and exchange.complete and exchange.request_sent
        if not proper or not connection.is_usable:
            connection.abort()
            return
        connection.was_used = True
        connection.resume_reading()  # the last browser may have been slow; a paused socket would not notice its end
        if slot.hand_on(connection):
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

    def _slot(self, session_id: str, target: Target) -> _Slot:
        key = (session_id, target.cluster.id, target.username, target.host, target.port)
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
        if slot.refusal:
            if loop.time() < slot.refused_until:
                raise UpstreamRefused(slot.refusal)
            slot.refusal = ""
        slot.dialing += 1
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                _, protocol = await self._dial(target, lambda: Connection(slot))
        except (FootbridgeError, OSError, TimeoutError) as error:
            slot.refused_until = loop.time() + self.limits.refusal_seconds
            slot.refusal = str(error) or type(error).__name__
            if self._sweeper is None:
                self._schedule_sweep()
            slot.hand_on(None)
            raise UpstreamRefused(slot.refusal) from error
        except BaseException:
            slot.hand_on(None)
            raise
        finally:
            slot.dialing -= 1
        connection = cast(Connection, protocol)
        if not connection.lost:
            place.add(connection)
        return connection

    def _schedule_sweep(self) -> None:
        seconds = max(0.05, min(5.0, self.limits.idle_seconds / 2))
        self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close connections that have been idle for too long, and forget old refusals."""
        self._sweeper = None
        moment = asyncio.get_running_loop().time()
        again = False
        for slot in list(self._slots.values()):
            for connection in list(slot.idle):
                if connection.idle_since + self.limits.idle_seconds <= moment:
                    connection.abort()
            if slot.refusal and slot.refused_until <= moment:
                slot.refusal = ""
            again = again or bool(slot.idle or slot.refusal)
            self.tidy(slot)
        if again:
            self._schedule_sweep()

