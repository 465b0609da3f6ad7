"""What was decided on a request, for when the very same one comes again: the same fields, method, path and query.

It holds for one answer about permission, which is asked for each request: another answer, or the same one asked for
anew, and all is decided anew. So nothing here outlives what ``access`` allows.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.proxy.access_types import Access
from launcher.proxy.limits import Ticket
from launcher.proxy.visit import Scope, Visit


class Plan:
    """The rest is set together with ``access``; while that is None nothing was decided, or a no."""

    __slots__ = ("access", "key", "leave", "ticket", "visit")

    def __init__(self, visit: Visit) -> None:
        self.visit = visit  # for reading only; with its request
        self.access: Access | None = None
        self.key: tuple[object, ...]  # of the connections that may carry it
        self.ticket: Ticket
        self.leave: Callable[[], None]  # gives the ticket back

    def visit_with(self, scope: Scope) -> Visit:
        """The visit of a request like this, with its own scope."""
        it = self.visit
        return Visit(scope, it.label, it.cookie, it.fields, it.origin, it.client, it.access, it.prepared, it.request)
