"""Holds back guessing: after a few wrong passwords the portal stops asking the cluster for a while.

Counted per account and per address, in the shared cache, so that all web processes count together. An attempt is
counted before the password is checked; otherwise many at once would all pass.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from django.core.cache import cache

WINDOW_SECONDS = 600
ADDRESS_FACTOR = 10
"""Several people may share an address, so it may fail this many times as often as one account."""


def _keys(username: str, address: str) -> tuple[tuple[str, int], ...]:
    def key(kind: str, value: str) -> str:
        return f"sign-in:{kind}:{hashlib.sha256(value.encode(errors='replace')).hexdigest()}"

    return (key("account", username.lower()), 1), (key("address", address), ADDRESS_FACTOR)


class Turn(NamedTuple):
    """What becomes of an attempt."""

    granted: bool  # it may go on to the cluster
    is_first_refusal: bool  # of this account or this address: worth an entry in the log, those after it are not


def take_attempt(username: str, address: str, allowed: int) -> Turn:
    """Count an attempt."""
    beyond: list[int] = []
    for key, factor in _keys(username, address):
        cache.add(key, 0, WINDOW_SECONDS)
        try:
            count = cache.incr(key)
        except ValueError:  # it ran out between the two calls
            cache.set(key, 1, WINDOW_SECONDS)
            count = 1
        beyond.append(count - allowed * factor)
    return Turn(granted=max(beyond) <= 0, is_first_refusal=1 in beyond)


def forget_attempts(username: str, address: str) -> None:
    """A right password clears the account's count and takes its own attempt off the address."""
    (account, _), (shared, _) = _keys(username, address)
    cache.delete(account)
    try:
        cache.decr(shared)
    except ValueError:
        return
