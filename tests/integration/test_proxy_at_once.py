"""Requests that begin without a task: the later ones of a browser's connection, with fields that came before.

The conformance list asks most things over new connections; here is what only this way can get wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.app import Proxy
from launcher.proxy.fast.direct import Direct
from launcher.proxy.fast.pump import Offer
from launcher.proxy.repeats import MOST_WHOLE_BYTES, MOST_WHOLES, Block, Blocks, Whole
from launcher.proxy.upstream import Limits
from launcher.proxy.visit import Prepared, Scope
from tests.alive import alive
from tests.integration.proxy_peers import (
    COOKIE,
    LABEL,
    PATH_ID,
    Portal,
    Pouring,
    Raw,
    Request,
    Upstream,
    answering,
    hello,
)
from tests.waiting import standstill, until

pytestmark = pytest.mark.integration


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request with known fields, whether it began at once."""
    outcomes: list[bool] = []
    usual = Proxy.at_once

    def at_once(self: Proxy, scope: Scope, offer: Offer) -> bool:
        outcomes.append(usual(self, scope, offer))
        return outcomes[-1]

    monkeypatch.setattr(Proxy, "at_once", at_once)
    return outcomes


@pytest.fixture
async def portal(begun: list[bool], request: pytest.FixtureRequest) -> AsyncIterator[Portal]:
    """A portal in the fast lane, in front of a server in a job; with the parameter's limits."""
    async with (
        Upstream().running() as upstream,
        Portal(upstream, limits=getattr(request, "param", Limits())).running() as running,
    ):
        yield running


async def warm(portal: Portal) -> Raw:
    """A browser's connection whose fields are known, with a kept connection to the server."""
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/first"))
    assert (await raw.answer()).body == b"hello"
    await until(lambda: portal.proxy.upstreams.idle_connections == 1)
    return raw


@pytest.mark.parametrize("target", ["/", "/a%2Fb//c?x=%20&y", "/?token=evil&z=1", "/%23@:1"])
async def test_the_server_gets_the_same_head_either_way(portal: Portal, begun: list[bool], target: str) -> None:
    raw = await portal.connect()
    for _ in range(3):
        raw.writer.write(portal.head("GET", target, b"X-A: b", b"Accept:  */* ", b"Remote-User: root"))
        assert (await raw.answer()).body == b"hello"
    assert begun == [True, True]
    heads = {request.head for request in portal.upstream.requests}
    assert len(heads) == 1
    assert b"evil" not in heads.pop()
    await raw.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
async def test_answers_of_all_kinds_come_whole_again_and_again(
    portal: Portal, begun: list[bool], method: str, answer: bytes, body: bytes
) -> None:
    raw = await warm(portal)
    portal.upstream.handler = answering(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else answer)
    if method == "HEAD" and b" 103 " in answer:
        portal.upstream.handler = answering(answer.removesuffix(b"abc"))
    for _ in range(3):
        raw.writer.write(portal.head(method, "/x"))
        got = await raw.answer(head_only=method == "HEAD")
        while got.status == 103:
            got = await raw.answer(head_only=method == "HEAD")
        assert (got.status, got.body) == (int(answer.split(b"HTTP/1.1 ")[-1][:3]), b"" if method == "HEAD" else body)
    assert begun == [True] * 3
    assert portal.upstream.connections == 1
    await raw.close()


async def test_an_answer_that_ends_with_its_connection_ends_properly(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\n\r\nabc", close=True)
    raw.writer.write(portal.head("GET", "/x"))
    answer = await raw.answer()
    assert (answer.body, answer.values(b"transfer-encoding")) == (b"abc", [b"chunked"])
    assert begun == [True]
    await raw.close()


async def test_the_permission_is_asked_for_each_request(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.drop(user_id=1)
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).status == 404
    assert begun == [False]
    assert len(portal.upstream.requests) == 1
    await raw.close()


async def test_the_very_same_head_asks_for_the_permission_too(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)

    async def ask() -> int:
        raw.writer.write(portal.head("GET", "/x"))
        return (await raw.answer()).status

    assert [await ask() for _ in range(3)] == [200] * 3
    assert begun == [True] * 3
    open_access = portal.access[LABEL, COOKIE]
    assert open_access.target is not None
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.drop(user_id=1)
    assert [await ask() for _ in range(3)] == [404] * 3
    portal.access[LABEL, COOKIE] = replace(open_access, target=replace(open_access.target, secret="s" * 43))
    portal.proxy.drop(user_id=1)
    await until(lambda: portal.proxy.access.cached(LABEL, COOKIE) is None)
    assert [await ask() for _ in range(3)] == [200] * 3
    assert begun[-1]
    heads = [request.head for request in portal.upstream.requests]
    assert [b"s" * 43 in head for head in heads] == [False] * 4 + [True] * 3
    await raw.close()


async def test_no_more_than_a_few_whole_heads_are_kept_for_a_connection(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    for _ in range(2):
        for number in range(3 * MOST_WHOLES):
            raw.writer.write(portal.head("GET", f"/{number}"))
            assert (await raw.answer()).status == 200
    assert all(begun)
    blocks = Blocks()
    for number in range(3 * MOST_WHOLES):
        blocks.keep_whole(b"%d" % number, Whole(Block(()), {}))
    assert [blocks.whole(b"%d" % number) is not None for number in range(3 * MOST_WHOLES)].count(True) == MOST_WHOLES
    blocks.keep_whole(b"x" * (MOST_WHOLE_BYTES + 1), Whole(Block(()), {}))
    assert blocks.whole(b"x" * (MOST_WHOLE_BYTES + 1)) is None
    await raw.close()


@pytest.mark.parametrize(
    ("fields", "cookie", "host"),
    [
        ((b"Sec-Fetch-Site: cross-site",), COOKIE, b""),
        ((), "another", b""),
        ((), "", b""),
        ((), COOKIE, b"localhost"),
        ((), COOKIE, b"xwvutsrqponmlkjihgfedcba.localhost"),
    ],
)
async def test_what_is_refused_at_first_is_refused_again(
    portal: Portal, begun: list[bool], fields: tuple[bytes, ...], cookie: str, host: bytes
) -> None:
    raw = await warm(portal)
    host = host + b":%d" % portal.port if host else b""
    for _ in range(3):
        raw.writer.write(portal.head("GET", "/x", *fields, cookie=cookie, host=host))
        assert (await raw.answer()).status in (403, 404)
    assert True not in begun
    assert len(portal.upstream.requests) == 1
    await raw.close()


@pytest.mark.parametrize("target", ["/.footbridge/begin", "/.footbridge/enter", "/.footbridge/"])
async def test_our_own_paths_never_reach_the_server(portal: Portal, begun: list[bool], target: str) -> None:
    raw = await warm(portal)
    raw.writer.write(portal.head("GET", target))
    assert (await raw.answer()).status in (302, 403, 404)
    assert begun == [False]
    assert len(portal.upstream.requests) == 1
    await raw.close()


async def test_a_connection_that_the_server_closed_is_replaced_once(portal: Portal, begun: list[bool]) -> None:
    async def closes(request: Request) -> None:
        request.writer.close()

    raw = await warm(portal)
    portal.upstream.handler = closes
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).status == 502
    assert [request.target for request in portal.upstream.requests] == [b"/first", b"/x", b"/x"]
    assert begun == [True]
    portal.upstream.handler = hello
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).status == 200
    await until(lambda: not portal.proxy.is_busy)
    await raw.close()


@pytest.mark.parametrize("portal", [Limits(head_seconds=1.0)], indirect=True)
async def test_a_silent_server_is_answered_for_in_words(portal: Portal, begun: list[bool]) -> None:
    async def silent(request: Request) -> None:
        await request.reader.read()

    raw = await warm(portal)
    portal.upstream.handler = silent
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).status == 504
    assert begun == [True]
    await until(lambda: not portal.proxy.is_busy and not portal.upstream.open)
    portal.upstream.handler = hello
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).status == 200
    await raw.close()


@pytest.mark.parametrize("rest", [b"", b"3\r\nabc\r\nzz\r\n"])
async def test_an_answer_that_breaks_off_looks_broken(portal: Portal, begun: list[bool], rest: bytes) -> None:
    raw = await warm(portal)
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest, close=True)
    raw.writer.write(portal.head("GET", "/x"))
    await raw.head()
    async with asyncio.timeout(60):
        assert not (await raw.reader.read()).endswith(b"0\r\n\r\n")
    assert begun == [True]
    await until(lambda: not portal.proxy.is_busy and not portal.upstream.open)
    await raw.close()


async def test_a_bad_field_of_the_server_is_answered_for_in_words(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
    for _ in range(2):
        raw.writer.write(portal.head("GET", "/x"))
        assert (await raw.answer()).status == 502
    await until(lambda: not portal.proxy.is_busy and not portal.upstream.open)
    assert begun[0] is True
    await raw.close()


async def test_what_comes_behind_an_answer_costs_the_servers_connection(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n")
    for _ in range(2):
        raw.writer.write(portal.head("GET", "/x"))
        assert (await raw.answer()).body == b"abc"
        await until(lambda: not portal.upstream.open)
    assert begun == [True, False]
    assert portal.upstream.connections == 2
    await raw.close()


@pytest.mark.parametrize("length", [0, 3])
async def test_what_comes_behind_an_answer_nobody_wants_any_more_does_not_stop_the_process(
    portal: Portal, begun: list[bool], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A failed exchange takes no end: the loop over what came must have one."""
    known = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"abc"[:length]
    usual = Direct.end_access

    def end_access(self: Direct) -> None:
        usual(self)
        self.connection.data_received(known + b"more")  # in the same turn, before anything is cleaned up

    async def waits(request: Request) -> None:
        await request.reader.read()

    raw = await warm(portal)
    portal.upstream.handler = answering(known)
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.answer()).body == b"abc"[:length]
    portal.upstream.handler = waits
    monkeypatch.setattr(Direct, "end_access", end_access)
    raw.writer.write(portal.head("GET", "/x"))
    await until(lambda: portal.proxy.access.open_connections == 1)
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.drop(session_id="session-1")
    assert (await raw.answer()).status != 200
    await until(lambda: not portal.upstream.open and not portal.proxy.is_busy)
    await raw.close()


async def test_a_browser_that_leaves_ends_the_servers_work(portal: Portal, begun: list[bool]) -> None:
    asked = asyncio.Event()

    async def endless(request: Request) -> None:
        asked.set()
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        await request.reader.read()

    raw = await warm(portal)
    portal.upstream.handler = endless
    raw.writer.write(portal.head("GET", "/x"))
    await asked.wait()
    await raw.head()
    await raw.close()
    await until(lambda: not portal.upstream.open and not portal.proxy.is_busy)
    assert begun == [True]


async def test_a_long_answer_ends_with_the_permission(portal: Portal, begun: list[bool]) -> None:
    async def endless(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        await request.reader.read()

    raw = await warm(portal)
    portal.upstream.handler = endless
    raw.writer.write(portal.head("GET", "/x"))
    await raw.head()
    await until(lambda: portal.proxy.access.open_connections == 1)
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.drop(session_id="session-1")
    async with asyncio.timeout(60):
        assert len(await raw.reader.read()) < 1000
    await until(lambda: not portal.upstream.open and not portal.proxy.is_busy)
    assert begun == [True]
    await raw.close()


async def test_an_answer_that_comes_as_the_permission_ends_is_not_passed_on(
    portal: Portal, begun: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    go_on = asyncio.Event()

    async def waits(request: Request) -> None:
        await go_on.wait()

    usual = Direct.end_access

    def end_access(self: Direct) -> None:
        usual(self)
        self.connection.data_received(known)  # in the same turn of the loop, before anything is cleaned up

    raw = await warm(portal)
    portal.upstream.handler = answering(known)
    for _ in range(2):
        raw.writer.write(portal.head("GET", "/x"))
        assert (await raw.answer()).body == b"abc"
    portal.upstream.handler = waits
    monkeypatch.setattr(Direct, "end_access", end_access)
    raw.writer.write(portal.head("GET", "/x"))
    await until(lambda: portal.proxy.access.open_connections == 1)
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice")
    portal.proxy.drop(session_id="session-1")
    answer = await raw.answer()
    assert answer.status != 200
    assert b"abc" not in answer.body
    assert begun == [True] * 3
    go_on.set()
    await until(lambda: not portal.upstream.open and not portal.proxy.is_busy)
    await raw.close()


async def test_an_answer_is_fitted_to_the_address_it_goes_to(portal: Portal, begun: list[bool]) -> None:
    """The same bytes of the same server, at the session's own host and below a path of the portal."""
    raw = await warm(portal)
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 3\r\n\r\nabc",
    )
    by_path = await portal.connect()

    async def cookies(raw: Raw, target: str, host: bytes) -> list[bytes]:
        raw.writer.write(portal.head("GET", target, host=host))
        return (await raw.answer()).values(b"set-cookie")

    for _ in range(3):
        assert await cookies(raw, "/x", b"") == [b"a=b; Path=/"]
        assert await cookies(by_path, f"/s/{PATH_ID}/x", b"localhost:%d" % portal.port) == []  # it would be for all
    assert True in begun
    await by_path.close()
    await raw.close()


async def test_heads_with_the_secret_of_a_session_are_forgotten_when_it_is_dropped(portal: Portal) -> None:
    def with_secret() -> int:
        return len(alive(Prepared))

    before = with_secret()
    raw = await warm(portal)
    await raw.close()
    await until(lambda: not portal.state.connections)
    assert with_secret() == before + 1
    portal.proxy.drop(session_id="session-1")
    assert with_secret() == before


async def test_a_slow_browser_holds_the_server_back(portal: Portal, begun: list[bool]) -> None:
    raw = await warm(portal)
    raw.take_little()
    pouring = Pouring()
    portal.upstream.handler = pouring
    raw.writer.write(portal.head("GET", "/x"))
    await raw.head()
    assert await standstill(lambda: pouring.sent) < pouring.SIZE // 2
    await raw.skip(pouring.SIZE)
    assert begun == [True]
    raw.writer.write(portal.head("GET", "/x"))
    assert (await raw.head()).status == 200
    await raw.close()


async def test_two_known_heads_in_one_piece_are_answered_in_turn(portal: Portal) -> None:
    async def echo(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + request.target)

    raw = await warm(portal)
    portal.upstream.handler = echo
    raw.writer.write(portal.head("GET", "/1") + portal.head("GET", "/2"))
    raw.writer.write(portal.head("GET", "/3"))
    assert [(await raw.answer()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]
    await raw.close()


async def test_a_known_head_while_another_is_answered_waits_for_its_turn(portal: Portal, begun: list[bool]) -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> None:
        if request.target == b"/1":
            await go_on.wait()
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + request.target)

    raw = await warm(portal)
    portal.upstream.handler = slow
    raw.writer.write(portal.head("GET", "/1"))
    await until(lambda: len(portal.upstream.requests) == 2)
    raw.writer.write(portal.head("GET", "/2"))
    go_on.set()
    assert [(await raw.answer()).body for _ in range(2)] == [b"/1", b"/2"]
    assert begun == [True]
    await raw.close()


async def test_the_ceiling_counts_requests_that_began_at_once(portal: Portal, begun: list[bool]) -> None:
    async def silent(request: Request) -> None:
        await request.reader.read()

    raw = await warm(portal)
    portal.upstream.handler = silent
    raw.writer.write(portal.head("GET", "/x"))
    await until(lambda: len(portal.upstream.requests) == 2)
    assert portal.proxy.is_busy
    await raw.close()
    await until(lambda: not portal.proxy.is_busy)
    assert begun == [True]
