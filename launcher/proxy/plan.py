"""What was decided on a request of a browser's connection, for when the very same head comes again on it.

It holds for one answer about permission, which is asked for each request: another answer, or the same one asked for
anew, and all is decided anew. So nothing here outlives what ``access`` allows.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.proxy.access_types import Access
from launcher.proxy.headers import OutgoingRequest
from launcher.proxy.limits import Ticket
from launcher.proxy.visit import Visit


class Plan:
    """The rest is set together with ``access``; while that is None nothing was decided, or a no."""

    __slots__ = ("access", "key", "leave", "request", "ticket", "visit")

    def __init__(self, visit: Visit) -> None:
        self.visit = visit  # for reading only
        self.access: Access | None = None
        self.request: OutgoingRequest
        self.key: tuple[object, ...]  # of the connections that may carry it
        self.ticket: Ticket
        self.leave: Callable[[], None]  # gives the ticket back
