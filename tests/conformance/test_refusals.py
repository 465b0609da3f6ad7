"""The table of refusals: who is turned away, how, and what of it the audit log keeps. It is pinned here.

Each is asked for five times over: what is audited is audited once, and the log gets one line at most. A person who
opens a page without being signed in is sent to the portal, which is no refusal. The same with the real database and
audit log: ``tests/integration/test_refusals_table.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import pytest

from launcher.proxy.access_types import Access, Verdict
from tests.integration.proxy_peers import BEGUN, CODE, COOKIE, ENTER, LABEL, OTHER_LABEL, Portal, Upstream

pytestmark = pytest.mark.integration

Door = Literal["page", "program", "change", "websocket"]
TIMES = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    """What somebody gets at each door, and the cause that is audited there."""

    page: int
    program: int
    change: int
    websocket: int
    audited: str = ""
    at: tuple[Door, ...] = ("page", "program", "change", "websocket")  # where it is audited


NOT_PAGES: tuple[Door, ...] = ("program", "change", "websocket")
TABLE = {
    "stranger without a cookie": Refusal(302, 403, 403, 403, "no_cookie", NOT_PAGES),
    "stranger with a cookie of another session": Refusal(404, 403, 403, 403, "forbidden"),
    "signed out": Refusal(302, 403, 403, 403, "signed_out", NOT_PAGES),
    "revoked": Refusal(404, 403, 403, 403, "forbidden"),
    "ended": Refusal(410, 503, 503, 503, "ended"),
    "wrong origin": Refusal(403, 403, 403, 403, "cross_site or origin"),
    "wrong host": Refusal(404, 404, 404, 403, "wrong_host"),
    "unknown session": Refusal(302, 403, 403, 403, "unknown_session", NOT_PAGES),
    # Only a page uses a code up: a handshake or a change that carries one is not let near it.
    "code used twice": Refusal(403, 403, 404, 403, "code", ("page", "program")),
    "code late": Refusal(403, 403, 404, 403, "code", ("page", "program")),
    "code of another browser": Refusal(403, 403, 404, 403, "code", ("page", "program")),
}


@pytest.fixture(params=["host", "path"])
async def portal(request: pytest.FixtureRequest) -> AsyncIterator[Portal]:
    """A proxy at each kind of address."""
    async with Upstream().running() as upstream, Portal(upstream, address=request.param).running() as portal:
        yield portal


async def attempt(portal: Portal, door: Door, target: str, cookie: str, host: bytes, foreign: bool) -> int:
    """One request at a door; the status of its answer."""
    if door == "websocket":
        raw = await portal.connect()
        handshake = portal.handshake(target, cookie=cookie, origin=b"http://evil.example" if foreign else b"")
        raw.writer.write(handshake.replace(b"Host: " + portal.host, b"Host: " + (host or portal.host)))
        status = (await raw.answer()).status
        await raw.close()
        return status
    method = "POST" if door == "change" else "GET"
    fields = [b"Accept: text/html" if door == "page" else b"Accept: application/json"]
    if host:
        fields.append(b"Origin: http://" + host)
    if foreign:
        fields.append(b"Origin: http://evil.example")
        fields += [b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: no-cors"] if door != "change" else []
    return (await portal.ask(method, target, *fields, cookie=cookie, host=host)).status


@pytest.mark.parametrize("door", ["page", "program", "change", "websocket"])
@pytest.mark.parametrize("who", TABLE)
async def test_the_table_of_refusals(portal: Portal, who: str, door: Door, caplog: pytest.LogCaptureFixture) -> None:
    refusal = TABLE[who]
    target, cookie, host, foreign = "/lab", COOKIE, b"", who == "wrong origin"
    match who:
        case "stranger without a cookie":
            cookie = ""
        case "stranger with a cookie of another session" | "revoked":
            portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="bob", user_id=2)
        case "signed out":
            portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1", cause="signed_out")
        case "ended":
            portal.access[LABEL, COOKIE] = Access(Verdict.ENDED, session_id="session-1", state="ended")
        case "wrong host":
            host = b"evil.example"
        case "unknown session" if portal.address == "host":
            host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
        case "unknown session":
            portal.prefix = "/s/zyxwvutsrqpm"
        case "code used twice":
            portal.codes[CODE] = COOKIE
            assert (await portal.ask("GET", ENTER, BEGUN, cookie="")).status == 303
            target, cookie = ENTER, ""
        case "code late":  # the portal forgets a code after half a minute
            target, cookie = ENTER, ""
        case "code of another browser":
            portal.codes[CODE] = COOKIE
            target, cookie = ENTER, ""
    statuses = {await attempt(portal, door, target, cookie, host, foreign) for _ in range(TIMES)}
    assert statuses == {getattr(refusal, door)}
    assert portal.upstream.requests == []
    causes = [item["cause"] for item in portal.denied]
    if refusal.audited and door in refusal.at:
        assert len(causes) == 1
        assert causes[0] in refusal.audited
    else:
        assert causes == []
    assert len(caplog.records) <= 1
