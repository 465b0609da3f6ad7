"""How much one person and one session may have under way at a time, in each web process.

A browser never reaches these limits; a script in a loop or a page gone wild does, and then gets 429 with
``Retry-After`` while everybody else goes on. The limits of the connections to a server in a job are the pool's own
(``upstream.Limits``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most at a time in one process. A request counts until its answer has been sent, a WebSocket while open."""

    requests_per_session: int = 320
    sockets_per_session: int = 256
    requests_per_person: int = 640
    sockets_per_person: int = 512


USUAL = Ceilings()

Key = tuple[bool, str, Hashable]


class _Count:
    """What is under way of one kind for one session or person. Lives as long as a ticket for it."""

    __slots__ = ("__weakref__", "most", "number")

    def __init__(self, most: int) -> None:
        self.most = most
        self.number = 0


Ticket = tuple[_Count, _Count]


class InFlight:
    """Counts what is under way, by tickets, which are kept until it is over. Belongs to one event loop."""

    __slots__ = ("_ceilings", "_counts", "_number")

    def __init__(self, ceilings: Ceilings = USUAL) -> None:
        self._ceilings = ceilings
        self._counts: WeakValueDictionary[Key, _Count] = WeakValueDictionary()
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def enter(self, *, session_id: str, person: Hashable, is_socket: bool) -> Ticket | None:
        """Count one more; ``None`` when that would be too many. Pair with ``leave``, which takes what this gives."""
        ticket = self.ticket(session_id=session_id, person=person, is_socket=is_socket)
        return ticket if self.enter_again(ticket) else None

    def ticket(self, *, session_id: str, person: Hashable, is_socket: bool) -> Ticket:
        """Nothing is counted yet: that is for ``enter_again``."""
        ceilings = self._ceilings
        for_session = ceilings.sockets_per_session if is_socket else ceilings.requests_per_session
        for_person = ceilings.sockets_per_person if is_socket else ceilings.requests_per_person
        return (
            self._count((is_socket, "session", session_id), for_session),
            self._count((is_socket, "person", person), for_person),
        )

    def _count(self, key: Key, most: int) -> _Count:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(most)
        return count

    def enter_again(self, ticket: Ticket) -> bool:
        """As ``enter``, for the session and the person of a ticket that was given before."""
        session, person = ticket
        if session.number >= session.most or person.number >= person.most:
            return False
        session.number += 1
        person.number += 1
        self._number += 1
        return True

    def leave(self, ticket: Ticket) -> None:
        """It is over."""
        session, person = ticket
        session.number -= 1
        person.number -= 1
        self._number -= 1
