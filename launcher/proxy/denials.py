"""Tells of refusals that somebody should know of: each once in a while, however often it is met.

Nobody decides here how long an audit log keeps still about the same thing (``services.facts`` does): this is what
spares the database from being asked for each of a thousand refusals a second. So what is remembered must not be of
the visitor's choice: an address outside, of which there are many, is no part of it, nor is a session that does not
exist.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Protocol

from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.visit import Visit

log = logging.getLogger(__name__)

SECONDS = 300.0
"""The same refusal of the same visitor is told again after so long."""
MOST_KEPT = 1000
UNKNOWN_SESSION = "unknown_session"
WRONG_HOST = "wrong_host"


class Denied(Protocol):
    """Is told of refusals, at most once in ``SECONDS`` for each session, person and cause."""

    async def __call__(self, *, session_id: str, username: str, door: str, cause: str, address: str) -> object: ...


class Denials:
    """What was told lately. Belongs to one event loop."""

    def __init__(self, denied: Denied) -> None:
        self._denied = denied
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def tell(self, visit: Visit, access: Access, cause: str) -> None:
        """Tell of a refusal, unless the same was told a moment ago. A failure to tell refuses all the same."""
        if not access.session_id and cause != WRONG_HOST:
            cause = UNKNOWN_SESSION
        key = (access.session_id, access.username, cause)
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


def cause_of(access: Access) -> str:
    """Why these verdicts are a no, in a word for the audit log; empty where nobody need know."""
    if access.verdict is Verdict.SIGN_IN:
        return "" if access.cause == "visit_over" else access.cause
    return {
        Verdict.FORBIDDEN: "forbidden",
        Verdict.ENDED: "ended",
        Verdict.UNKNOWN: UNKNOWN_SESSION,
    }.get(access.verdict, "")
