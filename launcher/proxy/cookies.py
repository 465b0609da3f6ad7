"""Which cookies pass between a browser and the server in a job, in both directions. Pure: bytes in, bytes out.

At an address of its own, a session may keep any cookie but the portal's. Below the portal's address (path mode) the
browser sends along whatever belongs to the portal's host, also what other applications left there: then only names
that notebook servers are known to use pass, and they are set for the session's own path.
"""

from __future__ import annotations

RESERVED_COOKIES = (b"footbridge", b"portal")
"""Cookies whose names begin so are ours: never shown to the server in the job, never set by it."""

_NOTEBOOK_COOKIES = (b"_xsrf", b"username-")
"""How the names of Jupyter's own cookies begin: the one against forged requests, and the one for its user."""


def is_reserved_cookie(name: bytes) -> bool:
    """Whether a cookie of this name belongs to the portal. Browsers compare the ``__Host-`` prefix without case."""
    lower = name.strip().lower()
    for prefix in (b"__host-", b"__secure-"):
        lower = lower.removeprefix(prefix)
    return lower.startswith(RESERVED_COOKIES)


def _may_pass(name: bytes, path: bytes) -> bool:
    if path == b"/":
        return not is_reserved_cookie(name)
    return name.strip().startswith(_NOTEBOOK_COOKIES)


def passing_cookies(value: bytes, path: bytes = b"/") -> bytes:
    """A ``Cookie`` field without what does not belong to the session at ``path``, otherwise as it came; empty when
    nothing is left.
    """
    pairs = value.split(b";")
    kept = [pair for pair in pairs if _may_pass(pair.partition(b"=")[0], path)]
    if len(kept) == len(pairs):
        return value
    return b";".join(kept).strip()


def cookie_value(value: bytes, name: bytes) -> str:
    """The value of the first cookie called ``name``, empty when there is none."""
    for pair in value.split(b";"):
        key, equals, content = pair.strip().partition(b"=")
        if equals and key == name:
            return content.decode("latin-1")
    return ""


def names_of(value: bytes, prefix: bytes) -> list[str]:
    """The names of all cookies that begin with ``prefix``, in the order they came."""
    pairs = (pair.strip().partition(b"=") for pair in value.split(b";"))
    return [key.decode("latin-1") for key, equals, _ in pairs if equals and key.startswith(prefix)]


def confined_cookie(value: bytes, path: bytes = b"/") -> bytes:
    """A ``Set-Cookie`` without its domain, so that it stays on this host, and within ``path``; empty when its name is
    ours or missing.

    A cookie without a name is sent back as its bare value, which could then look like one of ours.
    """
    pair, *attributes = value.split(b";")
    name, equals, _ = pair.partition(b"=")
    if not equals or not name.strip() or not _may_pass(name, path):
        return b""
    kept = [item for item in attributes if item.partition(b"=")[0].strip().lower() != b"domain"]
    if path != b"/":
        wanted = next((item for item in reversed(kept) if _is_path(item)), b"").partition(b"=")[2].strip()
        inside = wanted if _is_inside(wanted, path) else path  # browsers take the last one
        kept = [item for item in kept if not _is_path(item)] + [b" Path=" + inside]
    return b";".join((pair, *kept))


def _is_path(attribute: bytes) -> bool:
    return attribute.partition(b"=")[0].strip().lower() == b"path"


def _is_inside(wanted: bytes, path: bytes) -> bool:
    return wanted.startswith(path) and b".." not in wanted and b"%" not in wanted and b"\\" not in wanted
