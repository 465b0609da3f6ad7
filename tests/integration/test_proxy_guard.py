"""The gate before the server's parser, over real sockets: limits in words, time limits, and nothing ambiguous."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from launcher.proxy import guard
from tests.integration.proxy_peers import Portal, Raw, Request, Upstream, hello
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def portal() -> AsyncIterator[Portal]:
    """A portal in front of a server in a job."""
    async with Upstream().running() as upstream, Portal(upstream).running() as running:
        yield running


async def rest(raw: Raw) -> bytes:
    """All that still comes until the server closes."""
    async with asyncio.timeout(60):
        return await raw.reader.read()


async def test_an_address_that_is_too_long_is_told_so_in_words(portal: Portal) -> None:
    answer = await portal.ask("GET", "/" + "a" * 17_000, b"Accept: text/html", b"Accept-Language: zh-CN")
    assert answer.status == 414
    assert b'<html lang="zh-hans">' in answer.body


async def test_an_endless_address_is_refused_before_it_ends(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(b"GET /" + b"a" * 80_000)
    assert (await raw.answer()).status == 414
    await raw.close()


async def test_endless_fields_are_refused_before_they_end(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/")[:-2] + b"X-Long: " + b"a" * 80_000)
    answer = await raw.answer()
    assert (answer.status, json.loads(answer.body)["error"]) == (431, "head_too_long")
    await raw.close()


async def test_too_many_fields_are_refused(portal: Portal) -> None:
    fields = [b"X-%d: 1" % number for number in range(guard.MAX_FIELDS)]
    assert (await portal.ask("GET", "/", *fields)).status == 431
    assert portal.upstream.requests == []


async def test_a_head_that_does_not_end_is_refused_in_time(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    raw = await portal.connect()
    raw.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert (await raw.answer()).status == 408
    await raw.close()


async def test_a_connection_that_says_nothing_is_closed(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    raw = await portal.connect()
    assert await rest(raw) == b""
    await raw.close()


async def test_empty_lines_without_end_are_refused(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(b"\r\n" * guard.MAX_EMPTY_LINES + portal.head("GET", "/"))
    assert (await raw.answer()).status == 200
    raw.writer.write(b"\r\n" * 1000)
    assert (await raw.answer()).status == 400
    await raw.close()


async def test_empty_lines_keep_no_connection_open(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    assert (await raw.answer()).status == 200
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    raw.writer.write(b"\r\n")
    assert await rest(raw) == b""
    await raw.close()


async def test_a_body_may_be_slow_but_must_go_on(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_IDLE_SECONDS", 1.5)
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/", b"Content-Length: 6"))
    answer = asyncio.create_task(raw.answer())
    for _ in range(6):
        await asyncio.wait([answer], timeout=0.3)
        raw.writer.write(b"x")
    assert (await answer).status == 200
    await raw.close()
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/", b"Content-Length: 20") + b"x")
    assert (await raw.answer()).status == 408
    await raw.close()


async def test_too_many_requests_in_a_row_are_refused_behind_those_that_may_wait(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_PIPELINED", 3)
    go_on = asyncio.Event()

    async def wait(request: Request) -> None:
        await go_on.wait()
        await hello(request)

    portal.upstream.handler = wait
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    await until(lambda: portal.upstream.requests, "the first request")
    raw.writer.write(portal.head("GET", "/") * 5)
    go_on.set()
    assert [(await raw.answer()).status for _ in range(5)] == [200, 200, 200, 200, 429]
    assert await rest(raw) == b""
    assert len(portal.upstream.requests) == 4
    await raw.close()


async def test_a_refusal_comes_after_the_answers_to_earlier_requests(portal: Portal) -> None:
    go_on = asyncio.Event()

    async def wait(request: Request) -> None:
        await go_on.wait()
        await hello(request)

    portal.upstream.handler = wait
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/") + b"NO HTTP\r\n\r\n")
    await until(lambda: portal.upstream.requests, what="the first request to go on")
    go_on.set()
    first, second = await raw.answer(), await raw.answer()
    assert (first.status, first.body, second.status) == (200, b"hello", 400)
    assert await rest(raw) == b""
    await raw.close()


async def test_trailers_do_not_become_fields(portal: Portal) -> None:
    raw = await portal.connect()
    head = portal.head("POST", "/", b"Transfer-Encoding: chunked")
    raw.writer.write(head + b"1\r\nx\r\n0\r\nX-Trailer: 1\r\nAuthorization: token evil\r\n\r\n")
    assert (await raw.answer()).status == 200
    assert portal.upstream.requests[0].values(b"x-trailer") == []
    await raw.close()


async def test_an_upgrade_that_is_not_offered_smuggles_no_request(portal: Portal) -> None:
    inner = portal.head("GET", "/inner")
    raw = await portal.connect()
    raw.writer.write(
        portal.head("POST", "/outer", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(inner))
    )
    await raw.writer.drain()
    raw.writer.write(inner + portal.head("GET", "/after"))
    assert [(await raw.answer()).status for _ in range(2)] == [200, 200]
    assert [request.target for request in portal.upstream.requests] == [b"/outer", b"/after"]
    assert portal.upstream.requests[0].body == inner
    await raw.close()


async def test_an_upgrade_before_the_answer_to_an_earlier_request_is_refused_behind_it(portal: Portal) -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> None:
        await go_on.wait()
        await hello(request)

    portal.upstream.handler = slow
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/slow") + portal.handshake())
    await until(lambda: portal.upstream.requests, what="the first request to go on")
    go_on.set()
    assert (await raw.answer()).body == b"hello"
    assert (await raw.answer()).status == 400
    assert [request.target for request in portal.upstream.requests] == [b"/slow"]
    await raw.close()


async def test_an_upgrade_with_two_connection_fields_is_refused(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.handshake("/ws", b"Connection: keep-alive"))
    assert (await raw.answer()).status == 400
    assert portal.upstream.requests == []
    await raw.close()


async def test_the_answer_to_a_refused_upload_is_not_lost(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/", b"Transfer-Encoding: chunked") + b"zz\r\n" + b"x" * 500_000)
    assert (await raw.answer()).status == 400
    await raw.close()
