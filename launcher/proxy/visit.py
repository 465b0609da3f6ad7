"""One request or WebSocket handshake at a session's own address: what the parts of the proxy need to know of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from launcher.proxy.access_types import Access, Target, Verdict
from launcher.proxy.headers import Origin, OutgoingRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def raw_path_of(scope: Scope) -> bytes:
    """The path byte for byte. From a server that does not tell, it is quoted again, which is nearly the same."""
    raw: bytes | None = scope.get("raw_path")
    return raw if raw else quote(scope["path"], safe="/:@!$&'()*+,;=-._~").encode("ascii")


UNDECIDED = Access(Verdict.UNKNOWN)
"""Before anybody was asked."""


class Prepared:
    """The request as it goes on, whatever its first line, for one target; for fields that come again."""

    __slots__ = ("request", "target")

    def __init__(self) -> None:
        self.target: Target | None = None  # whose secret is in the head
        self.request = OutgoingRequest(b"")  # ``head``: all that follows the first line


@dataclass(slots=True, eq=False)
class Visit:
    """``fields`` holds the request's head by lower-case name; where a name is repeated, the last value."""

    scope: Scope
    label: str
    cookie: str
    fields: dict[bytes, bytes]
    origin: Origin
    client: str
    access: Access
    prepared: Prepared = field(default_factory=Prepared)
    request: OutgoingRequest | None = None  # as it goes on, where that was found out before

    @property
    def raw_path(self) -> bytes:
        """The path byte for byte."""
        return raw_path_of(self.scope)

    @property
    def query(self) -> bytes:
        """The query byte for byte, without the question mark."""
        query: bytes = self.scope.get("query_string", b"")
        return query

    @property
    def is_navigation(self) -> bool:
        """Whether a person waits for a page: a browser's own word for it, or what it accepts."""
        if self.scope["type"] != "http" or self.scope["method"] not in ("GET", "HEAD"):
            return False
        mode = self.fields.get(b"sec-fetch-mode")
        if mode is not None:
            return mode == b"navigate"
        return b"text/html" in self.fields.get(b"accept", b"")
