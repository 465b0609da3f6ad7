"""Says whether this web process can do its work: the database and Valkey; and whether a worker was seen lately."""

from __future__ import annotations

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from launcher.figures import WORKER_SEEN


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _cache() -> None:
    cache.get("health")


@never_cache
def health(request: HttpRequest) -> JsonResponse:
    """200 with the state of each part, or 503 when this process can do no work. Says nothing about people or clusters.

    A silent worker is no reason to take web processes away: pages and open notebooks go on without it.
    """
    parts: dict[str, str] = {}
    for name, check in (("database", _database), ("valkey", _cache)):
        try:
            check()
        except Exception:
            parts[name] = "failing"
        else:
            parts[name] = "ok"
    failing = "failing" in parts.values()
    parts["worker"] = "ok" if not failing and cache.get(WORKER_SEEN) else "silent"
    return JsonResponse({"status": "failing" if failing else "ok", "parts": parts}, status=503 if failing else 200)
