"""A WebSocket through the proxy by the extension ``footbridge.tunnel``: bytes from socket to socket.

The handshake is the browser's own, with our fields; the server's answer goes back filtered. From then on frames are
never taken apart: masks, fragments, compression, pings and close codes are the business of both ends. A slow end holds
the other back, and an end of one direction leaves the other open for a while. Frames are only counted, so that a tunnel
whose permission ends can say so between two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

from launcher.proxy.access import AccessCache, Hold
from launcher.proxy.connection import Connection
from launcher.proxy.errors import ClientGone
from launcher.proxy.frames import CLOSE, close_payload, frame
from launcher.proxy.outgoing import ask_to_upgrade, handshake_of
from launcher.proxy.turns import FULL_READ_BYTES, give_way
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import Receive, Send, Visit
from launcher.proxy.websocket import passing_fields, proper_answer, refuse

EXTENSION = "footbridge.tunnel"

HALF_OPEN_SECONDS = 30.0
"""How long one direction may go on after the other has ended."""
KEEPALIVE_SECONDS = 60
"""How long a browser may be silent before the system asks whether it is still there."""
END_SECONDS = 1.0
"""How long an end that has been told to go may take for it."""


class Offer(Protocol):
    """What the web server offers in a WebSocket's scope under ``EXTENSION``."""

    def begin(self, head: bytes, end: BrowserEnd) -> bytes | None:
        """Answer the handshake with ``head`` and give the browser's connection to ``end``.

        Returns what came behind the handshake; None if the browser has left.
        """


async def forward(
    visit: Visit,
    offer: Offer,
    receive: Receive,
    send: Send,
    *,
    pool: UpstreamPool,
    access: AccessCache,
    done: Callable[[], None],
) -> None:
    """Open a tunnel, and return while it goes on; ``done`` is called when it, or the attempt, is over.

    Raises BadHead or UpstreamError, and then does not call ``done``.
    """
    target = visit.access.target
    assert target is not None
    opening = handshake_of(visit)
    connection = await pool.open_socket(visit.access.session_id, target)
    opened = False
    try:
        exchange, head = await ask_to_upgrade(connection, opening, pool.limits.head_seconds, receive)
        if head.status != 101:
            await refuse(visit, send, exchange, head, target)
        else:
            proper_answer(head, visit.fields.get(b"sec-websocket-key", b""), visit.scope.get("subprotocols") or ())
            lines = [
                b"%b: %b\r\n" % field
                for field in passing_fields(visit, head, target)
                if field[0] not in (b"content-length", b"content-type", b"date", b"server")
            ]
            answer = b"".join(
                (b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n", *lines, b"\r\n")
            )
            tunnel = Tunnel(connection, access, done)
            early = offer.begin(answer, tunnel.browser)
            if early is not None:
                tunnel.begin(visit, early)
                opened = True
    except ClientGone:
        pass
    finally:
        if not opened:
            connection.abort()
    if not opened:
        done()


class End(asyncio.Protocol):
    """One end of a tunnel: what it receives goes to ``write``, the other end's."""

    __slots__ = ("_delta", "_head", "_left", "_limit", "_tunnel", "is_congested", "peer", "transport", "write")

    def __init__(self, tunnel: Tunnel, *, masked: bool) -> None:
        self._tunnel = tunnel
        self._left = 0  # bytes of the frame under way that are still to come
        self._head = b""  # of a frame whose length is not known yet
        self.is_congested = False  # its transport takes less than it gets
        # A frame below these many bytes is whole if its second byte, plus this, is the number of bytes.
        self._delta, self._limit = (-122, 132) if masked else (2, 128)
        self.transport: asyncio.Transport
        self.write: Callable[[bytes], None]
        self.peer: End

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if self._left or self._head or not 1 < size < self._limit or data[1] + self._delta != size:
            self._follow(data)
            if size >= FULL_READ_BYTES:
                give_way(self.transport, lambda: self.peer.is_congested)
        try:
            self.write(data)
        except RuntimeError:  # uvloop's word for an end that was closed in this moment
            self._tunnel.cut()

    def _follow(self, data: bytes) -> None:
        """Find where a frame ends (RFC 6455, 5.2)."""
        at, size = 0, len(data)
        if self._head:
            data, self._head = self._head + data, b""
            size = len(data)
        while True:
            if self._left >= size - at:
                self._left -= size - at
                return
            at += self._left
            self._left = 0
            if size - at < 2:
                self._head = data[at:]
                return
            length = data[at + 1] & 0x7F
            extra = 2 if length == 126 else 8 if length == 127 else 0
            if size - at < 2 + extra:
                self._head = data[at:]
                return
            if extra:
                length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            self._left = 2 + extra + (4 if data[at + 1] & 0x80 else 0) + length

    @property
    def is_between_frames(self) -> bool:
        """Whether all frames that came from this end have come whole."""
        return not self._left and not self._head

    def pause_writing(self) -> None:
        self.is_congested = True
        if not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_congested = False
        if not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        return self._tunnel.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.lost(self)


class BrowserEnd(End):
    """The browser's end, which the web server knows as one of its connections."""

    __slots__ = ("_forget",)

    def take(self, transport: asyncio.Transport, forget: Callable[[BrowserEnd], None]) -> None:
        """Begin with this transport; ``forget`` is called when it is gone."""
        self.transport = transport
        self._forget = forget
        link = transport.get_extra_info("socket")
        if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
            # Nobody but the two ends pings; a browser that vanished without a word is noticed by the system.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS // 2)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The web server is going to stop."""
        self._tunnel.end(1012)


class UpstreamEnd(End):
    """The server's end. Its connection still counts in the pool."""

    __slots__ = ("_connection",)

    def __init__(self, tunnel: Tunnel, connection: Connection) -> None:
        super().__init__(tunnel, masked=False)
        self._connection = connection

    def take(self) -> bytes:
        """Take the connection over. Returns what came right behind the handshake's answer."""
        early, self.transport = self._connection.hand_over(self)
        return early

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        super().connection_lost(exc)


class Tunnel:
    """Both ends and what ends them."""

    __slots__ = ("_access", "_done", "_hold", "_is_ending", "_timer", "browser", "upstream")

    def __init__(self, connection: Connection, access: AccessCache, done: Callable[[], None]) -> None:
        self._access = access
        self._done: Callable[[], None] | None = done
        self._hold: Hold | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self.browser = BrowserEnd(self, masked=True)
        self.upstream = UpstreamEnd(self, connection)
        self.browser.peer, self.upstream.peer = self.upstream, self.browser

    def begin(self, visit: Visit, asked: bytes) -> None:
        """The handshake is answered; ``asked`` is what the browser has sent since."""
        browser, upstream = self.browser, self.upstream
        answered = upstream.take()
        browser.write, upstream.write = upstream.transport.write, browser.transport.write
        if answered:
            upstream.data_received(answered)
        if asked:
            browser.data_received(asked)
        self._hold = self._access.hold(visit.label, visit.cookie, visit.access, self.end)
        if upstream.transport.is_closing():
            browser.transport.close()

    def half_closed(self, end: End) -> bool:
        """An end sends no more. Returns whether its connection stays open for what still goes there."""
        peer = end.peer.transport
        if self._is_ending or peer.is_closing():
            return False
        if self._timer is not None or not peer.can_write_eof():  # the second one, or TLS
            self.close()
            return False
        _write_eof(peer)
        self._timer = asyncio.get_running_loop().call_later(HALF_OPEN_SECONDS, self.close)
        return True

    def lost(self, end: End) -> None:
        """A connection is gone: the other one goes too, and when it has gone all is over."""
        other = end.peer.transport
        if not other.is_closing():
            self.close()
        if self._done is None:
            if self._timer is not None:  # the second one
                self._timer.cancel()
        else:
            done, self._done = self._done, None
            done()
            if self._hold is not None:
                self._access.let_go(self._hold)
                self._hold = None

    def end(self, code: int = 1008) -> None:
        """It may not go on: say so where a frame has ended, and cut what has not gone in a moment."""
        if self._is_ending:
            return
        self._is_ending = True
        for end, data in (
            (self.browser, bytes((0x80 | CLOSE, 2)) + code.to_bytes(2, "big")),
            (self.upstream, frame(CLOSE, close_payload(1001))),
        ):
            end.peer.write = _nowhere
            if end.transport.can_write_eof():
                # What is under way may still come; closing now could lose our last frame.
                _write_eof(end.transport, data if end.peer.is_between_frames else b"")
            else:
                if end.peer.is_between_frames:
                    end.transport.write(data)
                end.transport.close()
            if not end.transport.is_closing():
                end.transport.resume_reading()
        self._later(END_SECONDS, self.cut)

    def close(self) -> None:
        """Close both after what is written has gone, but soon."""
        self._is_ending = True
        for end in (self.browser, self.upstream):
            end.peer.write = _nowhere
            end.transport.close()
        self._later(END_SECONDS, self.cut)

    def cut(self) -> None:
        """Close both now."""
        for end in (self.browser, self.upstream):
            end.transport.abort()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, call)


def _write_eof(transport: asyncio.Transport, data: bytes = b"") -> None:
    with contextlib.suppress(OSError, RuntimeError):  # it is gone already, and will say so; or it has ended before
        if data:
            transport.write(data)
        transport.write_eof()


def _nowhere(data: bytes) -> None:
    """Where bytes go that nobody wants any more."""
