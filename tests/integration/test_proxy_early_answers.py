"""An answer in the middle of an upload: the browser reads it whole, and the rest of the upload costs next to nothing.

Over real sockets, in both lanes, straight and through SSH. The server in the job answers before it has the body, or the
permission ends meanwhile; the browser goes on sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.proxy import lingering
from launcher.proxy.lingering import LINGER_BYTES
from tests.integration.proxy_peers import COOKIE, LABEL, Answer, Portal, Raw, Request, Upstream, hello, way
from tests.waiting import until

pytestmark = pytest.mark.integration

BETWEEN_BYTES = 24 * 1024 * 1024
"""More than the buffers of all sockets between a browser and a server in a job hold."""
PIECE = b"x" * 65_536


@pytest.fixture(params=["fast-tcp", "fast-ssh", "portable-tcp", "portable-ssh"])
async def portal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Portal]:
    """A portal in front of a server that does not read bodies."""
    lane, _, by = str(request.param).partition("-")
    async with Upstream(too_much).running() as upstream, way(by, tmp_path, lane=lane) as found:
        upstream.reads_bodies = False
        async with found.portal(upstream).running() as running:
            yield running


async def too_much(request: Request) -> None:
    """Refuses every upload at once, and then neither reads nor hangs up."""
    if request.line.startswith(b"GET"):
        await hello(request)
        return
    request.writer.write(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
    await request.writer.drain()
    await asyncio.Event().wait()


async def never(request: Request) -> None:
    """Reads and says nothing."""
    while await request.reader.read(65_536):
        pass


def framed(chunked: bool) -> tuple[bytes, bytes]:
    """The field that announces a body without an end in sight, and a piece of it."""
    if chunked:
        return b"Transfer-Encoding: chunked", b"10000\r\n" + PIECE + b"\r\n"
    return b"Content-Length: 999999999999", PIECE


async def send_until_stopped(raw: Raw, piece: bytes) -> int:
    """Send as long as anybody takes it; how much that was."""
    count = 0
    with contextlib.suppress(OSError):
        async with asyncio.timeout(60):
            while not raw.writer.transport.is_closing():
                raw.writer.write(piece)
                await raw.writer.drain()
                count += len(piece)
    return count


async def whole_answer(raw: Raw) -> Answer:
    """The answer, behind which nothing comes."""
    answer = await raw.answer()
    assert [value.lower() for value in answer.values(b"connection")] == [b"close"]
    async with asyncio.timeout(60):
        assert await raw.reader.read() == b""
    return answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_early_answer_arrives_whole_and_the_rest_of_the_upload_is_bounded(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(lingering, "UPLOAD_LINGER_SECONDS", 0.5)
    field, piece = framed(chunked)
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/big", field))
    sending = asyncio.create_task(send_until_stopped(raw, piece))
    answer = await whole_answer(raw)
    assert (answer.status, answer.body) == (413, b"no")
    assert await sending < LINGER_BYTES + BETWEEN_BYTES
    await raw.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_end_of_the_permission_is_said_in_the_middle_of_an_upload_and_ends_it(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(lingering, "UPLOAD_LINGER_SECONDS", 0.5)
    portal.upstream.handler = never
    field, piece = framed(chunked)
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/big", field) + piece)
    await until(lambda: portal.upstream.requests, what="the upload to go on")
    del portal.access[LABEL, COOKIE]
    portal.proxy.drop(session_id="session-1")
    answer = await whole_answer(raw)
    assert (answer.status, json.loads(answer.body)["error"]) == (403, "no_entry")
    assert await send_until_stopped(raw, piece) < LINGER_BYTES + BETWEEN_BYTES
    await until(lambda: not portal.upstream.open, what="the server's side to be closed")
    await raw.close()


async def test_a_browser_that_sends_the_rest_before_it_reads_gets_the_answer(portal: Portal) -> None:
    raw = await portal.connect()
    rest = 2_000_000
    raw.writer.write(portal.head("PUT", "/", b"Content-Length: %d" % (rest + 1)) + b"x")
    await until(lambda: portal.upstream.requests, what="the request to go on")
    for start in range(0, rest, 65_536):
        raw.writer.write(b"y" * min(65_536, rest - start))
        await raw.writer.drain()
    assert (await whole_answer(raw)).body == b"no"
    await raw.close()


async def test_the_connection_to_a_server_that_answered_early_is_not_used_again(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/", b"Content-Length: 100000") + b"x")
    assert (await whole_answer(raw)).status == 413
    await raw.close()
    await until(lambda: not portal.proxy.upstreams.open_connections, what="the connection to be closed")
    assert (await portal.ask("GET", "/")).body == b"hello"
    assert portal.upstream.connections == 2


async def test_a_body_that_came_whole_leaves_the_connection_open(portal: Portal) -> None:
    portal.upstream.reads_bodies = True
    raw = await portal.connect()
    for _ in range(2):
        raw.writer.write(portal.head("PUT", "/", b"Content-Length: 70000") + PIECE)
        await raw.writer.drain()
        portal.upstream.handler = hello
        raw.writer.write(PIECE[: 70_000 - len(PIECE)])
        answer = await raw.answer()
        assert (answer.status, answer.values(b"connection")) == (200, [])
    await raw.close()


async def test_a_browser_that_neither_reads_nor_leaves_is_closed_in_time(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "UPLOAD_LINGER_SECONDS", 0.5)
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/", b"Content-Length: 100000") + b"x")
    assert (await raw.answer()).status == 413
    async with asyncio.timeout(60):
        while not raw.writer.transport.is_closing():  # single bytes, which no size stops
            raw.writer.write(b"x")
            await asyncio.sleep(0.05)
    await raw.close()
