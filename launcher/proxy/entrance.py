"""How a browser gets into a session's address: with a code that works only in the browser that asked for it.

``begin`` leaves a nonce with the browser, as a cookie of two minutes, and sends it to the portal with the nonce's
digest. The portal makes a one-time code for that digest (``launcher.grants``) and sends the browser back; code and
nonce together are exchanged for the cookie that opens the session. Each entry has a cookie of its own, named by its
digest, so tabs that enter at the same time do not disturb each other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from launcher.proxy import pages
from launcher.proxy.cookies import cookie_value, names_of
from launcher.proxy.next_page import safe_next
from launcher.proxy.pages import Page
from launcher.proxy.sites import Site
from launcher.proxy.visit import Visit
from portal import ids

NONCE_SECONDS = 120
MOST_ENTRIES = 8
"""Nonces that a browser keeps for one address. Beyond, the oldest go: their cookies stay few. None is taken again: a
page of the session could have planted it."""

_CODE = re.compile(r"[A-Za-z0-9_-]{16,128}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME_END = re.compile(r"-entry-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a browser brings back from the portal. Empty: it is missing, or nothing that we make."""

    code: str = field(repr=False)
    nonce: str = field(repr=False)
    goal: str
    cookie_name: str
    path: str


class Entrance:
    """What is said at the two own paths of a session's address that lead into it. ``app`` decides who may come in."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def begin(self, visit: Visit, goal: str) -> Page:
        """To the portal, which knows who this is: it sends those back who may come in. ``goal``: the page they want."""
        path = visit.origin.path.decode("ascii")
        nonce = ids.secret()
        digest = hashlib.sha256(nonce.encode("ascii")).hexdigest()
        goal = safe_next(goal, path)
        query = urlencode({"entry": digest} | ({"next": goal} if goal != path else {}))
        cookie = self._cookie(self._name(visit, digest), nonce, path, seconds=NONCE_SECONDS)
        page = pages.redirect(f"{self._site.portal_url}/sessions/by-address/{visit.label}/?{query}").setting(cookie)
        for name in self._surplus(visit):
            page = page.setting(self._cookie(name, "", path, seconds=0))
        return page

    def brought(self, visit: Visit) -> Entry:
        """The entry that a request wants to finish."""
        query = query_of(visit)
        path = visit.origin.path.decode("ascii")
        code, digest = query.get("code", ""), query.get("entry", "")
        name = self._name(visit, digest) if is_digest(digest) else ""
        nonce = cookie_value(visit.fields.get(b"cookie", b""), name.encode("ascii")) if name else ""
        return Entry(
            code=code if _CODE.fullmatch(code) else "",
            nonce=nonce if _NONCE.fullmatch(nonce) else "",
            goal=safe_next(query.get("next", path), path),
            cookie_name=name,
            path=path,
        )

    def admit(self, entry: Entry, cookie: str) -> Page:
        """On to the page that was wanted, with the cookie that opens the session."""
        name = self._site.cookie_name(entry.path.encode("ascii"))
        page = pages.redirect(entry.goal, status=303).setting(self._cookie(name, cookie, entry.path))
        return self.end(entry, page)

    def end(self, entry: Entry, page: Page) -> Page:
        """The page, and the end of this entry."""
        if not entry.cookie_name:
            return page
        return page.setting(self._cookie(entry.cookie_name, "", entry.path, seconds=0))

    def _surplus(self, visit: Visit) -> list[str]:
        """The cookies to end where a browser has many, the oldest; usually there are none."""
        prefix = self._site.cookie_name(visit.origin.path)
        names = names_of(visit.fields.get(b"cookie", b""), prefix.encode("ascii"))
        kept = [name for name in dict.fromkeys(names) if _NAME_END.fullmatch(name, len(prefix))]
        return kept[: min(max(0, len(kept) + 1 - MOST_ENTRIES), MOST_ENTRIES)]  # an answer's head has room for a few

    def _name(self, visit: Visit, digest: str) -> str:
        return f"{self._site.cookie_name(visit.origin.path)}-entry-{digest[:16]}"

    def _cookie(self, name: str, value: str, path: str, *, seconds: int | None = None) -> str:
        age = "" if seconds is None else f"; Max-Age={seconds}"
        return f"{name}={value}; Path={path}{age}; HttpOnly; SameSite=Lax{'; Secure' if self._site.is_https else ''}"


def is_digest(text: str) -> bool:
    """Whether ``text`` has the form of a nonce's digest."""
    return _DIGEST.fullmatch(text) is not None


def query_of(visit: Visit) -> dict[str, str]:
    """The query's parameters; of several with one name, the last."""
    return dict(parse_qsl(visit.query.decode("latin-1")[:8192]))
