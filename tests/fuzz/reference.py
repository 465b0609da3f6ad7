"""A strict reader of HTTP/1.1, written straight from RFC 9112: what the servers are compared with.

It is given everything a connection will ever carry and says which messages are in it and how it ends. It is meant to
be read beside the RFC, not to be fast, and shares no code with the product. Where the RFC lets a recipient choose
between repairing and refusing, it refuses: two framings, two lengths even when they are equal, obs-fold, whitespace
before a colon, bare LF, several spaces in the first line, any transfer coding but ``chunked``, ``chunked`` in HTTP/1.0.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, 5.6.2
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])")  # RFC 9112, 3
# RFC 9112, 4. Servers that have no reason to give often leave out the space before it, too.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([\t \x21-\x7e\x80-\xff]*))?")
_FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):[ \t]*(.*?)[ \t]*", re.DOTALL)  # 5
_FIELD_VALUE = re.compile(rb"[\t \x21-\x7e\x80-\xff]*")
_HOST = re.compile(rb"[!$%&'()*+,;=:\[\]\-._~0-9A-Za-z]*")  # RFC 9110, 7.2
# RFC 9112, 7.1. Extensions are ignored by everybody (7.1.1): what matters is that they hide no end of a line.
_CHUNK_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t \x21-\x7e\x80-\xff]*)?")


class End(enum.Enum):
    """How a stream ends."""

    CLEAN = "clean"  # between two messages
    PARTIAL = "partial"  # in the middle of one
    REFUSE = "refuse"  # what comes after the messages is ambiguous, or no HTTP
    CLOSED = "closed"  # the last message ended the connection; what follows is nobody's
    UPGRADED = "upgraded"  # the last message is a WebSocket handshake


class Refused(Exception):
    """No HTTP, or ambiguous."""


class Incomplete(Exception):
    """More bytes could make it HTTP."""


@dataclass(frozen=True)
class Message:
    """A request (``start`` is method, target, minor version) or a response (minor version, status)."""

    start: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """The field's values."""
        return [value for key, value in self.fields if key == name]

    def options(self, name: bytes) -> list[bytes]:
        """The members of a field that is a list."""
        return [item.strip(b" \t").lower() for value in self.values(name) for item in value.split(b",")]


@dataclass
class Reading:
    """What is in a stream."""

    messages: list[Message] = field(default_factory=list)
    end: End = End.CLEAN


class Bytes:
    """A stream that is read once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def is_empty(self) -> bool:
        """Whether all has been read."""
        return self.at >= len(self.data)

    def await_head(self) -> None:
        """A head is judged when it is complete; until then it may be refused or waited for."""
        if self.data.find(b"\r\n\r\n", self.at) < 0:
            raise Incomplete

    def line(self) -> bytes:
        """The next line, without its CRLF. Neither CR nor LF may stand alone (RFC 9112, 2.2)."""
        end = self.data.find(b"\r\n", self.at)
        line = self.data[self.at : end if end >= 0 else len(self.data)]
        if end < 0:
            if b"\n" in line or b"\r" in line[:-1]:
                raise Refused
            raise Incomplete
        if b"\n" in line or b"\r" in line:
            raise Refused
        self.at = end + 2
        return line

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if self.at + count > len(self.data):
            raise Incomplete
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at)


def read_requests(data: bytes) -> Reading:
    """All requests of a connection."""
    stream, reading = Bytes(data), Reading()
    try:
        while not stream.is_empty:
            if stream.data.startswith(b"\r\n", stream.at):  # RFC 9112, 2.2: empty lines before a request are ignored
                stream.at += 2
                continue
            message = _request(stream)
            reading.messages.append(message)
            if _is_handshake(message):
                reading.end = End.UPGRADED
                return reading
            if message.start[2] == b"0" or b"close" in message.options(b"connection"):
                reading.end = End.CLOSED
                return reading
    except Refused:
        reading.end = End.REFUSE
    except Incomplete:
        reading.end = End.PARTIAL
    return reading


def read_response(data: bytes, *, method: bytes, at_end: bool) -> Reading:
    """The final answer to one request (interim ones are left out). ``at_end``: the server has closed."""
    stream, reading = Bytes(data), Reading()
    try:
        while True:
            message, is_final = _response(stream, method, at_end)
            if is_final:
                break
        reading.messages.append(message)
        reading.end = End.CLEAN if stream.is_empty else End.REFUSE  # what nobody asked for
    except Refused:
        reading.end = End.REFUSE
    except Incomplete:
        reading.end = End.REFUSE if at_end else End.PARTIAL
    return reading


def read_chunks(data: bytes) -> bytes:
    """What is in a whole chunked body. Raises Refused, also for one that goes on or is cut off."""
    stream = Bytes(data)
    try:
        body = _chunks(stream)
    except Incomplete:
        raise Refused from None
    if not stream.is_empty:
        raise Refused
    return body


def _request(stream: Bytes) -> Message:
    stream.await_head()
    line = _REQUEST_LINE.fullmatch(stream.line())
    if line is None or b"#" in line[2] or line[1] == b"CONNECT":
        raise Refused
    if not (line[2].startswith(b"/") or _is_absolute(line[2]) or (line[1], line[2]) == (b"OPTIONS", b"*")):
        raise Refused
    head = Message(line.groups(), _fields(stream))
    hosts = head.values(b"host")
    if len(hosts) > 1 or (line[3] == b"1" and not hosts) or not all(_HOST.fullmatch(host) for host in hosts):
        raise Refused  # RFC 9112, 3.2
    length, is_chunked = _framing(head, line[3])
    if _is_handshake(head) and (length or is_chunked):
        raise Refused
    body = _chunks(stream) if is_chunked else stream.take(length or 0)
    return Message(head.start, head.fields, body)


def _response(stream: Bytes, method: bytes, at_end: bool) -> tuple[Message, bool]:
    stream.await_head()
    line = _STATUS_LINE.fullmatch(stream.line())
    if line is None or not 100 <= int(line[2]) < 600:
        raise Refused
    head = Message((line[1], line[2]), _fields(stream))
    status = int(line[2])
    if status == 101:
        raise Refused  # nobody asked for it
    if status < 200:
        if head.values(b"content-length") or head.values(b"transfer-encoding"):
            raise Refused  # RFC 9112, 6.1 and RFC 9110, 8.6
        return head, False
    length, is_chunked = _framing(head, line[1])
    if method == b"HEAD" or status in (204, 304):  # RFC 9112, 6.3
        return head, True
    if is_chunked:
        return Message(head.start, head.fields, _chunks(stream)), True
    if length is not None:
        return Message(head.start, head.fields, stream.take(length)), True
    if not at_end:
        raise Incomplete
    return Message(head.start, head.fields, stream.rest()), True


def _fields(stream: Bytes) -> tuple[tuple[bytes, bytes], ...]:
    fields = []
    while line := stream.line():
        parts = _FIELD_LINE.fullmatch(line)
        if parts is None or not _FIELD_VALUE.fullmatch(parts[2]):
            raise Refused
        fields.append((parts[1].lower(), parts[2]))
    return tuple(fields)


def _framing(head: Message, minor_version: bytes) -> tuple[int | None, bool]:
    """The length, and whether the body comes in chunks (RFC 9112, 6)."""
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if len(lengths) > 1 or (lengths and codings):
        raise Refused
    if codings and (minor_version == b"0" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise Refused
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Refused
    return (int(lengths[0]) if lengths else None), bool(codings)


def _chunks(stream: Bytes) -> bytes:
    body = b""
    while True:
        line = _CHUNK_LINE.fullmatch(stream.line())
        if line is None:
            raise Refused
        size = int(line[1], 16)
        if size == 0:
            _fields(stream)  # trailers: they belong to this hop
            return body
        body += stream.take(size)
        end = stream.data[stream.at : stream.at + 2]
        if not b"\r\n".startswith(end[:2]):
            raise Refused
        stream.take(2)


def _is_absolute(target: bytes) -> bool:
    return re.match(rb"https?://[^/?#]", target, re.IGNORECASE) is not None


def _is_handshake(message: Message) -> bool:
    wants = b"upgrade" in message.options(b"connection") and message.options(b"upgrade") == [b"websocket"]
    return wants and message.start[0] == b"GET" and message.start[2] == b"1"
