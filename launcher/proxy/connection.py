"""One HTTP/1.1 connection to a server in a job: an asyncio protocol over any transport, a socket or an SSH channel.

It carries one ``Exchange`` at a time. The server's bytes are hostile: a head has a limit, two framings are refused, and
whatever comes that nobody asked for costs the connection. After an upgrade all bytes go to a ``Tunnel``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from launcher.proxy.answers import Answers
from launcher.proxy.errors import UpstreamBroken
from launcher.proxy.exchange import Exchange, Head
from launcher.proxy.framing import STATUS_LINE, BadFraming, ChunkScanner

MAX_HEAD_BYTES = 128 * 1024
"""The longest head of an answer."""
_BLANK = (b" ", b"\t")
_FRAMING = (b"content-length", b"transfer-encoding")


class Home(Protocol):
    """Who keeps a connection."""

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""


class Tunnel(Protocol):
    """What takes over a connection after an upgrade."""

    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to a server in a job. ``home`` is told once, when it is gone; ``answers`` are that server's."""

    def __init__(self, home: Home, answers: Answers | None = None) -> None:
        self.home = home
        self._answers = answers if answers is not None else Answers()
        self._is_known = False  # the head came before, so the parser has not seen it
        self._found: Head | None = None  # by the parser, in the piece that it was just given
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
        self._pending = b""  # of a head that is not complete
        self._in_head = True
        self._body_left: int | None = 0  # None: until the connection ends
        self._chunks: ChunkScanner | None = None
        self._surplus = False  # the server sent what nobody asked for
        self._read_paused = False
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self.on_writable: Callable[[], None] | None = None  # called when the server takes more again

    # Sending

    def start(
        self, method: str, head: bytes, *, wants_upgrade: bool = False, exchange: Exchange | None = None
    ) -> Exchange:
        """Send a request's head (with its body, where that is at hand) and return the exchange, a new one as a rule."""
        if self._stale_parser:
            self._parser = httptools.HttpResponseParser(self)
            self._stale_parser = False
        self._fields = []
        self._pending = b""
        self._in_head = True
        self._is_known = False
        self._body_left, self._chunks = 0, None
        if exchange is None:
            exchange = Exchange(self, head_only=method == "HEAD", wants_upgrade=wants_upgrade)
        self.exchange = exchange
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

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[bytes, asyncio.Transport]:
        """Give the transport to ``protocol`` after an upgrade. Returns what came behind the answer, and the transport.

        ``protocol`` must still tell of the connection's loss.
        """
        assert self.transport is not None
        self.resume_reading()
        self.transport.set_protocol(protocol)
        early, self._after_upgrade = self._after_upgrade, b""
        self._parser = _NO_PARSER
        self._fields = []
        self.exchange = None
        return early, self.transport

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
        while data and not self._surplus:
            if self._upgraded:
                self._after_upgrade += data
                return
            if exchange.complete:
                self._surplus = True  # nobody asked for it
                break
            data = self._take_head(data) if self._in_head else self._take_body(data)
        exchange.settle()

    def _take_head(self, data: bytes) -> bytes:
        """Hand a whole head to the parser, or keep what there is of it. Returns what is left."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        end = data.find(b"\r\n\r\n") + 4
        known = self._answers.find(data[:end])
        if known is not None and self.exchange is not None and not self.exchange.wants_upgrade:
            return self._take_known(self.exchange, *known, data[end:])
        if len(data[:end] if end > 3 else data) > MAX_HEAD_BYTES:
            self._break("the head is too long")
        elif (end > 3 or b"\n" in data) and not STATUS_LINE.match(data):
            self._break("no HTTP: no status line")
        elif end < 4:
            self._pending = data
        else:
            self._found = None
            self._feed(data[:end])
            if self._found is not None and not self._surplus and not self._upgraded:
                self._answers.keep(data[:end], self._found, stays=self.keep_alive)
            return data[end:]
        return b""

    def _take_known(self, exchange: Exchange, head: Head, stays: bool, rest: bytes) -> bytes:
        """What the parser and ``on_headers_complete`` would do with this head. Returns what is left of ``rest``."""
        self._in_head = False
        self._is_known = True
        self.keep_alive = stays
        if exchange.head_only or head.status in (204, 304) or not head.length:
            exchange.take_head(head)
            self._end(exchange)
        elif len(rest) == head.length:
            exchange.take_whole(head, rest)
            return b""
        else:
            exchange.take_head(head)
            self._body_left = head.length
        return rest

    def _take_body(self, data: bytes) -> bytes:
        """Hand on what belongs to the answer. Returns what is left."""
        count = len(data)
        if self._chunks is not None:
            try:
                count = self._chunks.feed(data)
                piece = self._chunks.passing(data)
            except BadFraming as error:
                self._break(str(error))
                return b""
        else:
            if self._body_left is not None:
                count = min(count, self._body_left)
                self._body_left -= count
            piece = data if count == len(data) else data[:count]
        exchange = self.exchange
        is_over = self._body_left == 0 if self._chunks is None else self._chunks.is_over
        if exchange is not None and (self._is_known or exchange.takes_raw):
            self._stale_parser = not self._is_known
            if piece:
                exchange.take_body(piece)
            if is_over:
                self._end(exchange)
            return data[count:]
        if piece:
            self._feed(piece)
        if is_over and self.exchange is not None and not self.exchange.complete:
            self._break("two readings of where the answer ends")
        return data[count:]

    def _end(self, exchange: Exchange) -> None:
        """The answer has come whole. Where its exchange has failed before, what follows is nobody's."""
        exchange.take_end()
        if not exchange.complete:
            self._surplus = True

    def _feed(self, data: bytes) -> None:
        assert self.exchange is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self.exchange.wants_upgrade:
                self._upgraded = True
                self.pause_reading()  # until somebody attaches a tunnel
            else:
                self._break("an upgrade nobody asked for")
        except httptools.HttpParserError as error:
            self._break(f"no HTTP: {error}")

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
        self.home.forget(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self.on_writable is not None:
            self.on_writable()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _end_of_stream(self, exc: Exception | None) -> None:
        exchange = self.exchange
        self.keep_alive = False
        if exchange is None or exchange.complete:
            return
        if exchange.until_close and exc is None and not self._in_head:
            exchange.take_end()
            exchange.settle()
        else:
            exchange.fail(UpstreamBroken("the connection was closed before the end of the answer"))

    def _break(self, detail: str) -> None:
        self.keep_alive = False
        self._surplus = True
        if self.exchange is not None and not self.exchange.complete:
            self.exchange.fail(UpstreamBroken(detail))
        self.abort()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self.exchange is None or self.exchange.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after it, these are trailers: they belong to this hop
            self._fields.append((name, value.rstrip(b" \t") if value[-1:] in _BLANK else value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:
            self._surplus = True
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            if any(name.lower() in _FRAMING for name, _ in self._fields):
                self._refuse("an interim answer with a body")
                return
            if status == 100:
                exchange.take_continue()
            self._fields = []
            return  # the final head follows
        self._in_head = False
        head = Head(status, self._fields)
        try:
            self.keep_alive = head.read_framing(self._parser.get_http_version())
        except BadFraming as error:
            self._refuse(str(error))
            return
        if status == 101 and not exchange.wants_upgrade:
            self._refuse("an upgrade nobody asked for")
            return
        exchange.take_head(head)
        if status == 101:
            return
        self._found = head
        if exchange.head_only or status in (204, 304):
            self._stale_parser = True
            exchange.take_end()
        elif head.chunked:
            self._chunks = ChunkScanner()
        else:
            self._body_left = head.length
            if head.length is None:
                exchange.until_close = True
                self.keep_alive = False

    def _refuse(self, problem: str) -> None:
        """Break off, but not now: httptools is in the middle of this very piece of data."""
        assert self.exchange is not None
        self.exchange.fail(UpstreamBroken(problem))
        self._surplus = True
        self._in_head = False
        asyncio.get_running_loop().call_soon(self.abort)

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


_NO_PARSER = httptools.HttpResponseParser(object())
"""Takes the place of a parser that is not needed any more: there may be thousands of open WebSockets."""
