"""How much one person and one session may have under way at a time, in each web process.

A browser never reaches these limits; a script in a loop or a page gone wild does, and then gets 429 with
``Retry-After`` while everybody else goes on. Two dictionary look-ups for a request, no task switch. The limits of the
connections to a server in a job are the pool's own (``upstream.Limits``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most at a time in one process. A request counts until its answer has been sent, a WebSocket while open."""

    requests_per_session: int = 320
    sockets_per_session: int = 256
    requests_per_person: int = 640
    sockets_per_person: int = 512


USUAL = Ceilings()

Key = tuple[bool, str, Hashable]
Ticket = tuple[Key, Key]


class InFlight:
    """Counts what is under way. Belongs to one event loop."""

    __slots__ = ("_ceilings", "_counts")

    def __init__(self, ceilings: Ceilings = USUAL) -> None:
        self._ceilings = ceilings
        self._counts: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def enter(self, *, session_id: str, person: Hashable, is_socket: bool) -> Ticket | None:
        """Count one more; ``None`` when that would be too many. Pair with ``leave``, which takes what this gives."""
        ticket = self.ticket(session_id=session_id, person=person, is_socket=is_socket)
        return ticket if self.enter_again(ticket) else None

    @staticmethod
    def ticket(*, session_id: str, person: Hashable, is_socket: bool) -> Ticket:
        """Nothing is counted yet: that is for ``enter_again``."""
        return (is_socket, "session", session_id), (is_socket, "person", person)

    def enter_again(self, ticket: Ticket) -> bool:
        """As ``enter``, for the session and the person of a ticket that was given before."""
        ceilings, counts = self._ceilings, self._counts
        one, other = ticket
        if one[0]:
            for_session, for_person = ceilings.sockets_per_session, ceilings.sockets_per_person
        else:
            for_session, for_person = ceilings.requests_per_session, ceilings.requests_per_person
        of_session, of_person = counts.get(one, 0), counts.get(other, 0)
        if of_session >= for_session or of_person >= for_person:
            return False
        counts[one] = of_session + 1
        counts[other] = of_person + 1
        return True

    def leave(self, ticket: Ticket) -> None:
        """It is over."""
        for key in ticket:
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]
