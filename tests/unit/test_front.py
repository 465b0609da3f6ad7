"""Which process answers what, when pages and sessions are served by processes of their own (``PORTAL_SERVES``)."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from launcher.proxy.access import AccessCache
from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.app import Proxy
from launcher.proxy.dial import TCPDial
from launcher.proxy.sites import Site
from launcher.proxy.upstream import Limits, UpstreamPool
from portal.front import Front, Serves

PORTAL = "portal.example"
LABEL = "q7wz" * 6
SESSION_ID = "abcdefgh2345"
ELSEWHERE = 421


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The portal's own pages."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


async def nobody(**_: str) -> None:
    """Neither codes nor a log here."""


def front(serves: Serves) -> Front:
    async def look_up(*, label: str, cookie_value: str) -> Access:
        return Access(Verdict.UNKNOWN)

    proxy = Proxy(
        site=Site(portal_url=f"https://{PORTAL}", sessions_domain="sessions.example"),
        access=AccessCache(look_up),
        upstreams=UpstreamPool(TCPDial(), limits=Limits()),
        redeem=nobody,
        denied=nobody,
    )
    return Front(pages=pages, proxy=proxy, hosts=[PORTAL], serves=serves)


async def status_of(application: Front, host: str, path: str) -> int:
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", host.encode())],
        "client": ("192.0.2.1", 1),
    }
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await application(scope, receive, send)
    return int(said[0]["status"])


@pytest.mark.parametrize("serves", get_args(Serves))
@pytest.mark.parametrize(
    ("host", "path", "is_session"),
    [
        (PORTAL, "/", False),
        (PORTAL, "/s/", False),
        (PORTAL, f"/sessions/{SESSION_ID}/", False),
        (PORTAL, f"/s/{SESSION_ID}/", True),
        (PORTAL, f"/s/{SESSION_ID}/lab/tree/a.ipynb", True),
        (f"{LABEL}.sessions.example", "/", True),
        (f"{LABEL}.sessions.example", f"/s/{SESSION_ID}/", True),
    ],
)
async def test_each_process_answers_its_own_and_sends_the_rest_away(
    serves: Serves, host: str, path: str, is_session: bool
) -> None:
    own = {"all": 404 if is_session else 200, "sessions": 404, "pages": 200}[serves]
    is_elsewhere = serves != "all" and is_session != (serves == "sessions")
    assert await status_of(front(serves), host, path) == (ELSEWHERE if is_elsewhere else own)


@pytest.mark.parametrize("serves", get_args(Serves))
async def test_every_process_says_that_it_is_well_on_the_portals_host_alone(serves: Serves) -> None:
    application = front(serves)
    assert await status_of(application, PORTAL, "/health/") == 200
    assert await status_of(application, f"{LABEL}.sessions.example", "/health/") in (404, ELSEWHERE)
