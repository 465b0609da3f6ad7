"""uvicorn's bookkeeping for a request whose fields are known, made at half the price, and its ASGI scope."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

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

    def __init__(self, protocol: GuardedProtocol, scope: Any) -> None:
        # All that uvicorn's own sets; the event is made when somebody wants it, which is seldom.
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.access_logger = protocol.access_logger
        self.access_log = protocol.access_log
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete
        self.disconnected = False
        self.keep_alive = True
        self.waiting_for_100_continue = False
        self.body = _NOTHING
        self.more_body = False
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0
        self._event: asyncio.Event | None = None

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


_NOTHING = bytearray()  # nobody adds to it: there is no body
