"""uvicorn's WebSocket protocol, which also offers a tunnel: see ``tunnel``. Used by name, in the server's options.

An application that accepts the WebSocket as usual gets it as usual, message by message, with less work for each: a
message to the browser is one frame, made here, and the browser is read on while a few messages wait.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.streams import StreamReader

from launcher.proxy.fast.tunnel import END_SECONDS, EXTENSION, BrowserEnd
from launcher.proxy.frames import BINARY, TEXT, apply_mask, server_head
from launcher.proxy.websocket import LARGE_MESSAGES

SMALL_HEAD_BYTES = 6
SMALL_BYTES = 125
"""Of a browser's frame whose length stands in its second byte: that one, the first, and the mask (RFC 6455, 5.2)."""
EARLY_BYTES = 64 * 1024
"""What is held of frames that come before the handshake is answered."""
MOST_WAITING = 16
LARGE_BYTES = 64 * 1024
"""So many of the browser's messages wait for the application, and at most one that is larger than this."""
PAGE_MESSAGE_BYTES = 64 * 1024
"""The longest message for an application that has not asked for longer ones: the portal's own pages say nothing.
"""
MOST_FRAGMENTS = 16 * 1024
"""Pieces of one message. Empty ones count in no limit of bytes, and each takes room."""

_BETWEEN_FRAMES = StreamReader.at_eof.__code__
"""Where the parser of websockets waits when it has had whole frames and nothing of another."""


class FastSocket(WebSocketsSansIOProtocol):
    """See the module. Offers itself as the tunnel's ``Offer``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._early = b""
        self._most_bytes = self.conn.max_message_size
        self._unanswered: bytes | None = None  # the last ping of a browser that takes nothing
        # So long may the browser take to answer our close frame. uvicorn's ten seconds are more than is promised.
        self.close_timeout = END_SECONDS

    def handle_connect(self, event: Request) -> None:
        """Offer the tunnel, before the application's task has its first turn."""
        self.conn.max_message_size = PAGE_MESSAGE_BYTES
        super().handle_connect(event)
        if not self.handshake_complete:
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # an object, not a table
            self.scope["extensions"][LARGE_MESSAGES] = self.take_large  # type: ignore[assignment]  # a function

    def take_large(self) -> None:
        """The application wants messages as long as the server's options allow."""
        self.conn.max_message_size = self._most_bytes

    def handle_cont(self, event: Frame) -> None:
        """Refuse a message in pieces without end."""
        if self.close_sent:
            return
        if len(self.frames) >= MOST_FRAGMENTS:
            self.frames = []
            self._fail(1009, "too many fragments")
            return
        super().handle_cont(event)

    def _fail(self, code: int, reason: str) -> None:
        """End the connection because of what came."""
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer, but pile up no answers for a browser that does not take them: of those the last is enough."""
        answers = self.conn.data_to_send()
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            self.transport.write(b"".join(answers))
        elif answers:  # to all the pings that came in one piece
            self._unanswered = answers[-1]

    def resume_writing(self) -> None:
        """The browser has caught up."""
        super().resume_writing()
        answer, self._unanswered = self._unanswered, None
        if answer and self.conn.state is State.OPEN and not self.transport.is_closing():
            self.transport.write(answer)

    def data_received(self, data: bytes) -> None:
        """Hold what comes before the answer."""
        if self._is_plain and self._take_small(data):
            return
        if not self.handshake_initiated or self.handshake_complete:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self.transport.pause_reading()

    def _take_small(self, data: bytes) -> bool:
        """Take a short message that came alone and whole, past the parser, which goes on with the next frame.

        Returns whether that was done; if not, nothing was.
        """
        size = len(data) - SMALL_HEAD_BYTES
        if not 0 <= size <= SMALL_BYTES or data[1] != 0x80 | size or self.frames:
            return False
        parser: Any = self.conn.parser  # a generator, and what it waits in
        while parser.gi_yieldfrom is not None:
            parser = parser.gi_yieldfrom
        if parser.gi_code is not _BETWEEN_FRAMES:
            return False
        message: Any = {"type": "websocket.receive"}
        payload = apply_mask(data[SMALL_HEAD_BYTES:], data[2:SMALL_HEAD_BYTES])
        if data[0] == 0x80 | BINARY:
            message["bytes"] = payload
        elif data[0] == 0x80 | TEXT:
            try:
                message["text"] = payload.decode()
            except UnicodeDecodeError:
                return False
        else:
            return False
        self.queue.put_nowait(message)
        if not self.read_paused and self.queue.qsize() >= MOST_WAITING:
            self.read_paused = True
            self.transport.pause_reading()
        return True

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, which stops reading after every message: two system calls for each; and for a text that is none
        writes an error into the log, and another when a close frame came right behind it.
        """
        data: Any = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        message: Any = {"type": "websocket.receive"}
        if self.curr_msg_data_type == "text":
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                self._fail(1007, "a text that is none")
                return
        else:
            message["bytes"] = data
        self.queue.put_nowait(message)
        if not self.read_paused and (len(data) > LARGE_BYTES or self.queue.qsize() >= MOST_WAITING):
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        """A message at once where nothing speaks against it. After an answer as usual, take what was held."""
        if message["type"] == "websocket.send" and self._is_plain:
            data = message.get("bytes")
            opcode = BINARY
            if data is None:
                data, opcode = message["text"].encode(), TEXT
            head = server_head(opcode, len(data))
            if len(data) > LARGE_BYTES:
                self.transport.write(head)
                self.transport.write(data)
            else:
                self.transport.write(head + data)
            return
        if self._has_left():
            raise ClientDisconnected
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # a plain answer completes it, too
        if self._early and self.handshake_complete and not self.close_sent and not self.disconnected:
            early, self._early = self._early, b""
            self.transport.resume_reading()
            super().data_received(early)

    @property
    def _is_plain(self) -> bool:
        """Whether a frame may go out as it is: the WebSocket is open, not compressed, and its browser takes it."""
        return (
            self.handshake_complete
            and not self.close_sent
            and not self.disconnected
            and self.writable.is_set()
            and self.conn.state is State.OPEN
            and not self.conn.extensions
        )

    def _has_left(self) -> bool:
        """Whether the connection ends before the handshake was answered, so that it need not be: uvicorn would take it
        for a mistake of the application until it hears of the loss, a turn of the loop later."""
        if self.handshake_complete or not self.transport.is_closing():
            return False
        self.handshake_complete = True
        return True

    def begin(self, head: bytes, end: BrowserEnd) -> bytes | None:
        """Answer the handshake and give the connection away. Returns what has come since; None if nobody is there."""
        if self._has_left() or self.disconnected or self.handshake_complete:
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
