"""Sign-ins that wait for somebody's answers to the cluster's questions, in this process and for two minutes.

Only the process that holds the connection to the login host can go on with it. A request that reaches another one, or
comes late, finds nothing here, and the person begins again.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from portal.accounts.throttle import Try
from portal.accounts.ways.base import Waiting

MOST = 200
"""In a process. The one that has waited longest gives way. The throttle bounds them for an account."""


@dataclass(frozen=True, slots=True)
class Connects:
    """Somebody signed in, who connects their account on a cluster instead of signing in."""

    user_id: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Held:
    """A sign-in that waits, and what is needed to finish it."""

    waiting: Waiting
    way: str
    username: str
    attempt: Try  # stays counted until the last answer was right
    target: str  # where the person wanted to go
    connects: Connects | None = None  # it is none, and lets nobody in


_held: OrderedDict[str, Held] = OrderedDict()
_lock = threading.Lock()


def keep(one: Held) -> str:
    """Keep it; the key is for the web session of the browser that asked, and nobody else."""
    key = secrets.token_urlsafe(24)
    with _lock:
        for name in [name for name, held in _held.items() if held.waiting.is_over]:
            del _held[name]
        dropped = []
        _held[key] = one
        while len(_held) > MOST:
            dropped.append(_held.popitem(last=False)[1])
    for held in dropped:
        held.waiting.give_up()
    return key


def find(key: str, connects: Connects | None = None) -> Held | None:
    """What waits under this key, for this purpose."""
    with _lock:
        held = _held.get(key)
    return held if held is not None and held.connects == connects and not held.waiting.is_over else None


def take(key: str, connects: Connects | None = None) -> Held | None:
    """The same, for the one request that answers: a second one at the same time finds nothing."""
    with _lock:
        held = _held.get(key)
        if held is None or held.connects != connects:
            return None
        del _held[key]
    return held if not held.waiting.is_over else None
