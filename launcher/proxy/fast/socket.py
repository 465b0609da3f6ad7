"""uvicorn's WebSocket protocol, which also offers a tunnel: see ``tunnel``. Used by name, in the server's options.

An application that accepts the WebSocket as usual gets it as usual, message by message.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from launcher.proxy.fast.tunnel import EXTENSION, BrowserEnd

EARLY_BYTES = 64 * 1024
"""What is held of frames that come before the handshake is answered."""


class FastSocket(WebSocketsSansIOProtocol):
    """See the module. Offers itself as the tunnel's ``Offer``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._early = b""

    def handle_connect(self, event: Request) -> None:
        """Offer the tunnel, before the application's task has its first turn."""
        super().handle_connect(event)
        if not self.handshake_complete:
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # an object, not a table

    def data_received(self, data: bytes) -> None:
        """Hold what comes before the answer."""
        if not self.handshake_initiated or self.handshake_complete:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        """After an answer as usual, take what was held."""
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # a plain answer completes it, too
        if self._early and self.handshake_complete and not self.close_sent and not self.disconnected:
            early, self._early = self._early, b""
            self.transport.resume_reading()
            super().data_received(early)

    def begin(self, head: bytes, end: BrowserEnd) -> bytes | None:
        """Answer the handshake and give the connection away. Returns what has come since; None if nobody is there."""
        if self.disconnected or self.handshake_complete or self.transport.is_closing():
            return None
        self.handshake_complete = True
        self.close_timer = self.loop.call_later(0, _nothing)  # so that the end of the application closes nothing
        end.take(self.transport, self.connections.discard)
        self.connections.discard(self)
        self.connections.add(end)  # type: ignore[arg-type]  # all that the server does with it is ``shutdown``
        self.transport.set_protocol(end)
        self.transport.write(head)
        self.transport.resume_reading()
        early, self._early = self._early, b""
        return early


def _nothing() -> None:
    """Nothing is left to close."""
