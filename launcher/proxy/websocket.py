"""A WebSocket through the proxy by ASGI events: the portable lane, for any ASGI server.

The server in the job is asked first; the browser is accepted with the subprotocol that server chose, or refused with
the status it gave. Then whole messages go both ways, each side answers its own pings, a slow side holds the other back,
and the close code and reason travel in both directions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
from collections import deque
from collections.abc import Sequence

from launcher.proxy.access import AccessCache
from launcher.proxy.access_types import Target
from launcher.proxy.connection import Connection
from launcher.proxy.errors import AccessEnded, ClientGone, UpstreamBroken
from launcher.proxy.exchange import HIGH_WATER_BYTES, Exchange, Head
from launcher.proxy.frames import (
    BINARY,
    CLOSE,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Event,
    FrameError,
    FrameReader,
    close_payload,
    frame,
    read_close,
)
from launcher.proxy.headers import incoming_response
from launcher.proxy.outgoing import ask_to_upgrade, handshake_of
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import Receive, Send, Visit

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""The longest message from a server in a job. ASGI hands on whole messages, so there has to be an end somewhere."""
LARGE_MESSAGES = "footbridge.large_messages"
"""An ASGI extension: what to call where browsers' messages may be long. Other servers have limits of their own."""
CLOSE_SECONDS = 2.0
"""How long either side may take to answer a close frame."""
REFUSAL_BYTES = 64 * 1024
"""How much of the body of a refused handshake goes on to the browser."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_NOT_FOR_ACCEPT = frozenset((b"content-length", b"content-type", b"date", b"server"))


async def forward(visit: Visit, receive: Receive, send: Send, *, pool: UpstreamPool, access: AccessCache) -> None:
    """Carry one WebSocket, whose connect event has been received.

    Raises BadHead or UpstreamError only while the browser has been neither accepted nor refused.
    """
    target = visit.access.target
    assert target is not None
    offered: list[str] = list(visit.scope.get("subprotocols") or ())
    key = base64.b64encode(secrets.token_bytes(16))
    opening = handshake_of(visit, key=key, subprotocols=offered)
    connection = await pool.open_socket(visit.access.session_id, target)
    try:
        exchange, head = await ask_to_upgrade(connection, opening, pool.limits.head_seconds, receive)
        if head.status != 101:
            await refuse(visit, send, exchange, head, target)
            return
        subprotocol = proper_answer(head, key, offered)
        if head.get(b"sec-websocket-extensions"):
            raise UpstreamBroken("an extension nobody offered")
        fields = [
            (name, value)
            for name, value in passing_fields(visit, head, target)
            if name not in _NOT_FOR_ACCEPT and not name.startswith(b"sec-websocket-")
        ]
        upstream = UpstreamSocket(connection)
        take_large = (visit.scope.get("extensions") or {}).get(LARGE_MESSAGES)
        if take_large is not None:
            take_large()
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": fields})
        except OSError:
            return  # the browser has left meanwhile
        connection.attach(upstream)
        await _carry(visit, receive, send, upstream, access)
    except ClientGone:
        connection.abort()
    finally:
        connection.finish(CLOSE_SECONDS)


def passing_fields(visit: Visit, head: Head, target: Target) -> list[tuple[bytes, bytes]]:
    return incoming_response(
        head.status,
        head.fields,
        connection=head.connection,
        origin=visit.origin,
        upstream_authority=f"{target.host}:{target.port}".encode(),
    )


def proper_answer(head: Head, key: bytes, offered: Sequence[str]) -> str | None:
    """The subprotocol the server chose. Raises UpstreamBroken where its answer is no proper handshake."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324  # the protocol wants SHA-1
    if (
        head.get(b"upgrade").lower() != b"websocket"
        or b"upgrade" not in head.connection.lower()
        or head.get(b"sec-websocket-accept") != accept
    ):
        raise UpstreamBroken("no proper answer to a handshake")
    chosen = head.get(b"sec-websocket-protocol").decode("latin-1")
    if chosen and chosen not in offered:
        raise UpstreamBroken("a subprotocol nobody offered")
    return chosen or None


async def refuse(visit: Visit, send: Send, exchange: Exchange, head: Head, target: Target) -> None:
    """Answer the browser's handshake as the server answered ours."""
    body = b""
    while len(body) < REFUSAL_BYTES:
        piece = await exchange.read()
        if not piece:
            break
        body += piece
    body = body[:REFUSAL_BYTES]
    if "websocket.http.response" not in (visit.scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})  # the ASGI server answers 403
        return
    fields = [
        (name, value)
        for name, value in passing_fields(visit, head, target)
        if name not in (b"content-length", b"content-encoding", b"date", b"server")
        and not name.startswith(b"sec-websocket-")
    ]
    fields.append((b"content-length", b"%d" % len(body)))
    await send({"type": "websocket.http.response.start", "status": head.status, "headers": fields})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


async def _carry(visit: Visit, receive: Receive, send: Send, upstream: UpstreamSocket, access: AccessCache) -> None:
    browser = asyncio.create_task(_from_browser(receive, upstream))
    browser.add_done_callback(upstream.browser_done)
    ending = _Ending(upstream)
    hold = access.hold(visit.label, visit.cookie, visit.access, ending.begin)
    try:
        while True:
            event = await upstream.next()
            if event.opcode == TEXT:
                await send({"type": "websocket.send", "text": event.data.decode("utf-8")})
            elif event.opcode == BINARY:
                await send({"type": "websocket.send", "bytes": event.data})
            else:
                code, reason = read_close(event.data)
                upstream.send_close(code, reason)
                if not browser.done():
                    await send(
                        {"type": "websocket.close", "code": 1000 if code == NO_STATUS else code, "reason": reason}
                    )
                return
    except (AccessEnded, FrameError, UnicodeDecodeError) as error:
        code = 1008 if isinstance(error, AccessEnded) else getattr(error, "code", 1007)
        upstream.send_close(1001 if isinstance(error, AccessEnded) else code)
        if not browser.done():
            await send({"type": "websocket.close", "code": code, "reason": ""})
    except UpstreamBroken:
        pass  # no close frame came: we send none either, and the server ends the browser's connection
    except ClientGone:
        pass
    except OSError:  # how some servers say that the browser has left
        upstream.send_close(1001)
    except asyncio.CancelledError:
        if not ending.has_begun:
            raise
        # We cancelled ourselves: the browser took nothing and may not stay.
    finally:
        ending.cancel()
        access.let_go(hold)
        browser.cancel()


async def _from_browser(receive: Receive, upstream: UpstreamSocket) -> None:
    """Hand the browser's messages to the server, and at the end its close code."""
    while True:
        event = await receive()
        if event["type"] == "websocket.receive":
            text = event.get("text")
            if text is not None:
                upstream.send(TEXT, text.encode("utf-8"))
            else:
                upstream.send(BINARY, event["bytes"])
            if upstream.is_congested:
                await upstream.drain()
        elif event["type"] == "websocket.disconnect":
            upstream.send_close(event.get("code", NO_STATUS), event.get("reason") or "")
            upstream.leave()
            return


class _Ending:
    """Ends a WebSocket that may not stay: politely, and by force when the browser takes nothing."""

    def __init__(self, upstream: UpstreamSocket) -> None:
        self._upstream = upstream
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True
        self._upstream.fail(AccessEnded())
        if self._task is not None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._task.cancel)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class UpstreamSocket:
    """The server's side of an open WebSocket: a ``Tunnel`` over a connection."""

    def __init__(self, connection: Connection, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._connection = connection
        self._reader = FrameReader(max_bytes=max_bytes)
        self._events: deque[Event] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._failed_at_once = False
        self._close_sent = False
        self._has_left = False
        self._leaving: asyncio.TimerHandle | None = None
        self._unanswered: bytes | None = None  # the last ping of a server that takes nothing
        connection.on_writable = self._answer_last

    async def next(self) -> Event:
        """The next message, or the close frame. Raises UpstreamBroken at an end without one, or what ``fail`` got."""
        while True:
            if self._failed_at_once and self._error is not None:
                raise self._error
            if self._events:
                event = self._events.popleft()
                before = self._waiting_bytes
                self._waiting_bytes = before - len(event.data) - 64
                if before >= HIGH_WATER_BYTES > self._waiting_bytes:
                    self._connection.resume_reading()
                return event
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter

    def send(self, opcode: int, data: bytes) -> None:
        """Send a message."""
        if not self._close_sent:
            self._connection.write(frame(opcode, data))

    def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame, once."""
        if not self._close_sent:
            self._close_sent = True
            self._connection.write(frame(CLOSE, close_payload(code, reason)))

    @property
    def is_congested(self) -> bool:
        """Whether the server takes less than was sent."""
        return self._connection.is_congested

    async def drain(self) -> None:
        """Wait until the server has taken most of what was sent."""
        await self._connection.drain()

    def leave(self) -> None:
        """The browser is gone: what still comes is thrown away, until the server's close frame or a timeout."""
        self._has_left = True
        self._events.clear()
        self._waiting_bytes = 0
        self._connection.resume_reading()
        self._leaving = self._loop.call_later(CLOSE_SECONDS, self.fail, ClientGone())

    def browser_done(self, task: asyncio.Task[None]) -> None:
        """The browser's messages have ended; an error there ends the socket."""
        if not task.cancelled() and task.exception() is not None:
            log.error("A browser's WebSocket failed", exc_info=task.exception())
            self.fail(ClientGone())

    def fail(self, error: Exception) -> None:
        """End the socket: ``next`` raises ``error`` at once, whatever is still waiting."""
        self._failed_at_once = True
        self._finish(error)

    def _finish(self, error: Exception) -> None:
        if self._error is None or self._failed_at_once:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the connection

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            events = self._reader.feed(data)
        except FrameError as error:
            self._finish(error)
            return
        for event in events:
            if event.opcode == PING:
                if self._connection.is_congested:
                    self._unanswered = event.data  # answers must not pile up; the last is enough: RFC 6455, 5.5.3
                elif not self._close_sent:
                    self._connection.write(frame(PONG, event.data))
            elif event.opcode == CLOSE:
                self._take(event)
                if self._has_left:
                    self.fail(ClientGone())
                return
            elif event.opcode != PONG and not self._has_left:
                self._take(event)

    def _answer_last(self) -> None:
        """The server takes more again."""
        data, self._unanswered = self._unanswered, None
        if data is not None and not self._close_sent:
            self._connection.write(frame(PONG, data))

    def _take(self, event: Event) -> None:
        before = self._waiting_bytes
        self._events.append(event)
        self._waiting_bytes = before + len(event.data) + 64  # so that many empty messages count as well
        if before < HIGH_WATER_BYTES <= self._waiting_bytes:
            self._connection.pause_reading()
        self._wake()

    def connection_lost(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._finish(ClientGone() if self._has_left else UpstreamBroken("the server left without a close frame"))
