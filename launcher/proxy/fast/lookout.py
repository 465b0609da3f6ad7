"""One look-out for all requests of the fast lane: a timer for each, or a task, would cost more than the request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from launcher.proxy.access import AccessCache
from launcher.proxy.errors import UpstreamSilent
from launcher.proxy.moments import MOMENT_SECONDS
from launcher.proxy.upstream import UpstreamPool

if TYPE_CHECKING:
    from launcher.proxy.fast.pump import Relay


class Lookout:
    """Looks after the requests that take longer than a moment: permission, silence, a server that takes nothing."""

    def __init__(self, access: AccessCache, pool: UpstreamPool) -> None:
        self._access = access
        self._limits = pool.limits
        self._young: set[Relay] = set()
        self._old: set[Relay] = set()
        self._watched: set[Relay] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, relay: Relay) -> None:
        """It begins."""
        self._young.add(relay)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._tick)

    def discard(self, relay: Relay) -> None:
        """It is over."""
        self._young.discard(relay)
        self._old.discard(relay)
        self._watched.discard(relay)
        if relay.hold is not None:
            self._access.let_go(relay.hold)
            relay.hold = None

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        moment = loop.time()
        for relay in self._old:
            visit = relay.visit
            relay.hold = self._access.hold(visit.label, visit.cookie, visit.access, relay.end_access)
            relay.progress_at = relay.progress_at or moment
        self._watched |= self._old
        self._old, self._young = self._young, set()
        for relay in list(self._watched):
            waited = moment - relay.progress_at
            if relay.request_sent:
                if not relay.has_head and waited > self._limits.head_seconds:
                    relay.fail(UpstreamSilent("no answer in time"))
            elif relay.connection.is_congested and waited > self._limits.stall_seconds:
                relay.fail(UpstreamSilent("the server takes no more of the body"))
        self._timer = loop.call_later(MOMENT_SECONDS, self._tick) if self._old or self._watched else None
