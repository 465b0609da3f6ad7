"""The items of the list about frames in the fast lane, which hands them on as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from launcher.proxy.access_types import Access, Verdict
from tests.integration.proxy_peers import (
    COOKIE,
    LABEL,
    Handler,
    Portal,
    Raw,
    Request,
    client_frame,
    echoing_socket,
    read_frame,
    server_frame,
    switching,
)
from tests.waiting import until

pytestmark = pytest.mark.integration

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture
def handler() -> Handler:
    """What these tests' server does, unless a test says otherwise."""
    return echoing_socket


@pytest.fixture
def fast(portal: Portal) -> Portal:
    """The lane that hands frames on as they are."""
    return portal


@asynccontextmanager
async def socket_of(portal: Portal, *fields: bytes) -> AsyncIterator[Raw]:
    """An accepted WebSocket."""
    raw = await portal.connect()
    raw.writer.write(portal.handshake("/ws", *fields))
    answer = await raw.head()
    assert answer.status == 101, answer
    try:
        yield raw
    finally:
        await raw.close()


async def test_c50_bytes_pass_as_they_are_in_both_directions(fast: Portal) -> None:
    there = client_frame(BINARY, b"ab", final=False) + client_frame(PING, b"between") + client_frame(0, b"ef")
    back = b"\xc1\x03\xab\x00\x00" + server_frame(TEXT, b"on", final=False) + server_frame(0, b"e")
    got = b""

    async def exact(request: Request) -> None:
        nonlocal got
        request.writer.write(switching(request))
        got = await request.reader.readexactly(len(there))
        request.writer.write(back)
        await request.reader.read()

    fast.upstream.handler = exact
    async with socket_of(fast) as raw:
        for byte in there:
            raw.writer.write(bytes([byte]))
            await raw.writer.drain()
        assert await raw.reader.readexactly(len(back)) == back
    assert got == there


async def test_c52_the_browsers_own_handshake_reaches_the_server(fast: Portal) -> None:
    extension = b"permessage-deflate; client_max_window_bits"

    async def agree(request: Request) -> None:
        request.writer.write(switching(request, b"Sec-WebSocket-Extensions: permessage-deflate"))
        await request.reader.read()

    fast.upstream.handler = agree
    raw = await fast.connect()
    raw.writer.write(fast.handshake("/ws?a=%2F&token=x", b"Sec-WebSocket-Extensions: " + extension))
    answer = await raw.head()
    request = fast.upstream.requests[-1]
    assert answer.values(b"sec-websocket-extensions") == [b"permessage-deflate"]
    assert request.values(b"sec-websocket-extensions") == [extension]
    assert request.values(b"sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
    assert request.target == b"/ws?a=%2F"
    assert request.values(b"x-footbridge-secret") == [b"upstreams-secret"]
    assert request.values(b"cookie") == []
    await raw.close()


async def test_c61_the_closing_handshake_is_between_both_ends(fast: Portal) -> None:
    payload = (4001).to_bytes(2, "big") + "你好".encode()
    answers: list[tuple[int, bytes]] = []

    async def closing(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(CLOSE, payload))
        answers.append(await read_frame(request.reader))
        request.writer.close()

    fast.upstream.handler = closing
    async with socket_of(fast) as raw:
        assert await read_frame(raw.reader) == (CLOSE, payload)
        raw.writer.write(client_frame(CLOSE, payload))
        async with asyncio.timeout(60):
            assert await raw.reader.read() == b""
    assert answers == [(CLOSE, payload)]


async def test_w02_ping_and_pong_are_between_both_ends(fast: Portal) -> None:
    async with socket_of(fast) as raw:
        raw.writer.write(client_frame(PING, b"hello"))
        assert await read_frame(raw.reader) == (PONG, b"hello")


async def test_w03_the_end_of_one_direction_leaves_the_other_open(fast: Portal) -> None:
    async def last_words(request: Request) -> None:
        request.writer.write(switching(request))
        assert await request.reader.read() == client_frame(TEXT, b"that was all")
        request.writer.write(server_frame(TEXT, b"then goodbye"))
        await request.writer.drain()
        request.writer.close()

    fast.upstream.handler = last_words
    async with socket_of(fast) as raw:
        raw.writer.write(client_frame(TEXT, b"that was all"))
        raw.writer.write_eof()
        assert await read_frame(raw.reader) == (TEXT, b"then goodbye")
        assert await raw.reader.read() == b""
    await until(lambda: not fast.proxy.upstreams.open_connections)


async def test_a_revoked_tunnel_is_cut_inside_a_frame(fast: Portal) -> None:
    async def half(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(BINARY, bytes(300))[:200])
        await request.reader.read()

    fast.upstream.handler = half
    async with socket_of(fast) as raw:
        assert len(await raw.reader.readexactly(200)) == 200
        fast.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
        fast.proxy.drop(user_id=1)
        async with asyncio.timeout(60):
            assert await raw.reader.read() == b""
    await until(lambda: not fast.upstream.open)
    await until(lambda: not fast.proxy.is_busy, what="the tunnel to end")
