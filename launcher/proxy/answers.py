"""Heads of answers that come again, as they do within a second from most servers: with the same date and length.

How a head frames its body, whether its connection stays and what of it goes on follow from its bytes. What was found
out by the strict way is kept under exactly these bytes, for one session's server: the parser is then spared. Only
heads that announce a length, or that have no body, are kept: the others need the parser for what follows.
"""

from __future__ import annotations

from launcher.proxy.exchange import Head, PassingFields
from launcher.proxy.headers import incoming_response
from launcher.proxy.visit import Visit

MOST_HEADS = 32
"""How many are kept for one server. They go out of date with the second: all are forgotten when there are more."""
MOST_BYTES = 2048
"""The longest head that is kept."""


class Answers:
    """The heads of one server's answers."""

    __slots__ = ("_kept", "find")

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Head, bool]] = {}
        self.find = self._kept.get  # by the bytes of a whole head that came before; and whether its connection stays

    def keep(self, data: bytes, head: Head, *, stays: bool) -> None:
        """These bytes were found to be this final head, by the strict way and at the beginning of an answer."""
        if len(data) > MOST_BYTES or (head.length is None and head.status not in (204, 304)):
            return
        if len(self._kept) >= MOST_HEADS:
            self._kept.clear()
        self._kept[data] = (head, stays)


def passing_fields(head: Head, visit: Visit) -> PassingFields:
    """The fields that go on to the browser; for a head that came before, as they were found then. Raises BadHead."""
    passing, target = head.passing, visit.access.target
    assert target is not None
    if passing is None or passing[0] != visit.origin:
        fields = incoming_response(
            head.status,
            head.fields,
            connection=head.connection,
            origin=visit.origin,
            upstream_authority=f"{target.host}:{target.port}".encode(),
        )
        passing = head.passing = (visit.origin, PassingFields(fields))
    return passing[1]
