"""What a worker measured of its last poll round of a cluster, left in the shared cache for pages to show.

Nobody decides anything by it. Without the cache, or when no worker has polled for long, there is nothing to show.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass

from django.core.cache import cache
from redis import RedisError

KEEP_SECONDS = 24 * 3600
WORKER_SEEN = "worker:seen"
"""Key in the shared cache: when a worker last took beat's message, which comes every second; gone after a while."""
WORKER_SEEN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class LastRound:
    """One poll round."""

    began_at: dt.datetime
    seconds: float
    sessions: int  # that have a job, and so were asked about
    commands: int  # status commands
    unanswered: int  # sessions about which there was no usable answer
    next_in_seconds: float  # from the round's end

    @property
    def next_at(self) -> dt.datetime:
        """When the next round is due, unless something happens before."""
        return self.began_at + dt.timedelta(seconds=self.seconds + self.next_in_seconds)


def keep_round(cluster_id: str, last: LastRound) -> None:
    """Leave the figures of a round that is over."""
    with contextlib.suppress(RedisError):
        cache.set(_key(cluster_id), last, KEEP_SECONDS)


def last_round(cluster_id: str) -> LastRound | None:
    """The figures of the last round, if a worker left any."""
    with contextlib.suppress(RedisError):
        kept = cache.get(_key(cluster_id))
        if isinstance(kept, LastRound):
            return kept
    return None


def _key(cluster_id: str) -> str:
    return f"poll:last:1:{cluster_id}"
