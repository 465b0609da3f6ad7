"""uvicorn's bookkeeping for a request whose fields are known, made at half the price, its scope and its own lines."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from launcher.proxy.exchange import PassingFields
from launcher.proxy.repeats import Block

if TYPE_CHECKING:
    from launcher.proxy.guard import GuardedProtocol


def scope_of(protocol: GuardedProtocol, line: re.Match[bytes], block: Block) -> Any:
    """The scope as uvicorn has it. ``line`` is a strict request line of HTTP/1.1."""
    raw_path, _, query = line[2].partition(b"?")
    path = raw_path.decode("ascii")
    root = protocol.root_path
    return {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "server": protocol.server,
        "client": protocol.client,
        "scheme": protocol.scheme,
        "root_path": root,
        "headers": list(block.fields),
        "state": protocol.app_state.copy(),
        "method": line[1].decode("ascii"),
        "path": root + (unquote(path) if "%" in path else path),
        "raw_path": root.encode("ascii") + raw_path if root else raw_path,
        "query_string": query,
    }


class Cycle(RequestResponseCycle):
    """A cycle whose request has no body and has come whole, on a connection that stays."""

    # The rest of what uvicorn's own sets, until somebody sets something else.
    disconnected = False
    keep_alive = True
    waiting_for_100_continue = False
    body = bytearray()  # nobody adds to it: there is no body
    more_body = False
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    _event: asyncio.Event | None = None  # made when somebody wants it, which is seldom
    _is_known = False  # the head of the answer was

    def __init__(self, protocol: GuardedProtocol, scope: Any) -> None:
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.access_logger = protocol.access_logger
        self.access_log = protocol.access_log
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete

    async def send(self, message: Any) -> None:
        """uvicorn's, but for a head whose lines are there already: that is not looked through for each answer."""
        if self.disconnected or self.flow.write_paused or not (self._begins(message) or self._goes_on(message)):
            await super().send(message)

    def _begins(self, message: Any) -> bool:
        """Write such a head. Returns whether it was one; if not, nothing was done."""
        fields = message.get("headers")
        if (
            type(fields) is not PassingFields
            or fields.length is None
            or self.response_started
            or self.access_log
            or self.scope["method"] == "HEAD"
        ):
            return False
        self._is_known = True
        self.expected_content_length = fields.length
        self.chunked_encoding = False
        self.transport.write(head_of(self, message["status"], fields.lines))
        return True

    def _goes_on(self, message: Any) -> bool:
        """Write a piece of the body behind such a head. As ``_begins`` for what uvicorn has to refuse."""
        if not self._is_known or self.response_complete or message["type"] != "http.response.body":
            return False
        body, more = message.get("body", b""), message.get("more_body", False)
        left = self.expected_content_length - len(body)
        if left < 0 or (left and not more):
            return False
        self.expected_content_length = left
        self.transport.write(body)
        if not more:
            end_of(self)
        return True

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]  # an attribute there, set only when made
        """Set, since all of the request is there."""
        if self._event is None:
            self._event = asyncio.Event()
            self._event.set()
        return self._event

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has asked for the event."""
        return self._event is not None


class OwnLines:
    """The web server's own lines of a head, which change with the second, when it makes another list of them."""

    def __init__(self) -> None:
        self._fields: object = None
        self._lines = b""

    def of(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        """The lines of ``fields``, which nobody changes."""
        if fields is not self._fields:
            self._lines = b"".join([b"%b: %b\r\n" % field for field in fields])
            self._fields = fields
        return self._lines


_own_lines = OwnLines()


def head_of(cycle: RequestResponseCycle, status: int, lines: bytes) -> bytes:
    """The head of an answer, which begins with it: the web server's own lines and these."""
    cycle.response_started = True
    close = b"" if cycle.keep_alive else b"connection: close\r\n"
    return b"".join((STATUS_LINE[status], _own_lines.of(cycle.default_headers), close, lines, b"\r\n"))


def end_of(cycle: RequestResponseCycle) -> None:
    """The answer has been written; the connection is free, or closed."""
    cycle.response_complete = True
    if not isinstance(cycle, Cycle) or cycle.is_awaited:
        cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
