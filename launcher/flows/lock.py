"""A lock that one worker holds while its round goes on. That of a worker that died is free again soon."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from django.core.cache import cache
from redis import RedisError

from portal.ids import random_name


@contextlib.contextmanager
def held(name: str, *, lock_seconds: float, longest_seconds: float) -> Iterator[bool]:
    """Hold the lock ``name``; False where another worker has it.

    It runs out after ``lock_seconds`` and is renewed meanwhile, but not beyond ``longest_seconds``.
    """
    mark, is_over = random_name(16), threading.Event()

    def renew() -> None:
        ends_at = time.monotonic() + longest_seconds
        while not is_over.wait(lock_seconds / 4) and time.monotonic() < ends_at:
            with contextlib.suppress(RedisError):  # the next try may reach it
                if cache.get(name) != mark:  # it ran out, and may be another worker's by now
                    return
                cache.touch(name, lock_seconds)

    if not cache.add(name, mark, lock_seconds):
        yield False
        return
    renewer = threading.Thread(target=renew, name=name, daemon=True)
    renewer.start()
    try:
        yield True
    finally:
        is_over.set()
        renewer.join()
        if cache.get(name) == mark:  # else it ran out, and another worker has it
            cache.delete(name)
