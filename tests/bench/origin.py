"""The server behind every proxy that is measured: HTTP answers that were made beforehand, and WebSocket echoes.

It looks at no more of a request than it must, so that the proxies are what is measured. WebSockets go on in a process
of their own, ``echo``, and so do some downloads, ``pour``. Run as ``python -m tests.bench.origin PORT``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import sys
from typing import cast

import uvloop

from tests.bench import echo, pour

PIECE = bytes(256 * 1024)
APART_SECONDS = 0.001
"""Between the head and the body at /apart: less than a millisecond is none to uvloop."""
PROMPT_ECHO = b"/ws?prompt"
"""A WebSocket whose echo waits for no other process of this core."""


def _answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


SMALL, MIDDLE = _answer(200), _answer(10_000)
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
KEY = re.compile(rb"(?i)sec-websocket-key: *(\S+)")
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


class Origin(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.head = b""
        self.body_left = 0
        self.can_write = asyncio.Event()
        self.can_write.set()
        self.task: asyncio.Task[None] | None = None

    pourer: socket.socket
    """The way to the process that pours (``pour``)."""
    echoer: socket.socket
    """The way to the process that echoes (``echo``)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.transport = transport

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.body_left:
            self.body_left -= len(data)
            if self.body_left <= 0:
                self.transport.write(DONE)
            return
        self.head += data
        while b"\r\n\r\n" in self.head:
            head, _, self.head = self.head.partition(b"\r\n\r\n")
            self.answer(head)

    def answer(self, head: bytes) -> None:
        """Answer a head by what its path begins with."""
        target = head.split(b" ", 2)[1]
        if target == b"/small":
            self.transport.write(SMALL)
        elif target == b"/middle":
            self.transport.write(MIDDLE)
        elif target == b"/apart":
            head, _, body = MIDDLE.partition(b"\r\n\r\n")
            self.transport.write(head + b"\r\n\r\n")
            asyncio.get_running_loop().call_later(APART_SECONDS, self.transport.write, body)
        elif target.startswith(b"/down/"):
            self.task = asyncio.get_running_loop().create_task(self.pour(int(target[6:])))
        elif target.startswith(b"/pour/"):
            self.give(self.pourer, target[6:].ljust(pour.SIZE_BYTES))
        elif target == b"/up":
            found = LENGTH.search(head)
            self.body_left = int(found[1]) - len(self.head) if found else 0
            self.head = b""
            if self.body_left <= 0:
                self.transport.write(DONE)
        elif target in (b"/ws", PROMPT_ECHO) and (key := KEY.search(head)):
            digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
            fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + base64.b64encode(digest)
            how = echo.PROMPT if target == PROMPT_ECHO else echo.USUAL
            self.give(self.echoer, how + b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n\r\n")
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def give(self, process: socket.socket, message: bytes) -> None:
        """Another process goes on with this connection."""
        socket.send_fds(process, [message], [self.transport.get_extra_info("socket").fileno()])
        self.transport.abort()  # closes this process's own descriptor, which ends nothing

    async def pour(self, size: int) -> None:
        """A long body."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size > 0:
            await self.can_write.wait()
            self.transport.write(PIECE[:size])
            size -= len(PIECE)


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    Origin.pourer, Origin.echoer = pour.start(), echo.start()
    uvloop.run(main(int(sys.argv[1])))
