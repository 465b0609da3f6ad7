"""Keeps an answer of the cluster for a moment in the shared cache. Without the cache it is asked for every time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar, cast

from django.core.cache import cache
from redis import RedisError

Answer = TypeVar("Answer")


def remembered(key: str, seconds: int, ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` answered in the last ``seconds``, else what it answers now. Raises what ``ask`` raises."""
    with contextlib.suppress(RedisError):
        kept = cache.get(key)
        if kept is not None:
            return cast(Answer, kept)
    answer = ask()
    with contextlib.suppress(RedisError):
        cache.set(key, answer, seconds)
    return answer
