"""Tells of refusals that somebody should know of: each once in a while, however often it is met."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Protocol

from launcher.proxy.access_types import Access
from launcher.proxy.visit import Visit

log = logging.getLogger(__name__)

SECONDS = 60.0
"""The same refusal of the same visitor is told again after so long."""
MOST_KEPT = 1000


class Denied(Protocol):
    """Is told of refusals, at most once a minute for each session, person and cause."""

    async def __call__(self, *, session_id: str, username: str, door: str, cause: str, address: str) -> object: ...


class Denials:
    """What was told lately. Belongs to one event loop."""

    def __init__(self, denied: Denied) -> None:
        self._denied = denied
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def tell(self, visit: Visit, access: Access, cause: str) -> None:
        """Tell of a refusal, unless the same was told a moment ago. A failure to tell refuses all the same."""
        if not access.session_id:
            return
        key = (access.session_id, access.username or visit.client, cause)
        moment = time.monotonic()
        if self._told.get(key, 0.0) > moment:
            return
        self._told[key] = moment + SECONDS
        self._told.move_to_end(key)
        while len(self._told) > MOST_KEPT:
            self._told.popitem(last=False)
        try:
            await self._denied(
                session_id=access.session_id,
                username=access.username,
                door="websocket" if visit.scope["type"] == "websocket" else "http",
                cause=cause,
                address=visit.client,
            )
        except Exception:
            log.exception("A refusal could not be recorded")
