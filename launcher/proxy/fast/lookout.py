"""One look-out for all requests of the fast lane: a timer for each, or a task, would cost more than the request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from launcher.proxy.access import AccessCache
from launcher.proxy.errors import UpstreamSilent
from launcher.proxy.moments import MOMENT_SECONDS, Moments
from launcher.proxy.upstream import UpstreamPool

if TYPE_CHECKING:
    from launcher.proxy.fast.pump import Relay


class Lookout:
    """Looks after the requests that take longer than a moment: permission, silence, a server that takes nothing."""

    def __init__(self, access: AccessCache, pool: UpstreamPool) -> None:
        self.access = access
        self._limits = pool.limits
        self._moments: Moments[Relay] = Moments(self._watch)
        self._watched: set[Relay] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.add = self._moments.add  # a request begins

    def discard(self, relay: Relay) -> None:
        """It is over."""
        self._moments.discard(relay)
        if relay.hold is not None:
            self._watched.discard(relay)
            self.access.let_go(relay.hold)
            relay.hold = None

    def _watch(self, relay: Relay) -> None:
        visit, loop = relay.visit, asyncio.get_running_loop()
        relay.hold = self.access.hold(visit.label, visit.cookie, visit.access, relay.end_access)
        relay.progress_at = relay.progress_at or loop.time()
        self._watched.add(relay)
        if self._timer is None:
            self._timer = loop.call_later(MOMENT_SECONDS, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        for relay in list(self._watched):
            waited = loop.time() - relay.progress_at
            if relay.request_sent:
                if not relay.has_head and waited > self._limits.head_seconds:
                    relay.fail(UpstreamSilent("no answer in time"))
            elif relay.connection.is_congested and waited > self._limits.stall_seconds:
                relay.fail(UpstreamSilent("the server takes no more of the body"))
        self._timer = loop.call_later(MOMENT_SECONDS, self._tick) if self._watched else None
