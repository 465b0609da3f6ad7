"""What the proxy itself says at a session's own address: small pages for people, short JSON for programs.

A page needs nothing from outside, runs no script, and never repeats what the request said. Whoever is not entitled gets
the same page as for an address that does not exist.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass, replace
from html import escape

from django.utils.translation import get_supported_language_variant, gettext, override
from django.utils.translation.trans_real import parse_accept_lang_header

from launcher.proxy.errors import UpstreamBroken, UpstreamBusy, UpstreamError, UpstreamSilent

_STYLE = (
    ":root{color-scheme:light dark;--ink:#13242a;--muted:#4c5e64;--back:#f2f6f6;--card:#fff;--line:#d5dfe0;"
    "--accent:#0a6a70;--on:#fff}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6eff0;--muted:#a9bbbe;--back:#0f191c;--card:#172528;"
    "--line:#2b3c40;--accent:#6cc5c9;--on:#0b1618}}"
    "body{font:1rem/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;"
    "background:var(--back);color:var(--ink)}"
    "main{box-sizing:border-box;max-width:34rem;margin:1rem;padding:2rem;background:var(--card);"
    "border:1px solid var(--line);border-top:4px solid var(--accent);border-radius:.75rem}"
    "h1{font-size:1.5rem;line-height:1.25;margin:0}p{color:var(--muted)}"
    "a{display:inline-block;margin-top:.5rem;padding:.6rem 1.1rem;border-radius:.5rem;background:var(--accent);"
    "color:var(--on);font-weight:600;text-decoration:none}"
    "a:focus-visible{outline:3px solid var(--accent);outline-offset:3px}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON = [
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say: the HTTP status, a word for programs, and when to come again (0: no use)."""

    status: int
    code: str
    retry_seconds: int = 0
    reload_seconds: int = 0  # a page for people loads itself again
    to_session: bool = False  # the link leads to the portal's page about the session, else to the portal


NOT_FOUND = Notice(404, "not_found")
NO_ENTRY = Notice(403, "no_entry")
"""For what an open page still asks for. At a 404, JupyterLab takes a folder for gone, and looks for it without end."""
CODE_USED = Notice(403, "code_used")
REFUSED = Notice(403, "refused")
NOT_READY = Notice(503, "not_ready", retry_seconds=3, reload_seconds=3, to_session=True)
ENDED_PAGE = Notice(410, "ended", to_session=True)
ENDED = Notice(503, "ended", retry_seconds=60)
UNREACHABLE = Notice(503, "unreachable", retry_seconds=5, reload_seconds=5, to_session=True)
BUSY = Notice(503, "busy", retry_seconds=2, to_session=True)
TOO_MANY = Notice(429, "busy", retry_seconds=2, to_session=True)
SILENT = Notice(504, "silent", retry_seconds=10, to_session=True)
BROKEN = Notice(502, "broken", retry_seconds=5, to_session=True)
UNSURE = Notice(503, "unsure", retry_seconds=5, reload_seconds=5)
METHOD = Notice(405, "method")
ELSEWHERE = Notice(421, "elsewhere")
RESTARTING = Notice(503, "restarting", retry_seconds=3)


_WHY = {408: "too_slow", 414: "address_too_long", 431: "head_too_long"}


def bad_request(status: int) -> Notice:
    """A request that cannot pass."""
    return Notice(status, _WHY.get(status, "bad_request"))


@dataclass(frozen=True, slots=True)
class Page:
    """A complete answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def setting(self, cookie: str) -> Page:
        """The same with a cookie to set."""
        return replace(self, headers=[*self.headers, (b"set-cookie", cookie.encode("ascii"))])


def language_of(accept_language: bytes) -> str:
    """The best language the portal has for an ``Accept-Language`` field."""
    for code, _ in parse_accept_lang_header(accept_language[:200].decode("latin-1")):
        try:
            return get_supported_language_variant(code)
        except LookupError:
            continue
    return "en"


@functools.lru_cache(maxsize=1024)
def as_page(notice: Notice, *, language: str, link: str) -> Page:
    """The notice for a person. ``link`` is the portal's own address or one below it.

    Pages are kept: the same one is often wanted again at once. Nobody may change one.
    """
    with override(language):
        title, text = _words(notice.code)
        label = _label(notice)
    refresh = f'<meta http-equiv="refresh" content="{notice.reload_seconds}">' if notice.reload_seconds else ""
    body = (
        f'<!doctype html><html lang="{escape(language)}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">{refresh}'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p>{escape(text)}</p><a href="{escape(link)}">{escape(label)}</a>'
        "</main></body></html>"
    ).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _POLICY.encode()),
        *_COMMON,
    ]
    return _complete(notice, headers, body)


@functools.lru_cache(maxsize=128)
def as_json(notice: Notice) -> Page:
    """The notice for a program."""
    body = json.dumps({"error": notice.code, "message": _plain(notice)}).encode()
    return _complete(notice, [(b"content-type", b"application/json"), *_COMMON], body)


def redirect(location: str, *, status: int = 302) -> Page:
    """Go elsewhere."""
    return Page(status, [(b"location", location.encode("ascii")), *_COMMON, (b"content-length", b"0")], b"")


def _complete(notice: Notice, headers: list[tuple[bytes, bytes]], body: bytes) -> Page:
    if notice.retry_seconds:
        headers.append((b"retry-after", b"%d" % notice.retry_seconds))
    if notice is METHOD:
        headers.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    headers.append((b"content-length", b"%d" % len(body)))
    return Page(notice.status, headers, body)


def _label(notice: Notice) -> str:
    """What the link leads to, in the language that is active."""
    if notice is NOT_READY:
        return gettext("See progress")
    if notice is ENDED_PAGE:
        return gettext("See why it ended")
    return gettext("About this session") if notice.to_session else gettext("To the portal")


def _plain(notice: Notice) -> str:
    with override("en"):
        return _words(notice.code)[0]


def _words(code: str) -> tuple[str, str]:
    """Title and text, in the language that is active."""
    if code == "not_found":
        return gettext("There is nothing here"), gettext(
            "This address belongs to no session that you can open. If it is yours, open it from the portal."
        )
    if code == "no_entry":
        return gettext("Open the session from the portal, then try again"), gettext(
            "You are not signed in, or this address belongs to no session that you can open."
        )
    if code == "code_used":
        return gettext("This link does not open the session"), gettext(
            "A link into a session works once, for half a minute, and only in the browser that asked for it. Open the "
            "session from the portal. If that leads here again, your browser keeps no cookies for this address: allow "
            "them."
        )
    if code == "refused":
        return gettext("Another site asked for this"), gettext(
            "The request did not come from this session's own pages, so it was not carried out."
        )
    if code == "not_ready":
        return gettext("Not ready yet"), gettext("Your session is starting. This page opens it as soon as it answers.")
    if code == "ended":
        return gettext("This session has ended"), gettext(
            "The portal's page about it says why, and starts a new one like it."
        )
    if code == "unreachable":
        return gettext("Your session cannot be reached"), gettext(
            "The cluster did not let us through to it just now. This page tries again by itself."
        )
    if code == "busy":
        return gettext("Too much at once"), gettext(
            "This session has more requests open than it may have. Close some tabs and try again."
        )
    if code == "silent":
        return gettext("No answer"), gettext(
            "The server in your job took the request and has not answered. It may be very busy."
        )
    if code == "broken":
        return gettext("A garbled answer"), gettext(
            "The server in your job broke off its answer, or sent one that is no proper answer. Try again."
        )
    if code == "unsure":
        return gettext("One moment, please"), gettext(
            "The portal cannot check just now who may open this session. This page tries again by itself."
        )
    if code == "method":
        return gettext("Not possible"), gettext("This kind of request does not pass the portal.")
    if code == "address_too_long":
        return gettext("This address is too long"), gettext(
            "It has more than 16,000 characters. Nothing was carried out. Open the page from the portal again."
        )
    if code == "elsewhere":
        return gettext("Not at this address"), gettext(
            "Another process of the portal answers this. Open the portal's page again."
        )
    if code == "restarting":
        return gettext("The portal is restarting"), gettext("Your session runs on. Try again in a moment.")
    if code == "too_slow":
        return gettext("That took too long"), gettext(
            "The request did not arrive in time, perhaps because your connection is slow or was interrupted. Try again."
        )
    if code == "head_too_long":
        return gettext("Your browser sent too much at once"), gettext(
            "Usually its cookies for this address have grown too large. Clear them in the browser, then try again."
        )
    return gettext("That request cannot pass"), gettext(
        "It is too long, or not what a browser would send. Nothing was carried out."
    )


def notice_for(error: UpstreamError) -> Notice:
    """What is said where the server in a job gave no answer."""
    if isinstance(error, UpstreamBusy):
        return BUSY
    if isinstance(error, UpstreamSilent):
        return SILENT
    if isinstance(error, UpstreamBroken):
        return BROKEN
    return UNREACHABLE
