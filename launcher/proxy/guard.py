"""The web server's own protocol class: uvicorn's, behind a strict gate with limits and time limits.

The parser below (llhttp) never sees what it could take for something else than other parsers do: a head is handed to it
whole and only when its first line is strict, a body exactly to its end, as ``framing`` finds it. What the gate refuses
is answered in words, after all earlier requests of the connection, and nothing behind it is read. An answer before the
end of its request's body is the connection's last: see ``lingering``. All of the portal's HTTP comes through here,
pages and notebooks alike; the fast lane builds on it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from launcher.proxy import pages
from launcher.proxy.cycle import Cycle, scope_of
from launcher.proxy.framing import HOST, REQUEST_LINE, BadFraming, ChunkScanner
from launcher.proxy.headers import MAX_HEAD_BYTES, MAX_TARGET_BYTES
from launcher.proxy.lingering import LINGER_SECONDS, LingeringProtocol
from launcher.proxy.pages import Page
from launcher.proxy.repeats import Blocks, Whole
from launcher.proxy.turns import FULL_READ_BYTES, give_way
from portal.sparselog import SparseLog

refusals = SparseLog(logging.getLogger(__name__))

MAX_FIELDS = 128
"""Most fields in a head."""
MAX_EMPTY_LINES = 8
"""Most empty lines before a head."""
MAX_PIPELINED = 100
"""Most requests that may wait behind one that is being answered."""
HEAD_SECONDS = 20.0
"""A head must be complete so long after its first byte, or after the connection was made."""
BODY_IDLE_SECONDS = 120.0
"""A body must go on within this time; however long it takes in all."""

_ACCEPT_LANGUAGE = re.compile(rb"\r\naccept-language:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:([^\r\n]*)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:([^\r\n]*)", re.IGNORECASE)
_NO_UPGRADE = b"x-no-upgrade"  # what the field is called while the parser, which would act on it, reads the head
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SPECIAL = frozenset((b"host", b"content-length", b"transfer-encoding", _NO_UPGRADE))


class _Refused(Exception):
    """Ends a callback of the parser; the status is in ``GuardedProtocol._refusal``."""


class GuardedProtocol(LingeringProtocol):
    """See the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pending = b""  # of a head that is not complete
        self._empty_lines = 0  # since the last head
        self._body_left = 0
        self._chunks: ChunkScanner | None = None
        self._refusal = 400  # why the callback that raised did so
        self._minor_version = b"1"
        self._blocks = Blocks()
        self._is_plain = False  # the head that was just read; see ``repeats``
        self._asked: RequestResponseCycle | None = None  # whose application runs; ``cycle`` may be one behind it

    # asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a head."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._is_over = True
        self._expect(None)
        self.stop_keepalive()
        if self.is_in_body:
            self.cycle.transport = self.transport  # or the two would wait for the garbage collector
        asked, self._asked = self._asked, None
        if asked is not None and not asked.response_complete:  # uvicorn tells only the newest
            asked.disconnected = True
            asked.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on what is strict; see the module."""
        self.idle_since = 0.0
        cycle = self.cycle
        # The same head again, in one piece and with nothing under way: the usual request.
        if (
            cycle is not None
            and cycle.response_complete
            and not (self._pending or self._is_over or self._body_left or self._chunks)
            and (again := self._blocks.whole(data) or self._read_again(data)) is not None
        ):
            if self._timer is not None:
                self._expect(None)
            self._empty_lines = 0
            self._take_again(again)
            return
        while data and not self._is_over:
            data = self._take_body(data) if self.is_in_body else self._take_head(data)
        if data:
            self._leftovers.take(data, self.transport)

    @property
    def is_in_body(self) -> bool:
        """Whether a part of a request's body is still to come."""
        return self._chunks is not None or self._body_left > 0

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Heads

    def _take_head(self, data: bytes) -> bytes:
        """Take a whole head, or keep what there is of it. Returns what is left."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        if data[:2] == b"\r\n":
            data = self._skip_empty_lines(data)
            if not data:
                return b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end > MAX_HEAD_BYTES:
            self._keep(data)
            return b""
        head, rest = data[:end], data[end:]
        line = REQUEST_LINE.match(head)
        if line is None or (line[2] == b"*" and line[1] != b"OPTIONS") or line[1] == b"CONNECT":
            self._refuse(400, "no request line", head)
        elif len(line[2]) > MAX_TARGET_BYTES:
            self._refuse(414, "too long an address", head)
        elif head.count(b"\n") > MAX_FIELDS + 2:
            self._refuse(431, "too many fields", head)
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(429, "too many requests in a row", head)
        else:
            self._expect(None)
            self._empty_lines = 0
            self._minor_version = line[3]
            self._parse_head(head, line[1], rest)
        return rest

    def _skip_empty_lines(self, data: bytes) -> bytes:
        """What follows the empty lines before a request, which RFC 9112, 2.2 has us ignore, within reason."""
        while data[:2] == b"\r\n":
            data = data[2:]
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                self._refuse(400, "too many empty lines", b"")
                return b""
        if not data and self._timer is None and not self._is_answering:
            self._expect(HEAD_SECONDS)  # uvicorn has just taken them for a request, which may take its time
        return data

    def _keep(self, data: bytes) -> None:
        """Wait for the rest of a head, if there can be one."""
        if len(data) > MAX_HEAD_BYTES:
            is_line = b"\n" not in data[: MAX_TARGET_BYTES + 64]
            self._refuse(414 if is_line else 431, "too long a head", data)
        elif b"\n" in data and (not REQUEST_LINE.match(data) or data.count(b"\n") != data.count(b"\r\n")):
            self._refuse(400, "no request line, or a bare LF", data)
        elif data:
            self._pending = data
            if self._timer is None:
                self._expect(HEAD_SECONDS)

    def _parse_head(self, head: bytes, method: bytes, rest: bytes) -> None:
        if b"pgrade:" in head.lower() and (offered := _UPGRADE.findall(head)):
            connection = _CONNECTION.findall(head)
            wanted = [b"upgrade" in [item.strip(b" \t") for item in line.lower().split(b",")] for line in connection]
            is_socket = [name.strip(b" \t").lower() for name in offered] == [b"websocket"] and any(wanted)
            if not (is_socket and method == b"GET" and self._minor_version == b"1" and self._should_upgrade_to_ws()):
                head = _UPGRADE.sub(b"\r\n" + _NO_UPGRADE + rb":\1", head)  # it may go on without: RFC 9110, 7.8
            elif len(connection) > 1 or rest or self._is_answering:
                # Frames before the answer, or an answer before that to an earlier request.
                self._refuse(400, "an upgrade at a wrong time", head)
                return
        before = self.cycle
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._is_over = True
            self.stop_keepalive()
            self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            if self.cycle is not before:  # the parser changed its mind
                self._refuse_body(400, "no proper head")
                return
            status, self._refusal = self._refusal, 400
            self._refuse(status, "no proper head", head)
        else:
            if self.is_in_body:
                self._expect(BODY_IDLE_SECONDS)
                self._begin_body(self.cycle)
            elif not self.cycle.keep_alive:
                self._is_over = True
            elif self._is_plain and method in (b"GET", b"HEAD"):
                self._blocks.keep(head[head.find(b"\r\n") + 2 :], self.headers)

    def _read_again(self, data: bytes) -> Whole | None:
        """A head with fields that are known, and a request line that is not."""
        found = self._blocks.find(data)
        if found is None:
            return None
        whole = Whole(found[1], scope_of(self, *found))
        self._blocks.keep_whole(data, whole)
        return whole

    def _take_again(self, whole: Whole) -> None:
        """Begin a request whose fields are known. Nothing is under way on this connection."""
        self.cycle = cycle = Cycle(self, whole.scope)
        self._begin(cycle, whole)

    def _begin(self, cycle: RequestResponseCycle, whole: Whole) -> None:
        """Let the application answer a request without a body."""
        self.scope = cycle.scope = whole.own_scope()
        self._start_asgi_task(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Remember who has to hear of the client's leaving."""
        self._asked = cycle
        super()._start_asgi_task(cycle, app)

    def on_headers_complete(self) -> None:
        """Check what decides where the request ends, and let uvicorn begin it."""
        hosts, length, is_chunked, has_upgrade = 0, b"", False, False
        headers = self.headers
        for index, (name, value) in enumerate(headers):
            if value and value[-1] <= 32:
                value = value.rstrip(b" \t")  # RFC 9112, 5.1: not part of the value
                headers[index] = (name, value)
            if name not in _SPECIAL:
                continue
            if name == _NO_UPGRADE:
                has_upgrade = True
                headers[index] = (b"upgrade", value)
            elif name == b"host":
                hosts += 1
                if not HOST.fullmatch(value):
                    raise _Refused
            elif name == b"content-length":
                if length or not _LENGTH.fullmatch(value):
                    raise _Refused
                length = value
            elif is_chunked or value.lower() != b"chunked":
                self._refusal = 501
                raise _Refused
            else:
                is_chunked = True
        if hosts > 1 or (not hosts and self._minor_version == b"1"):
            raise _Refused
        if is_chunked and (length or self._minor_version == b"0"):
            raise _Refused
        if (is_chunked or int(length or 0)) and self.parser.should_upgrade():
            raise _Refused
        self._is_plain = not (
            is_chunked
            or length
            or has_upgrade
            or self.expect_100_continue
            or self._minor_version != b"1"
            or self.parser.should_upgrade()
            or self.limit_concurrency is not None  # uvicorn then counts at another place
        )
        super().on_headers_complete()
        if is_chunked:
            self._chunks = ChunkScanner()  # which keeps trailers back: they belong to this hop
        else:
            self._body_left = int(length or 0)

    # Bodies

    def _take_body(self, data: bytes) -> bytes:
        """Hand on what belongs to the body. Returns what is left."""
        try:
            if self._chunks is not None:
                count = self._chunks.feed(data)
                piece = self._chunks.passing(data)
                if self._chunks.is_over:
                    self._chunks = None
            else:
                count = min(self._body_left, len(data))
                self._body_left -= count
                piece = data if count == len(data) else data[:count]
            if piece:
                self._hand_on(piece)
        except (BadFraming, httptools.HttpParserError):
            self._refuse_body(400, "no proper body")
            return b""
        if self.is_in_body:
            self._expect(BODY_IDLE_SECONDS)
            if count >= FULL_READ_BYTES and not self.flow.read_paused:
                give_way(self.transport, lambda: self.flow.read_paused)
        else:
            self._expect(None)
            self._end_body(self.cycle)
        return data[count:]

    def _hand_on(self, piece: bytes) -> None:
        """Hand a piece of a body on."""
        self.parser.feed_data(piece)

    # Time

    def _late(self) -> None:
        self._timer = None
        if self._is_over:
            self.transport.close()  # it has lingered long enough
        elif self.is_in_body:
            if self.flow.read_paused:
                self._expect(BODY_IDLE_SECONDS)  # it is not the client that waits
            else:
                self._refuse_body(408, "a body that does not go on")
        elif self._pending:
            self._refuse(408, "a head that does not end", self._pending)
        else:
            self.transport.close()

    # Refusing

    def _refuse(self, status: int, cause: str, head: bytes) -> None:
        """Answer instead of a request, after those before it, and read no more."""
        refusals.note(f"Refused a request: {cause}")
        self._is_over = True
        self._pending = b""
        self._expect(None)
        page = _page(status, head)
        if self._is_answering:
            self._queue(page)
        else:
            self._say(page)

    def _refuse_body(self, status: int, cause: str) -> None:
        """A request that has begun cannot be completed: it is answered in place of the application, where that has not
        answered yet, and is as good as disconnected."""
        refusals.note(f"Refused a request: {cause}")
        self._is_over = True
        self._expect(None)
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:  # its turn has not come
            self.pipeline.popleft()
            self._queue(_page(status, b""))
            return
        cycle.disconnected = not cycle.response_complete
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._say(_page(status, b""))

    def _queue(self, page: Page) -> None:
        """Answer when the requests before have been answered."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": page.status, "headers": page.headers})
            await send({"type": "http.response.body", "body": page.body, "more_body": False})

        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": "GET"},  # type: ignore[typeddict-item]  # all that the cycle looks at
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self.pipeline.appendleft((self.cycle, app))

    def send_400_response(self, msg: str) -> None:
        """uvicorn's way to refuse; here it goes ours."""
        self._refuse(400, "no HTTP", b"")

    def _say(self, page: Page) -> None:
        lines = [STATUS_LINE[page.status]]
        for name, value in [*self.server_state.default_headers, *page.headers, (b"connection", b"close")]:
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join((*lines, b"\r\n", page.body)))
        self._linger(LINGER_SECONDS)


def _page(status: int, head: bytes) -> Page:
    """What is said, in the language that the head asks for as far as it can be read."""
    notice = pages.TOO_MANY if status == 429 else pages.bad_request(status)
    if b"text/html" not in head:
        return pages.as_json(notice)
    language = _ACCEPT_LANGUAGE.search(head)
    return pages.as_page(notice, language=pages.language_of(language[1] if language else b""), link="/")
