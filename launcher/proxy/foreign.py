"""Whether a request comes from the session's own pages, by what no page of another site can make a browser say.

Refused are, beyond those without permission:
- a WebSocket whose ``Origin`` is missing or is not exactly this session's address;
- a request that may change something (any method but GET, HEAD, OPTIONS) unless its origin is this address: ``Origin``
  must say so, or, where a browser leaves it out or says ``null``, ``Sec-Fetch-Site: same-origin``, which no page can
  forge;
- anything a browser marks as coming from another site, but for a plain navigation of a whole tab.

And whether a person asks at all: browsers also load pages that somebody might want next.
"""

from __future__ import annotations

from collections.abc import Mapping

from launcher.proxy.visit import Visit

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_PURPOSES = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")


def why_foreign(visit: Visit, method: str, is_socket: bool) -> str:
    """Why this request cannot come from the session's own pages; empty when it can. See the module's docstring."""
    fields = visit.fields
    origin = fields.get(b"origin")
    if is_socket:
        return "" if origin == visit.origin.serialized else "origin"
    site = fields.get(b"sec-fetch-site")
    if method not in _SAFE_METHODS:
        if site is not None and site != b"same-origin":
            return "cross_site"
        if origin is None or origin == b"null":
            return "" if site == b"same-origin" else "origin"
        return "" if origin == visit.origin.serialized else "origin"
    if site in (None, b"same-origin", b"none"):
        return ""
    is_tab = fields.get(b"sec-fetch-mode") == b"navigate" and fields.get(b"sec-fetch-dest") == b"document"
    return "" if is_tab and method != "OPTIONS" else "cross_site"


def is_of_own_page(visit: Visit) -> bool:
    """Whether a page asks that was loaded from this address when its visitor could enter. Programs may claim so."""
    return visit.fields.get(b"sec-fetch-site") == b"same-origin" and not visit.is_navigation


def is_ahead(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a browser loads this page before anybody wants it. ``fields``: the head by lower-case name."""
    return any(fields.get(name, b"").startswith((b"prefetch", b"preview")) for name in _PURPOSES)
