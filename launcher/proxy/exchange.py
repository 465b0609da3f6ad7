"""One request to a server in a job and its answer, as whoever waits for it sees them.

Reading is pulled: ``head``, then ``read`` until it returns no bytes. What the server sends meanwhile is held up to a
limit; then the connection stops reading.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from launcher.proxy.framing import BadFraming
from launcher.proxy.headers import Origin

HIGH_WATER_BYTES = 256 * 1024
"""What is held of an answer that the browser does not take before reading stops."""


class Source(Protocol):
    """Where the answer comes from: a connection that can be told to wait."""

    def pause_reading(self) -> None:
        """Take no more for now."""

    def resume_reading(self) -> None:
        """Take more again."""


class PassingFields(list[tuple[bytes, bytes]]):
    """What goes on of an answer's fields, the same as ``lines`` of a head, and the ``length`` that they announce."""

    __slots__ = ("length", "lines")

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        super().__init__(fields)
        self.length = next((int(value) for name, value in fields if name == b"content-length"), None)
        self.lines = b"".join([b"%b: %b\r\n" % field for field in fields])


@dataclass(slots=True)
class Head:
    """The head of an answer; names as the server wrote them."""

    status: int
    fields: list[tuple[bytes, bytes]]
    connection: bytes = b""  # the Connection field, joined
    length: int | None = None
    chunked: bool = False
    passing: tuple[Origin, PassingFields] | None = None  # what goes on, and to where; see ``answers``

    def get(self, name: bytes) -> bytes:
        """The field's last value, empty when there is none."""
        return next((value for key, value in reversed(self.fields) if key.lower() == name), b"")

    def read_framing(self, version: str) -> bool:
        """Find how the body is framed, and whether the connection stays. Raises BadFraming.

        ``version`` is the answer's, "1.1" or an older one.
        """
        connection: list[bytes] = []
        for name, value in self.fields:
            lower = name.lower()
            if lower == b"content-length":
                if self.length is not None or not value.isdigit() or len(value) > 18:
                    raise BadFraming("no usable content length")
                self.length = int(value)
            elif lower == b"transfer-encoding":
                if self.chunked or value.lower() != b"chunked":
                    raise BadFraming("a transfer coding other than chunked")
                self.chunked = True
            elif lower == b"connection":
                connection.append(value)
        if self.chunked and self.length is not None:
            raise BadFraming("two framings in one answer")
        if self.chunked and version != "1.1":
            raise BadFraming("chunks in an older HTTP")
        if not 100 <= self.status < 600:
            raise BadFraming("no status of HTTP")
        self.connection = b",".join(connection)
        options = {option.strip(b" \t") for option in self.connection.lower().split(b",")}
        return (version == "1.1" or b"keep-alive" in options) and b"close" not in options


class Exchange:
    """See the module."""

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
        "takes_raw",
        "until_close",
        "wants_upgrade",
    )

    def __init__(self, connection: Source, *, head_only: bool, wants_upgrade: bool = False) -> None:
        self._connection = connection
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.head_only = head_only  # the answer to HEAD
        self.wants_upgrade = wants_upgrade
        self.takes_raw = False  # the body goes to ``take_body`` as it came, with its chunks
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

    def take_whole(self, head: Head, body: bytes) -> None:
        """The answer came whole, in one piece."""
        self.take_head(head)
        self.take_body(body)
        self.take_end()

    def settle(self) -> None:
        """All of one piece of data has been taken."""

    def take_end(self) -> None:
        self.complete = True
        self._wake()
