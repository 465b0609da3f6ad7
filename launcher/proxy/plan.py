"""What was decided on a request, for when the very same one comes again: the same client and head.

It holds for one answer about permission, which is asked for each request: another answer, or the same one asked for
anew, and all is decided anew. So nothing here outlives what ``access`` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from launcher.proxy.access_types import Access
from launcher.proxy.limits import Ticket
from launcher.proxy.visit import Scope, Visit, raw_path_of

MOST_PLANS = 1024
"""How many are kept in a process, beside those of a connection's own. When there are more, all are forgotten."""
MOST_TARGET_BYTES = 512
"""The longest path with its query for which there is one."""
_DECISIVE = ("type", "method", "path", "raw_path", "query_string", "headers")
"""Of a scope: nothing that belongs to one connection."""


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


class Plans:
    """Plans by what was read of a request's client and fields, and by what it asks for."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, str, bytes, bytes], Plan] = {}

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def find(self, reading: Hashable, scope: Scope) -> Plan | None:
        """The plan for a request like this."""
        return self._kept.get((reading, scope["method"], raw_path_of(scope), scope.get("query_string", b"")))

    def make(self, reading: Hashable, scope: Scope, visit_of: Callable[[Scope], Visit]) -> None:
        """Have a plan for requests like this, in which nothing is decided yet."""
        path, query = raw_path_of(scope), scope.get("query_string", b"")
        key = (reading, scope["method"], path, query)
        if key in self._kept or len(path) + len(query) > MOST_TARGET_BYTES:
            return
        if len(self._kept) >= MOST_PLANS:
            self._kept.clear()
        self._kept[key] = Plan(visit_of({name: scope[name] for name in _DECISIVE if name in scope}))
