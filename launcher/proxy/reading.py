"""What the fields of a request say to the proxy, found out once for fields that come again (``repeats``).

Nothing here is a permission: the cookie is only what the permission is asked for with, for each request.
"""

from __future__ import annotations

from launcher.proxy.access_types import Target
from launcher.proxy.headers import MAX_HEAD_BYTES, BadHead, OutgoingRequest, request_target
from launcher.proxy.outgoing import request_of
from launcher.proxy.sites import Place
from launcher.proxy.visit import Visit


class Reading:
    """See the module. Belongs to one connection of a browser."""

    __slots__ = ("_lines", "_target", "client", "cookie", "fields", "place")

    def __init__(self, fields: dict[bytes, bytes], place: Place, cookie: str, client: str) -> None:
        self.fields = fields
        self.place = place
        self.cookie = cookie
        self.client = client
        self._target: Target | None = None  # whose secret is in the lines
        self._lines = b""

    def request_of(self, visit: Visit) -> OutgoingRequest:
        """``outgoing.request_of`` for a request without a body; all but its first line is kept. Raises BadHead."""
        scope = visit.scope
        target = visit.access.target
        if self._target is not target:
            request = request_of(visit)
            if request.has_body:
                raise BadHead(400, "a body where there is none")
            self._lines = request.head[request.head.index(b"\r\n") :]
            self._target = target
            return request
        wanted = request_target(visit.raw_path, visit.query)
        head = b"%b %b HTTP/1.1%b" % (scope["method"].encode("ascii"), wanted, self._lines)
        if len(head) > MAX_HEAD_BYTES:
            raise BadHead(431, "the head is too long")
        return OutgoingRequest(head)
