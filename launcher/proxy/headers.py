"""What of a message's head passes the proxy, in both directions. Pure: bytes in, bytes out.

To the server in the job go the browser's own fields, less everything that could claim an identity, address this hop
only, or belongs to the portal; then ours are added. To the browser goes the server's answer, less everything that
would reach beyond the session's own address. Path and query pass byte for byte (but for a ``token`` parameter).
What is ambiguous is refused, never repaired: see ``BadHead``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

from launcher.proxy.cookies import confined_cookie, passing_cookies

Fields = Iterable[tuple[bytes, bytes]]

SECRET_HEADER = "X-Footbridge-Secret"
"""The field that carries the secret to a server with our identity provider; a browser's own is dropped."""
MAX_TARGET_BYTES = 16 * 1024
"""Longest path with query that passes. Jupyter puts file paths there; 16 KiB holds any path Linux allows, quoted."""
MAX_HEAD_BYTES = 64 * 1024
"""Longest head of a request that passes (tornado, which Jupyter uses, takes no more)."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_TARGET_REFUSED = re.compile(rb"[\x00-\x20\x7f-\xff]")
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_SITE_WIDE = frozenset(  # answers with these reach other hosts: "cookies" clears those of the whole registered domain
    (b"alt-svc", b"clear-site-data")
)
_FOR_WEB_SERVERS = (b"x-accel-", b"x-sendfile", b"x-lighttpd-", b"x-litespeed-", b"x-reproxy-")
"""How fields begin by which an answer gives orders to a web server in front of the portal: to send a file of its own in
the answer's place, to fetch another address of its own, to keep a copy for everybody.
"""
_CLAIMS = frozenset(  # fields by which servers are told who or where the client is
    (
        b"authorization",
        b"forwarded",
        b"remote-user",
        b"x-real-ip",
        b"x-scheme",
        b"x-client-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"true-client-ip",
        SECRET_HEADER.lower().encode("ascii"),
    )
)
_CLAIM_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-remote-", b"x-footbridge-")

_ORIGIN_WIDE = frozenset(  # answers with these would reach beyond a session's path, where it shares an origin
    (
        b"accept-ch",
        b"critical-ch",
        b"nel",
        b"origin-agent-cluster",
        b"public-key-pins",
        b"report-to",
        b"service-worker-allowed",
        b"set-login",
        b"speculation-rules",
        b"strict-transport-security",
        b"use-as-dictionary",
    )
)

_DROPPED_ANSWERS = (b"proxy-", b"access-control-allow-", *_FOR_WEB_SERVERS)

_PASS, _DROP, _BAD, _COOKIE, _HOST, _LENGTH, _CODING, _EXPECT, _SET_COOKIE, _LOCATION, _WIDE = range(11)
_KINDS_KEPT = 4096
_request_kinds: dict[bytes, int] = {}
_response_kinds: dict[bytes, int] = {}


class BadHead(Exception):
    """A head that must not pass. ``status`` is the answer to the browser; the text is for the log, without input."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Secret:
    """How the server in the job recognises the portal."""

    flavor: Literal["identity", "token"]
    value: str

    def field(self) -> bytes:
        """The header line that carries it."""
        if self.flavor == "identity":
            return f"{SECRET_HEADER}: {self.value}\r\n".encode("ascii")
        return f"authorization: token {self.value}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Origin:
    """The session's own address as browsers see it."""

    scheme: Literal["http", "https"]
    authority: bytes  # host, with the port where it is not the scheme's own
    path: bytes = b"/"  # where the session begins; a longer one where it shares its origin with the portal

    @property
    def serialized(self) -> bytes:
        """What a browser sends as ``Origin``."""
        return self.scheme.encode("ascii") + b"://" + self.authority


@dataclass(slots=True)
class OutgoingRequest:
    """The head to send, and how the body is framed: by ``length`` bytes, in chunks, or (neither) no body."""

    head: bytes
    length: int | None = None
    chunked: bool = False
    expects_continue: bool = False

    @property
    def has_body(self) -> bool:
        """Whether the browser announced a body of at least one byte, or of unknown length."""
        return self.chunked or bool(self.length)


def _request_kind(name: bytes) -> int:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        kind = _BAD
    elif (
        lower in _CLAIMS
        or lower.startswith(_CLAIM_PREFIXES)
        or b"_" in lower
        or (lower in _HOP_BY_HOP and lower != b"transfer-encoding")
    ):
        kind = _DROP
    else:
        kind = {
            b"cookie": _COOKIE,
            b"host": _HOST,
            b"content-length": _LENGTH,
            b"transfer-encoding": _CODING,
            b"expect": _EXPECT,
        }.get(lower, _PASS)
    return _remember(_request_kinds, name, kind)


def _response_kind(name: bytes) -> int:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        kind = _BAD
    elif lower in _HOP_BY_HOP or lower in _SITE_WIDE or lower.startswith(_DROPPED_ANSWERS):
        kind = _DROP
    else:
        usual = _WIDE if lower in _ORIGIN_WIDE else _PASS
        kind = {b"set-cookie": _SET_COOKIE, b"location": _LOCATION, b"content-length": _LENGTH}.get(lower, usual)
    return _remember(_response_kinds, name, kind)


def _remember(kinds: dict[bytes, int], name: bytes, kind: int) -> int:
    """Names repeat in every request, so a verdict is kept; a flood of invented names empties the table, no more."""
    if len(kinds) >= _KINDS_KEPT:
        kinds.clear()
    if len(name) <= 64:
        kinds[name] = kind
    return kind


def _listed(connection: bytes) -> frozenset[bytes]:
    """The names that a ``Connection`` field declares to be for this hop only."""
    if connection in (b"keep-alive", b"close", b"Upgrade", b"upgrade", b""):
        return frozenset()
    return frozenset(token.strip().lower() for token in connection.split(b","))


def without_token(query: bytes) -> bytes:
    """The query without ``token`` parameters, every other byte unchanged.

    Jupyter prefers a token in the query to the one in the head and answers 403 when it is wrong.
    """
    if b"token" not in query and b"%" not in query:
        return query
    parts = query.split(b"&")
    kept = [part for part in parts if not _names_token(part)]
    return query if len(kept) == len(parts) else b"&".join(kept)


def _names_token(part: bytes) -> bool:
    key = part.partition(b"=")[0]
    return key == b"token" or (b"%" in key and unquote_to_bytes(key) == b"token")


def request_target(raw_path: bytes, query: bytes) -> bytes:
    """Path and query for the request line, byte for byte as the browser sent them. Raises BadHead."""
    query = without_token(query)
    target = raw_path + b"?" + query if query else raw_path
    if len(target) > MAX_TARGET_BYTES:
        raise BadHead(414, "the path is too long")
    if not target.startswith(b"/") or _TARGET_REFUSED.search(target):
        raise BadHead(400, "the path is not a path")
    return target


def outgoing_request(
    *,
    method: str,
    target: bytes,
    fields: Fields,
    origin: Origin,
    client: str,
    secret: Secret,
) -> OutgoingRequest:
    """The head for the server in the job. Raises BadHead."""
    listed = _listed(b",".join([value for name, value in fields if name.lower() == b"connection"]))
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode("ascii"), target, origin.authority)]
    request = OutgoingRequest(b"")
    hosts = 0
    kinds = _request_kinds
    for name, value in fields:
        kind = kinds.get(name)
        if kind is None:
            kind = _request_kind(name)
        if kind == _PASS:
            if not listed or name.lower() not in listed:
                lines.append(b"%b: %b\r\n" % (name, value))
        elif kind == _COOKIE:
            cookies = passing_cookies(value, origin.path)
            if cookies:
                lines.append(b"cookie: %b\r\n" % cookies)
        elif kind == _HOST:
            hosts += 1
        elif kind == _LENGTH:
            if request.length is not None or not value.isdigit() or len(value) > 18:
                raise BadHead(400, "no usable content length")
            request.length = int(value)
            lines.append(b"content-length: %b\r\n" % value)
        elif kind == _CODING:
            if request.chunked or value.lower() != b"chunked":
                raise BadHead(400, "a transfer coding other than chunked")
            request.chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        elif kind == _EXPECT:
            if value.lower() != b"100-continue":
                raise BadHead(417, "an expectation other than 100-continue")
            request.expects_continue = True
        elif kind == _BAD:
            raise BadHead(400, "a field name that is no name")
    if hosts != 1:
        raise BadHead(400, "not exactly one host")
    if request.chunked and request.length is not None:
        raise BadHead(400, "two framings in one request")
    if request.expects_continue:
        if request.has_body:
            lines.append(b"expect: 100-continue\r\n")
        else:
            request.expects_continue = False
    lines.append(_ours(origin, client, secret))
    request.head = _checked(lines)
    return request


def outgoing_handshake(
    *,
    target: bytes,
    fields: Fields,
    origin: Origin,
    client: str,
    secret: Secret,
    key: bytes = b"",
    subprotocols: Sequence[str] = (),
) -> bytes:
    """The head of a WebSocket handshake with the server in the job. Raises BadHead.

    With a ``key`` it is ours: its subprotocols, and no extension. Without one it is the browser's own.
    """
    if key:
        kept = [(name, value) for name, value in fields if not name.lower().startswith(b"sec-websocket-")]
    else:
        kept = list(fields)
    request = outgoing_request(
        method="GET",
        target=target,
        fields=kept,
        origin=origin,
        client=client,
        secret=secret,
    )
    if request.has_body:
        raise BadHead(400, "a handshake with a body")
    lines = [request.head[:-2], b"connection: Upgrade\r\nupgrade: websocket\r\n"]
    if key:
        lines.append(b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n" % key)
    if subprotocols:
        lines.append(b"sec-websocket-protocol: %b\r\n" % ", ".join(subprotocols).encode("latin-1"))
    return b"".join(lines) + b"\r\n"


def _ours(origin: Origin, client: str, secret: Secret) -> bytes:
    return b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n%b" % (
        client.encode("latin-1", "replace"),
        origin.scheme.encode("ascii"),
        origin.authority,
        secret.field(),
    )


def _checked(lines: list[bytes]) -> bytes:
    """The lines as one head. A line break or zero byte inside a value would show as a line too many."""
    head = b"".join(lines) + b"\r\n"
    if len(head) > MAX_HEAD_BYTES:
        raise BadHead(431, "the head is too long")
    breaks = len(lines) + 5  # the first item is two lines, the last four, and the empty line ends the head
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise BadHead(400, "a line break inside a field")
    return head


def incoming_response(
    status: int, fields: Fields, *, connection: bytes, origin: Origin, upstream_authority: bytes
) -> list[tuple[bytes, bytes]]:
    """The fields of the server's answer that go on to the browser. Raises BadHead (502)."""
    listed = _listed(connection)
    kept: list[tuple[bytes, bytes]] = []
    kinds = _response_kinds
    for name, value in fields:
        kind = kinds.get(name)
        if kind is None:
            kind = _response_kind(name)
        if kind == _PASS:
            if not listed or name.lower() not in listed:
                kept.append((name.lower(), value))
        elif kind == _SET_COOKIE:
            confined = confined_cookie(value, origin.path)
            if confined:
                kept.append((b"set-cookie", confined))
        elif kind == _LENGTH:
            if status not in (204, 304):  # there it is optional, and ASGI servers take it for a promise of bytes
                kept.append((b"content-length", value))
        elif kind == _LOCATION:
            kept.append((b"location", _location(value, origin, upstream_authority)))
        elif kind == _WIDE:
            if origin.path == b"/" and name.lower() not in listed:
                kept.append((name.lower(), value))
        elif kind == _BAD:
            raise BadHead(502, "the server sent a field name that is no name")
    return kept


def _location(value: bytes, origin: Origin, upstream_authority: bytes) -> bytes:
    """A redirect to the server's inner address, or to ours under another scheme, becomes relative; others stay."""
    scheme, separator, rest = value.partition(b"//")
    if not separator or scheme.lower() not in (b"", b"http:", b"https:"):
        return value
    authority, slash, path = rest.partition(b"/")
    if authority.lower() in (upstream_authority.lower(), origin.authority):
        # More slashes at the beginning would name a host again.
        return b"/" + path.lstrip(b"/\\") if slash else b"/"
    return value
