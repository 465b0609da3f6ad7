"""Where a message ends: the strict reading of its first line and of a chunked body. Pure: bytes in, offsets out.

Parsers of HTTP forgive; two that forgive differently see two different requests in the same bytes (request smuggling).
So nothing is forgiven here: what RFC 9112 lets a recipient repair or refuse is refused.
"""

from __future__ import annotations

import re

REQUEST_LINE = re.compile(rb"([A-Z]+|[!#$%&'*+\-.^_`|~0-9A-Za-z]+) (/[!\"$-~]*|\*) HTTP/1\.([01])\r\n")
"""The first line with a path as its target (or ``*``): no other address, no fragment, one space at a time."""
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) [1-5][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
"""The first line of an answer. Some servers leave out the empty reason with the space before it."""
HOST = re.compile(rb"[!$%&'()*+,;=:\[\]\-._~0-9A-Za-z]*")
"""What can stand in a ``Host`` field."""
MAX_CHUNK_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 16 * 1024

_SIZE_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class BadFraming(Exception):
    """No chunked body, or no way to tell where a body ends."""


class ChunkScanner:
    """Follows a chunked body (RFC 9112, 7.1) to its end. Extensions and trailers are skipped, within limits.

    A parser behind it must not see the trailers: some take ``Connection: close`` there for the message's own. It gets
    ``passing(data)`` of each piece.
    """

    __slots__ = ("_left", "_line", "_passes", "_trailer_bytes", "is_over")

    def __init__(self) -> None:
        self._left = 0  # bytes of this chunk's data still to come, with the CRLF behind it
        self._line = b""  # of a line that has not ended
        self._trailer_bytes = -1  # none yet
        self._passes = 0  # bytes of the last piece that lie before the trailers
        self.is_over = False

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body; fewer than all only when ``is_over``. Raises BadFraming."""
        at, size = 0, len(data)
        self._passes = 0 if self._trailer_bytes >= 0 else size
        while at < size:
            if self._left > 2:
                step = min(self._left - 2, size - at)
                self._left -= step
                at += step
            elif self._left:
                if data[at] != (13 if self._left == 2 else 10):
                    raise BadFraming("a chunk of another length than announced")
                self._left -= 1
                at += 1
            else:
                was_in_chunks = self._trailer_bytes < 0
                at = self._read_line(data, at)
                if was_in_chunks and self._trailer_bytes >= 0:
                    self._passes = at
                if self.is_over:
                    return at
        return size

    def passing(self, data: bytes) -> bytes:
        """What a parser gets of the piece that was just fed: all but the trailers, with the line that ends them."""
        passing = data if self._passes == len(data) else data[: self._passes]
        return passing + b"\r\n" if self.is_over else passing

    def _read_line(self, data: bytes, at: int) -> int:
        """Take a line, or what there is of it. Returns where it ends."""
        end = data.find(b"\n", at)
        line = self._line + data[at : end + 1 if end >= 0 else len(data)]
        if len(line) > MAX_CHUNK_LINE_BYTES:
            raise BadFraming("too long a line in a chunked body")
        if end < 0:
            if b"\r" in line[:-1]:
                raise BadFraming("a bare CR in a chunked body")
            self._line = line
            return len(data)
        if not line.endswith(b"\r\n"):
            raise BadFraming("a bare LF in a chunked body")
        self._line = b""
        self._take(line[:-2])
        return end + 1

    def _take(self, line: bytes) -> None:
        if self._trailer_bytes < 0:
            found = _SIZE_LINE.fullmatch(line)
            if found is None:
                raise BadFraming("no size of a chunk")
            length = int(found[1], 16)
            if length:
                self._left = length + 2
            else:
                self._trailer_bytes = 0
        elif not line:
            self.is_over = True
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > MAX_TRAILER_BYTES or not _FIELD_LINE.fullmatch(line):
                raise BadFraming("no trailer")
