"""What only the fast lane can get wrong: bodies that change hands in the middle, answers that break off, pipelines."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import uvloop

from launcher.proxy.fast.protocol import FastProtocol
from launcher.proxy.fast.tunnel import BrowserEnd
from launcher.proxy.turns import FULL_READ_BYTES
from tests.integration.proxy_peers import (
    Portal,
    Request,
    Upstream,
    answering,
    client_frame,
    hello,
    read_frame,
    switching,
)
from tests.waiting import until

pytestmark = pytest.mark.integration
UPLOAD_BYTES = 64 * 1024 * 1024
DONE = b"HTTP/1.1 200"


@pytest.fixture
async def portal() -> AsyncIterator[Portal]:
    """A portal in the fast lane, in front of a server in a job."""
    async with Upstream().running() as upstream, Portal(upstream).running() as running:
        yield running


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_in_single_bytes_and_the_next_request_behind_it(portal: Portal, chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 6"
    body = b"2\r\nab\r\n4;x=y\r\ncdef\r\n0\r\nX-Trailer: 1\r\n\r\n" if chunked else b"abcdef"
    raw = await portal.connect()
    for byte in portal.head("POST", "/one", framing) + body + portal.head("GET", "/two"):
        raw.writer.write(bytes([byte]))
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert [(await raw.answer()).status for _ in range(2)] == [200, 200]
    assert [request.body for request in portal.upstream.requests] == [b"abcdef", b""]
    assert portal.upstream.requests[0].values(b"x-trailer") == []
    await raw.close()


async def test_uploads_in_a_pipeline_keep_their_bodies_apart(portal: Portal) -> None:
    raw = await portal.connect()
    bodies = [bytes([65 + number]) * 70_000 for number in range(4)]
    for body in bodies:
        raw.writer.write(portal.head("POST", "/", b"Content-Length: %d" % len(body)) + body)
    assert [(await raw.answer()).status for _ in bodies] == [200] * 4
    assert [request.body for request in portal.upstream.requests] == bodies
    await raw.close()


async def test_a_chunked_answer_keeps_its_chunks_and_loses_its_trailers(portal: Portal) -> None:
    async def chunked(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await request.writer.drain()
        request.writer.write(b"2\r\nde\r\n0\r\nSet-Cookie: footbridge=evil\r\n\r\n")

    portal.upstream.handler = chunked
    raw = await portal.connect()
    for _ in range(2):
        raw.writer.write(portal.head("GET", "/"))
        answer = await raw.head()
        assert answer.values(b"transfer-encoding") == [b"chunked"]
        assert await raw.reader.readexactly(20) == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert portal.upstream.connections == 1
    await raw.close()


async def test_a_garbled_chunk_breaks_the_answer_off(portal: Portal) -> None:
    async def garbled(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n0\r\n\r\n")

    portal.upstream.handler = garbled
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    await raw.head()
    async with asyncio.timeout(60):
        assert not (await raw.reader.read()).endswith(b"0\r\n\r\n")
    await raw.close()
    await until(lambda: not portal.upstream.open)
    assert not portal.proxy.is_busy


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
async def test_a_body_is_not_sent_twice_whatever_the_method(portal: Portal, framing: bytes) -> None:
    async def hang_up_without_answer(request: Request) -> None:
        request.writer.close()

    assert (await portal.ask("GET", "/first")).status == 200
    portal.upstream.handler = hang_up_without_answer
    raw = await portal.connect()
    body = b"3\r\nabc\r\n0\r\n\r\n" if framing.endswith(b"chunked") else b"abc"
    raw.writer.write(portal.head("GET", "/", framing) + body)
    assert (await raw.answer()).status == 502
    assert [request.body for request in portal.upstream.requests] == [b"", b"abc"]
    assert portal.upstream.connections == 1
    await raw.close()


@pytest.mark.parametrize(("kept", "said"), [(False, b""), (True, b"HTTP/1.1 2")])
async def test_a_request_is_sent_again_only_where_a_kept_connection_had_gone_silently(
    portal: Portal, kept: bool, said: bytes
) -> None:
    if kept:
        assert (await portal.ask("GET", "/first")).status == 200
    portal.upstream.handler = answering(said, close=True)
    before = len(portal.upstream.requests)
    assert (await portal.ask("GET", "/")).status == 502
    assert len(portal.upstream.requests) == before + 1
    assert portal.upstream.connections == 1


async def test_a_head_alone_does_not_wait_for_its_body(portal: Portal) -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await go_on.wait()
        request.writer.write(b"hello")

    portal.upstream.handler = slow
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    assert (await raw.head()).status == 200
    go_on.set()
    assert await raw.reader.readexactly(5) == b"hello"
    await raw.close()


@pytest.mark.parametrize("kind", ["body", "frame"])
def test_a_quick_upload_gives_way_to_everybody_else_after_each_full_read(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """uvloop's own way, so with its loop: it would read up to 32 full pieces in a turn."""
    turn, full = 0, Counter[int]()
    taker, name = (FastProtocol, "_hand_on") if kind == "body" else (BrowserEnd, "data_received")
    take = getattr(taker, name)

    def counting(protocol: object, piece: bytes) -> None:
        full[turn] += len(piece) >= FULL_READ_BYTES
        take(protocol, piece)

    async def upload() -> None:
        loop = asyncio.get_running_loop()

        def next_turn() -> None:
            nonlocal turn
            turn += 1
            loop.call_soon(next_turn)

        async def discard(request: Request) -> None:
            if kind == "frame":
                request.writer.write(switching(request))
            left = UPLOAD_BYTES
            while left > 0:
                left -= len(await request.reader.read(1024 * 1024))
            request.writer.write(DONE + b" OK\r\nContent-Length: 0\r\n\r\n" if kind == "body" else DONE)

        upstream = Upstream(discard)
        upstream.reads_bodies = False
        async with upstream.running(), Portal(upstream, uses_uvloop=True).running() as portal:
            next_turn()

            def send() -> bytes:
                with socket.create_connection(("127.0.0.1", portal.port), timeout=60) as link:
                    if kind == "frame":
                        link.sendall(portal.handshake())
                        while not link.recv(65_536).endswith(b"\r\n\r\n"):
                            pass
                        link.sendall(b"\x82\xff" + UPLOAD_BYTES.to_bytes(8, "big") + bytes(4))
                    else:
                        link.sendall(portal.head("PUT", "/", b"Content-Length: %d" % UPLOAD_BYTES))
                    link.sendall(bytes(UPLOAD_BYTES))
                    return link.recv(len(DONE))

            assert await asyncio.to_thread(send) == DONE

    monkeypatch.setattr(taker, name, counting)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(upload())
    assert max(full.values()) == 1


async def test_a_client_that_knows_no_chunks_sees_the_end_of_an_answer_by_the_end_of_its_connection(
    portal: Portal,
) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    )
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/", b"Connection: keep-alive").replace(b" HTTP/1.1", b" HTTP/1.0", 1))
    assert (await raw.head()).values(b"transfer-encoding") == []
    async with asyncio.timeout(30):
        assert await raw.reader.read() == b"abcdef"
    await raw.close()


async def test_what_a_browser_says_before_its_handshake_is_answered_arrives(portal: Portal) -> None:
    go_on, heard = asyncio.Event(), asyncio.Queue[tuple[int, bytes]]()

    async def late(request: Request) -> None:
        await go_on.wait()
        request.writer.write(switching(request))
        await heard.put(await read_frame(request.reader))

    portal.upstream.handler = late
    raw = await portal.connect()
    raw.writer.write(portal.handshake())
    await until(lambda: portal.upstream.requests, what="the handshake to arrive")
    raw.writer.write(client_frame(1, b"early"))
    portal.upstream.handler = hello
    assert (await portal.ask("GET", "/")).status == 200  # by then the frame has come, too
    go_on.set()
    assert (await raw.head()).status == 101
    async with asyncio.timeout(30):
        assert await heard.get() == (1, b"early")
    await raw.close()
