"""A request and its answer through the proxy by ASGI events: the portable lane, for any ASGI server.

Each piece goes on as it arrives, in both directions at once; a slow side holds the other back; no body is kept whole.
The usual short request costs one task switch: only one that takes longer than a moment is watched for the browser's
leaving, for silence of the server and for the end of its permission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from launcher.proxy.access import AccessCache, Hold
from launcher.proxy.access_types import Target
from launcher.proxy.answers import passing_fields
from launcher.proxy.connection import Connection
from launcher.proxy.errors import AccessEnded, ClientGone, UpstreamBroken, UpstreamError, UpstreamSilent
from launcher.proxy.exchange import Exchange, Head
from launcher.proxy.headers import BadHead, OutgoingRequest
from launcher.proxy.moments import MOMENT_SECONDS, Moments
from launcher.proxy.outgoing import request_of
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import Message, Receive, Send, Visit
from portal.sparselog import SparseLog

breaks = SparseLog(logging.getLogger(__name__))

CONTINUE_SECONDS = 1.0
"""How long a server may take to say 100 Continue before the body is sent without it."""
END_SECONDS = 1.0
"""How long a browser that takes nothing may hold up the end of its permission."""
HTTP10_BYTES = 1024 * 1024
"""An answer of unknown length to an HTTP/1.0 client is held until it is complete, up to so much: such a client knows
no chunks, and an ASGI server would send it some."""

REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS"))


async def forward(
    visit: Visit,
    receive: Receive,
    send: Send,
    *,
    pool: UpstreamPool,
    access: AccessCache,
    moments: Moments[Watch],
    break_off: Callable[[], None],
) -> None:
    """Carry one request. Raises BadHead, UpstreamError or AccessEnded only while nothing has been answered yet.

    ``break_off`` is called before the return where the answer has begun and has no end. ASGI has no word for that: a
    server that offers nothing closes the connection, and notes an error of the application.
    """
    scope = visit.scope
    target = visit.access.target
    assert target is not None
    method: str = scope["method"]
    request = request_of(visit)
    first, whole = b"", not request.has_body
    if request.has_body and not request.expects_continue:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        first, whole = event.get("body", b""), not event.get("more_body", False)
    sender = _Sender(receive, request, first, whole, pool.limits.stall_seconds)
    watch = Watch(visit, sender, access, pool.limits.head_seconds, moments)
    connection: Connection | None = None
    answer = _Answer(send, bare=scope.get("http_version") == "1.0")
    try:
        connection, head = await _ask(method, visit, target, pool, sender, watch)
        await answer.start(head, passing_fields(head, visit))
        while True:
            assert watch.exchange is not None
            piece = await watch.exchange.read()
            at_end = watch.exchange.at_end
            await answer.body(piece, at_end)
            if at_end:
                break
    except ClientGone:
        pass
    except (UpstreamError, AccessEnded, BadHead) as error:
        if not answer.started:
            raise
        # An answer that broke off must look so: no end is written, and the connection is closed.
        breaks.note(f"An answer broke off: {error or type(error).__name__}")
        break_off()
    except OSError:
        pass  # how some servers say that the browser has left
    except asyncio.CancelledError:
        if not watch.was_ended:
            raise
        # We cancelled ourselves: the server is not reached, or the browser took nothing, and it may not stay.
        if not answer.started:
            raise AccessEnded from None
        break_off()
    finally:
        watch.stop()
        if connection is None:
            connection = watch.connection
        if connection is not None:
            pool.release(connection)


async def _ask(
    method: str, visit: Visit, target: Target, pool: UpstreamPool, sender: _Sender, watch: Watch
) -> tuple[Connection, Head]:
    """Send the request and wait for the answer's head.

    A kept connection may have been closed by the server in the same moment. A request without a body that changes
    nothing is then sent once more, over a new connection, provided that not one byte of an answer came.
    """
    repeatable = sender.has_nothing and method in REPEATABLE
    opening = sender.opening()
    fresh = False
    while True:
        connection = await pool.acquire(visit.access.session_id, target, fresh=fresh)
        exchange = connection.start(method, opening)
        watch.take(connection, exchange)
        sender.begin(connection, exchange)
        try:
            return connection, await exchange.head()
        except UpstreamBroken:
            if not (repeatable and connection.was_used and not exchange.got_bytes and not fresh):
                raise
            pool.release(connection)
            fresh = True


class _Answer:
    """What the browser gets."""

    def __init__(self, send: Send, *, bare: bool) -> None:
        self._send = send
        self._bare = bare  # an HTTP/1.0 client
        self._held: tuple[Message, bytearray] | None = None
        self.started = False

    async def start(self, head: Head, fields: list[tuple[bytes, bytes]]) -> None:
        message: Message = {"type": "http.response.start", "status": head.status, "headers": fields}
        if self._bare and head.length is None and head.status not in (204, 304):
            message["headers"] = [*fields]
            self._held = (message, bytearray())
            return
        self.started = True
        await self._send(message)

    async def body(self, piece: bytes, at_end: bool) -> None:
        if self._held is not None:
            message, held = self._held
            held += piece
            if len(held) > HTTP10_BYTES:
                raise BadHead(505, "a long answer of unknown length to an HTTP/1.0 client")
            if not at_end:
                return
            self._held = None
            self.started = True
            message["headers"].append((b"content-length", b"%d" % len(held)))
            await self._send(message)
            piece = bytes(held)
        await self._send({"type": "http.response.body", "body": piece, "more_body": not at_end})


class _Sender:
    """Sends the request's head and body. A body that was not complete at once goes on in a task of its own."""

    def __init__(
        self, receive: Receive, request: OutgoingRequest, first: bytes, whole: bool, stall_seconds: float
    ) -> None:
        self._receive = receive
        self._request = request
        self._first = first
        self._whole = whole
        self._stall_seconds = stall_seconds
        self._sent = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def has_nothing(self) -> bool:
        """Whether the request has no body."""
        return not self._request.has_body

    def opening(self) -> bytes:
        """The head, with the body if all of it is at hand. Raises BadHead if the body is not as long as announced."""
        request = self._request
        if not self._whole or not request.has_body:
            return request.head
        if request.chunked:
            return request.head + _chunk(self._first) + b"0\r\n\r\n"
        if len(self._first) != request.length:
            raise BadHead(400, "a body of another length than announced")
        return request.head + self._first

    def begin(self, connection: Connection, exchange: Exchange) -> None:
        """Go on sending, if something is left."""
        if self._whole:
            exchange.request_sent = True
        else:
            self._task = asyncio.create_task(self._pump(connection, exchange))

    def listen(self, exchange: Exchange) -> None:
        """Wait for the browser's leaving. Where a body is being sent, that is noticed there."""
        if self._task is None and self._whole:
            self._task = asyncio.create_task(self._until_gone(exchange))

    def stop(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _pump(self, connection: Connection, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._request.expects_continue and not await self._is_wanted(exchange):
                # The answer goes out first: a server that is asked for the body before would send 100 Continue.
                await asyncio.sleep(MOMENT_SECONDS)
                await self._until_gone(exchange)
                return
            piece, more = self._first, True
            while True:
                if piece:
                    self._sent += len(piece)
                    connection.write(_chunk(piece) if self._request.chunked else piece)
                    exchange.progress_at = loop.time()
                    if connection.is_congested:
                        await self._drained(connection)
                if not more:
                    break
                piece, more = await self._next()
            if self._request.chunked:
                connection.write(b"0\r\n\r\n")
            elif self._sent != self._request.length:
                raise BadHead(400, "a body of another length than announced")
            exchange.request_sent = True
            exchange.progress_at = loop.time()
            await self._until_gone(exchange)
        except (ClientGone, UpstreamError, BadHead) as error:
            exchange.fail(error)

    async def _is_wanted(self, exchange: Exchange) -> bool:
        """Whether to send the body: the server said 100 Continue, or nothing for a while; not after a final answer."""
        try:
            async with asyncio.timeout(CONTINUE_SECONDS):
                return await exchange.continue_or_head()
        except TimeoutError:
            return True

    async def _drained(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await connection.drain()
        except TimeoutError:
            raise UpstreamSilent("the server takes no more of the body") from None

    async def _next(self) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(self._stall_seconds):
                event = await self._receive()
        except TimeoutError:
            raise BadHead(408, "the body does not go on") from None
        if event["type"] == "http.disconnect":
            raise ClientGone
        return event.get("body", b""), event.get("more_body", False)

    async def _until_gone(self, exchange: Exchange) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        exchange.fail(ClientGone())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Watch:
    """Looks after a request that takes longer than a moment."""

    def __init__(
        self, visit: Visit, sender: _Sender, access: AccessCache, head_seconds: float, moments: Moments[Watch]
    ) -> None:
        self._visit = visit
        self._sender = sender
        self._access = access
        self._head_seconds = head_seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._hold: Hold | None = None
        self._early: Exception | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = False
        self._moments = moments
        moments.add(self)
        self.connection: Connection | None = None
        self.exchange: Exchange | None = None
        self.was_ended = False

    def take(self, connection: Connection, exchange: Exchange) -> None:
        """The exchange to look after from now on."""
        self.connection, self.exchange = connection, exchange
        exchange.progress_at = self._loop.time()
        if self._early is not None:
            exchange.fail(self._early)
        if self._started:
            self._sender.listen(exchange)
            self._expect_head()

    def stop(self) -> None:
        """The request is over."""
        self._moments.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._sender.stop()
        if self._hold is not None:
            self._access.let_go(self._hold)
        if self._end_timer is not None:
            self._end_timer.cancel()

    def outlast(self) -> None:
        """It takes longer than a moment."""
        self._started = True
        visit = self._visit
        self._hold = self._access.hold(visit.label, visit.cookie, visit.access, self._end)
        if self.exchange is not None:
            self._sender.listen(self.exchange)
            self._expect_head()

    def _expect_head(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        if exchange.has_head:
            return
        left = exchange.progress_at + self._head_seconds - self._loop.time()
        if not exchange.request_sent:
            left = self._head_seconds  # it is the browser's turn, and that has a limit of its own
        elif left <= 0:
            exchange.fail(UpstreamSilent("no answer in time"))
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(left, self._expect_head)

    def _end(self) -> None:
        self.was_ended = True
        error = AccessEnded()
        if self.exchange is not None:
            self.exchange.fail(error)
        else:
            self._early = error
        if self._task is not None:
            self._end_timer = self._loop.call_later(END_SECONDS, self._task.cancel)
