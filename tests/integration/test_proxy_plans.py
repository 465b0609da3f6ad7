"""Requests that come again and answers whose heads come again, in the portable lane: only time may tell them apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.cycle import Cycle
from launcher.proxy.plan import MOST_PLANS, MOST_TARGET_BYTES, Plan
from launcher.proxy.reading import MOST_READINGS, Reading
from tests.alive import alive
from tests.integration.proxy_peers import COOKIE, LABEL, Answer, Portal, Pouring, Raw, Request, Upstream, answering
from tests.waiting import standstill, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def portal() -> AsyncIterator[Portal]:
    """A portal in the portable lane, in front of a server in a job."""
    async with Upstream().running() as upstream, Portal(upstream, lane="portable").running() as running:
        yield running


async def ask(portal: Portal, raw: Raw, target: str = "/x", *fields: bytes, method: str = "GET") -> Answer:
    raw.writer.write(portal.head(method, target, *fields))
    return await raw.answer(head_only=method == "HEAD")


@pytest.mark.parametrize("target", ["/", "/a%2Fb//c?x=%20&y", "/?token=evil&z=1", "/%23@:1"])
async def test_the_server_gets_the_same_head_each_time(portal: Portal, target: str) -> None:
    raw = await portal.connect()
    for _ in range(3):
        assert (await ask(portal, raw, target, b"X-A: b", b"Remote-User: root")).body == b"hello"
    heads = {request.head for request in portal.upstream.requests}
    assert len(heads) == 1
    assert b"evil" not in heads.pop()
    await raw.close()


async def test_one_path_is_not_anothers_and_no_method_anothers(portal: Portal) -> None:
    raw = await portal.connect()
    for _ in range(2):
        for method, target in (("GET", "/1"), ("GET", "/2"), ("GET", "/2?q"), ("HEAD", "/1"), ("DELETE", "/1")):
            assert (await ask(portal, raw, target, method=method)).status == 200
    asked = [request.head.split(b" HTTP/")[0] for request in portal.upstream.requests]
    assert asked == 2 * [b"GET /1", b"GET /2", b"GET /2?q", b"HEAD /1", b"DELETE /1"]
    await raw.close()


async def test_the_permission_and_the_secret_are_those_of_now(portal: Portal) -> None:
    raw = await portal.connect()
    assert [(await ask(portal, raw)).status for _ in range(3)] == [200] * 3
    allowed = portal.access[LABEL, COOKIE]
    assert allowed.target is not None
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.access.drop(user_id=1)  # the heads are still known, unlike with the proxy's own drop
    await until(lambda: portal.proxy.access.cached(LABEL, COOKIE) is None)
    assert [(await ask(portal, raw)).status for _ in range(3)] == [404] * 3
    portal.access[LABEL, COOKIE] = replace(allowed, target=replace(allowed.target, secret="s" * 43))
    portal.proxy.access.drop(user_id=1)
    await until(lambda: portal.proxy.access.cached(LABEL, COOKIE) is None)
    assert [(await ask(portal, raw)).status for _ in range(3)] == [200] * 3
    heads = [request.head for request in portal.upstream.requests]
    assert [b"s" * 43 in head for head in heads] == [False] * 3 + [True] * 3
    await raw.close()


@pytest.mark.parametrize(
    ("target", "fields"), [("/x", (b"Sec-Fetch-Site: cross-site",)), ("/.footbridge/", ()), ("/.footbridge/x", ())]
)
async def test_what_is_refused_at_first_is_refused_again(
    portal: Portal, target: str, fields: tuple[bytes, ...]
) -> None:
    raw = await portal.connect()
    assert [(await ask(portal, raw, target, *fields)).status in (403, 404) for _ in range(3)] == [True] * 3
    assert not portal.upstream.requests
    assert not alive(Plan)
    await raw.close()


async def test_of_requests_no_more_is_kept_than_a_little_and_nothing_of_their_connection(portal: Portal) -> None:
    raw = await portal.connect()
    for number in range(MOST_PLANS + 10):
        assert (await ask(portal, raw, f"/{number}")).status == 200
    assert (await ask(portal, raw, "/" + "x" * MOST_TARGET_BYTES)).status == 200
    assert 0 < len(alive(Plan)) <= MOST_PLANS
    assert not any(len(plan.visit.raw_path) > MOST_TARGET_BYTES for plan in alive(Plan))
    await raw.close()
    await until(lambda: not portal.state.connections)
    assert alive(Plan)
    assert not alive(Cycle)
    portal.proxy.drop(session_id="session-1")
    assert not alive(Plan)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nX-A:  b\r\nContent-Length: 3\r\n", b"abc"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nSet-Cookie: a=b; Domain=x\r\n", b"abc"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_a_head_that_came_before_is_answered_with_like_the_first(
    portal: Portal, method: str, head: bytes, body: bytes
) -> None:
    raw = await portal.connect()
    portal.upstream.handler = answering(head + b"\r\n" + (b"" if method == "HEAD" else body))
    first, *others = [await ask(portal, raw, method=method) for _ in range(4)]
    assert first.status == int(head[9:12])
    assert others == [first] * 3
    assert portal.upstream.connections == 1
    await raw.close()


async def test_a_server_that_says_less_than_it_announced_gets_nobody_a_whole_answer(portal: Portal) -> None:
    raw = await portal.connect()
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    for _ in range(2):
        assert (await ask(portal, raw)).body == b"abc"
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", close=True)
    raw.writer.write(portal.head("GET", "/x"))
    assert b"200" in (await raw.head()).head
    assert await raw.reader.read() in (b"", b"ab")
    await raw.close()


async def test_a_session_that_moved_to_another_prefix_is_not_reached_below_the_old_one(portal: Portal) -> None:
    raw = await portal.connect()
    assert [(await ask(portal, raw)).status for _ in range(3)] == [200] * 3
    here = portal.access[LABEL, COOKIE]
    assert here.target is not None
    portal.access[LABEL, COOKIE] = replace(here, target=replace(here.target, base_url="/below/"))
    portal.proxy.access.drop(user_id=1)
    await until(lambda: portal.proxy.access.cached(LABEL, COOKIE) is None)
    assert [(await ask(portal, raw)).status for _ in range(3)] == [404] * 3
    assert len(portal.upstream.requests) == 3
    await raw.close()


async def test_the_last_answer_before_the_web_server_stops_says_so_and_closes(portal: Portal) -> None:
    go_on = asyncio.Event()
    go_on.set()

    async def waits(request: Request) -> None:
        await go_on.wait()
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    portal.upstream.handler = waits
    raw = await portal.connect()
    for _ in range(2):
        assert (await ask(portal, raw)).body == b"abc"
    go_on.clear()
    raw.writer.write(portal.head("GET", "/x"))
    await until(lambda: len(portal.upstream.requests) == 3)
    portal.stop()
    go_on.set()
    async with asyncio.timeout(60):
        rest = await raw.reader.read()
    assert rest.lower().count(b"connection: close\r\n") == 1
    assert rest.endswith(b"\r\n\r\nabc")
    await raw.close()


async def test_a_known_answer_waits_for_a_browser_that_takes_nothing(portal: Portal) -> None:
    pouring = Pouring()
    portal.upstream.handler = pouring
    for _ in range(2):  # the second one's head is known
        pouring.sent = 0
        raw = await portal.connect()
        raw.take_little()
        raw.writer.write(portal.head("GET", "/x"))
        await raw.head()
        assert await standstill(lambda: pouring.sent) < pouring.SIZE // 2
        await raw.skip(pouring.SIZE)
        await raw.close()


async def test_a_known_answer_is_in_the_web_servers_log_where_it_keeps_one(
    portal: Portal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.access")
    raw = await portal.connect()
    await ask(portal, raw)
    for connection in portal.state.connections:
        monkeypatch.setattr(connection, "access_log", True)
    for _ in range(3):
        assert (await ask(portal, raw)).status == 200
    assert len([line for line in caplog.records if line.name == "uvicorn.access"]) == 3
    await raw.close()


async def test_a_body_behind_a_known_head_goes_out_without_uvicorns_events(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, slow = RequestResponseCycle.send, []

    async def send(self: RequestResponseCycle, message: Any) -> None:
        slow.append(message["type"])
        await usual(self, message)

    monkeypatch.setattr(RequestResponseCycle, "send", send)
    raw = await portal.connect()
    await ask(portal, raw)
    assert slow == ["http.response.start", "http.response.body"]
    for _ in range(3):
        assert (await ask(portal, raw)).body == b"hello"
    assert len(slow) == 2
    await raw.close()


async def test_readings_that_are_forgotten_take_their_plans_along(portal: Portal) -> None:
    raw = await portal.connect()
    for number in range(MOST_READINGS + 2):
        assert (await ask(portal, raw, "/x", b"X-Number: %d" % number)).status == 200
    assert 0 < len([reading for reading in alive(Reading) if reading.is_kept]) <= 2
    assert len(alive(Plan)) <= 2
    await raw.close()
