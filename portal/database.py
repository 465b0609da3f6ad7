"""Turns the database's URL into Django's setting. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def database_settings(url: str) -> dict[str, Any]:
    """Django's entry for ``url``: ``sqlite:///path`` or ``postgresql://user:password@host:port/name?option=value``.

    SQLite runs with a write-ahead log and takes its write lock at the start of a transaction: with the defaults,
    concurrent writers lose inserts to "database is locked".
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path[1:]),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000;",
            },
        }
    if parts.scheme in ("postgres", "postgresql"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path[1:]),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or ""),
            "PORT": str(parts.port or ""),
            # under ASGI each request has a thread of its own: a connection kept for a next one would be found by none,
            # and stay open until the server takes no more; why there is no pool: docs/decisions/0012
            "CONN_MAX_AGE": 0,
            "OPTIONS": dict(parse_qsl(parts.query)),
        }
    raise ValueError(f"PORTAL_DATABASE_URL: {parts.scheme or 'nothing'} is not supported; use sqlite or postgresql")
