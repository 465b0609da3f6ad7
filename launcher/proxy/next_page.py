"""The page that somebody wanted, on its way through the portal and back: an address that leads nowhere else."""

from __future__ import annotations

import re
from urllib.parse import quote

from launcher.proxy.sites import OWN_PATHS
from launcher.proxy.visit import Visit

MOST_BYTES = 2048
_REFUSED = re.compile(r"[\x00-\x20\x7f\\]")
_CLIMBS = re.compile(r"[^?#]*/(?:\.|%2e){1,2}(?:[/?#]|\Z)", re.IGNORECASE)
"""A path that browsers make another one of, before they ask for it."""


def wanted(visit: Visit) -> str:
    """The page that was asked for."""
    return (visit.raw_path + (b"?" + visit.query if visit.query else b"")).decode("utf-8", "replace")


def safe_next(value: str, path: str = "/") -> str:
    """An address below ``path``, ready for a ``Location`` field; ``path`` for anything that could lead elsewhere."""
    quoted = quote(value, safe="/%:@!$&'()*+,;=?-._~")
    if (
        not value.startswith(path)
        or value.startswith(("//", path + OWN_PATHS.decode("ascii")))
        or _REFUSED.search(value)
        or _CLIMBS.match(value)
        or len(quoted) > MOST_BYTES
    ):
        return path
    return quoted
