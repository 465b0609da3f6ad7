"""Job ids that the scheduler cannot resolve and for which it refuses the whole question: left out for a while.

A row's id may have been issued by a server that is no more. The state of such a session stays what was last known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from django.core.cache import cache
from redis import RedisError

from launcher.sealing import digest

ASIDE_SECONDS = 3600
"""To find one again among a full batch costs about sixteen commands."""


def set_aside(cluster_id: str, job_ids: Collection[str]) -> None:
    """Do not ask for these for a while. Without the cache they are found anew in the next round."""
    with contextlib.suppress(RedisError):
        cache.set_many({_key(cluster_id, job_id): 1 for job_id in job_ids}, ASIDE_SECONDS)


def aside(cluster_id: str, job_ids: Collection[str]) -> set[str]:
    """Those that are not to be asked for now."""
    by_key = {_key(cluster_id, job_id): job_id for job_id in job_ids}
    with contextlib.suppress(RedisError):
        return {by_key[key] for key in cache.get_many(list(by_key))}
    return set()


def _key(cluster_id: str, job_id: str) -> str:
    return f"poll:odd:{cluster_id}:{digest(job_id)}"
