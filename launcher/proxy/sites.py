"""Where the portal and its sessions live, and which session a request is for. Pure.

A session is found at an origin of its own, ``<label>.<sessions domain>``, or, where a site has no wildcard DNS, below
the portal's own address at ``/s/<session id>/``. Which of the two it is was decided when the session was launched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from launcher.proxy.headers import Origin

PATHS = b"/s/"
"""Sessions without an origin of their own are below this path of the portal."""
OWN_PATHS = b".footbridge/"
"""Paths below this one of a session's address are the proxy's own; they never reach the server in the job."""

_LABEL = re.compile(rb"[a-z0-9]{24}")
_PATH = re.compile(rb"/s/([a-z0-9]{12})(?:/|\Z)")


def path_of(session_id: str) -> str:
    """The path at which a session without an origin of its own is served."""
    return f"/s/{session_id}/"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the portal and its sessions live. ``trusted_proxies`` are believed when they name the client."""

    portal_url: str
    sessions_domain: str
    trusted_proxies: frozenset[str] = frozenset()

    @property
    def is_https(self) -> bool:
        """Whether browsers come over TLS."""
        return self.portal_url.startswith("https://")

    def cookie_name(self, path: bytes = b"/") -> str:
        """The cookie of a session's address. The strictest prefix for a name is only for a whole host."""
        if not self.is_https:
            return "footbridge"
        return "__Host-footbridge" if path == b"/" else "__Secure-footbridge"


@dataclass(frozen=True, slots=True)
class Place:
    """A session's address: the label (of its host, or its id) and the origin with its path."""

    label: str
    origin: Origin


NOWHERE = Place("", Origin("http", b""))


class Places:
    """Reads a session's address out of a request."""

    def __init__(self, site: Site) -> None:
        self._scheme: Literal["http", "https"] = "https" if site.is_https else "http"
        parts = urlsplit(site.portal_url)
        usual = 443 if site.is_https else 80
        port = parts.port or usual
        domain = b"." + site.sessions_domain.lower().encode("idna")
        portal = (parts.hostname or "").encode("idna")
        if b":" in portal:
            portal = b"[" + portal + b"]"
        suffix = b"" if port == usual else b":%d" % port
        self._suffix = domain + suffix
        self._suffixes = {self._suffix, domain + b":%d" % port}
        self._portal = portal + suffix
        self._portals = {self._portal, portal + b":%d" % port}

    def find(self, host: bytes, raw_path: bytes) -> Place:
        """The session's address that a ``Host`` field and a path name exactly, port included; else ``NOWHERE``."""
        host = host.lower()
        if host[24:] in self._suffixes and _LABEL.fullmatch(host, 0, 24):
            return Place(host[:24].decode("ascii"), Origin(self._scheme, host[:24] + self._suffix))
        if raw_path.startswith(PATHS) and host in self._portals:
            found = _PATH.match(raw_path)
            if found:
                return Place(found[1].decode("ascii"), Origin(self._scheme, self._portal, b"/s/" + found[1] + b"/"))
        return NOWHERE
