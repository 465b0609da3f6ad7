"""WebSocket frames (RFC 6455), mostly towards a server in a job: bytes in, events out. Pure; no input or output.

The server's bytes are hostile. Whatever is against the protocol raises ``FrameError`` with the close code for it.
No extension is ever offered, so reserved bits must be zero.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # a platform without the compiled part of websockets
    from websockets.utils import apply_mask as apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

NO_STATUS, ABNORMAL = 1005, 1006
"""Codes that stand for "no code" and "no close frame"; they never travel."""


class FrameError(Exception):
    """The server broke the protocol; ``code`` is the close code for it."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Event(NamedTuple):
    """A whole message (TEXT, BINARY) or a control frame."""

    opcode: int
    data: bytes


class _Masks:
    """Random masks, drawn from the system by the thousand: a system call for each costs more than the frame."""

    _BYTES = 4096

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        """Four bytes that nobody can guess; each time others."""
        at = self._at
        if at >= len(self._drawn):
            self._drawn, at = os.urandom(self._BYTES), 0
        self._at = at + 4
        return self._drawn[at : at + 4]


_masks = _Masks()


def frame(opcode: int, data: bytes) -> bytes:
    """One masked frame, as a client sends it."""
    mask = _masks.next()
    return b"".join((_head(opcode, len(data), 0x80), mask, apply_mask(data, mask)))


def server_head(opcode: int, length: int) -> bytes:
    """What goes before the data of a whole, unmasked message, as a server sends it."""
    return _head(opcode, length, 0)


def _head(opcode: int, length: int, masked: int) -> bytes:
    if length < 126:
        return bytes((0x80 | opcode, masked | length))
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, masked | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, masked | 127, length)


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame carries; empty where there is no code. The reason is cut to what fits."""
    if code in (NO_STATUS, ABNORMAL):
        return b""
    text = reason.encode("utf-8")[:123].decode("utf-8", "ignore").encode("utf-8")
    return struct.pack("!H", code) + text


def read_close(data: bytes) -> tuple[int, str]:
    """Code and reason of a close frame. Raises FrameError."""
    if not data:
        return NO_STATUS, ""
    if len(data) == 1:
        raise FrameError(1002, "half a close code")
    code: int = struct.unpack_from("!H", data)[0]
    # RFC 6455, 7.4, and the registry: below 3000 only what is defined, and not what may not travel.
    if not (3000 <= code < 5000 or (1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL))):
        raise FrameError(1002, "a close code that may not be sent")
    try:
        return code, data[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise FrameError(1007, "a close reason that is no text") from None


class FrameReader:
    """Makes events of the server's bytes, however they are split. ``max_bytes`` limits one message."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._wanted = 0  # bytes in the buffer before looking again is worth while
        self._opcode = 0  # of the message that is being put together
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes. Raises FrameError; the reader is of no use after that."""
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            source = self._buffer
        events: list[Event] = []
        position, size = 0, len(source)
        while True:
            rest = size - position
            if rest < 2:
                self._wanted = 2
                break
            first, second = source[position], source[position + 1]
            head, length = 2, second
            if second >= 126:
                if second & 0x80:
                    raise FrameError(1002, "a server's frame is masked")
                head = 4 if second == 126 else 10
                if rest < head:
                    self._wanted = head
                    break
                length = int.from_bytes(source[position + 2 : position + head], "big")
            if length + self._fragments_bytes > self._max_bytes:
                raise FrameError(1009, "a message is too long")
            if rest < head + length:
                self._wanted = head + length
                break
            start = position + head
            position = start + length
            event = self._frame(first, bytes(source[start:position]))
            if event is not None:
                events.append(event)
        if source is self._buffer:
            del self._buffer[:position]
        elif position < size:
            self._buffer += data[position:]
        return events

    def _frame(self, first: int, data: bytes) -> Event | None:
        if first & 0x70:
            raise FrameError(1002, "a reserved bit is set")
        opcode, is_final = first & 0x0F, bool(first & 0x80)
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(1002, "an unknown kind of frame")
            if not is_final or len(data) > 125:
                raise FrameError(1002, "a control frame that is long or in pieces")
            return Event(opcode, data)
        if opcode > BINARY:
            raise FrameError(1002, "an unknown kind of frame")
        if (opcode == CONTINUATION) != bool(self._opcode):
            raise FrameError(1002, "fragments out of order")
        if opcode != CONTINUATION:
            if is_final:
                return Event(opcode, data)
            self._opcode = opcode
        self._fragments.append(data)
        self._fragments_bytes += len(data) + 64  # so that empty fragments without end have a limit too
        if not is_final:
            return None
        event = Event(self._opcode, b"".join(self._fragments))
        self._opcode, self._fragments, self._fragments_bytes = 0, [], 0
        return event
