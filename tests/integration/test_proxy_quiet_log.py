"""Whatever ends a request or a handshake early, the web server's own log stays empty: an error there means a mistake.

uvicorn writes one when the application returns without an answer, or without its end. In both lanes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from launcher.proxy.access_types import Target
from launcher.proxy.dial import TCPDial
from tests.integration.proxy_peers import (
    COOKIE,
    LABEL,
    Portal,
    Request,
    Upstream,
    answering,
    complaints,
    hello,
    read_frame,
    switching,
)
from tests.waiting import until

pytestmark = pytest.mark.integration

MOMENTS = 20
"""Tries with a browser that leaves, or a server that stops, at some other moment each time."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The log is looked at when all is over."""
    with complaints() as found:
        yield
    assert not found


class HeldDial(TCPDial):
    """Reaches nobody until it is let go."""

    def __init__(self) -> None:
        self.waits, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, target: Target, protocol_factory: object, /) -> object:  # type: ignore[override]  # as the other
        self.waits.set()
        await self.go_on.wait()
        return await super().__call__(target, protocol_factory)  # type: ignore[arg-type]  # handed on


@pytest.fixture(params=["fast", "portable"])
async def portal(request: pytest.FixtureRequest) -> AsyncIterator[Portal]:
    """A portal in front of a server in a job."""
    async with Upstream().running() as upstream, Portal(upstream, lane=request.param).running() as running:
        yield running


@pytest.fixture(params=["fast", "portable"])
async def held(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Portal, HeldDial]]:
    """A portal whose way to the server takes its time."""
    dial = HeldDial()
    async with Upstream().running() as upstream:
        async with Portal(upstream, lane=request.param, dial=dial).running() as running:
            yield running, dial
            dial.go_on.set()


def revoke(portal: Portal) -> None:
    """Alice's permission ends."""
    del portal.access[LABEL, COOKIE]
    portal.proxy.drop(session_id="session-1")


def asked(portal: Portal, what: str) -> bytes:
    """A WebSocket's handshake, or a request."""
    return portal.handshake() if what == "socket" else portal.head("GET", "/")


class Held:
    """A handler that waits for its turn, and then does as ``then`` says."""

    def __init__(self, then: object) -> None:
        self.go_on = asyncio.Event()
        self._then = then

    async def __call__(self, request: Request) -> None:
        await self.go_on.wait()
        await self._then(request)  # type: ignore[operator]  # a handler


async def accepting(request: Request) -> None:
    """Accepts a handshake and waits for the end."""
    request.writer.write(switching(request))
    await request.reader.read()


@pytest.mark.parametrize("what", ["socket", "request"])
async def test_a_browser_that_leaves_before_the_answer(portal: Portal, what: str) -> None:
    portal.upstream.handler = Held(hello)
    raw = await portal.connect()
    raw.writer.write(asked(portal, what))
    await until(lambda: portal.upstream.requests, what="the server to be asked")
    raw.writer.transport.abort()
    await until(lambda: not portal.proxy.is_busy, what="the end")


@pytest.mark.parametrize("what", ["socket", "request"])
async def test_a_browser_that_leaves_while_the_server_is_being_reached(
    held: tuple[Portal, HeldDial], what: str
) -> None:
    portal, dial = held
    raw = await portal.connect()
    raw.writer.write(asked(portal, what))
    await dial.waits.wait()
    raw.writer.transport.abort()
    await until(lambda: not portal.state.connections, what="the browser's leaving to be noticed")
    dial.go_on.set()
    await until(lambda: not portal.proxy.is_busy, what="the end")


async def test_a_browser_that_leaves_with_another_request_behind_the_one_that_is_answered(portal: Portal) -> None:
    held = Held(hello)

    async def first_at_once(request: Request) -> None:
        await (hello if len(portal.upstream.requests) == 1 else held)(request)

    portal.upstream.handler = first_at_once
    raw = await portal.connect()
    raw.writer.write(3 * portal.head("GET", "/"))
    await until(lambda: len(portal.upstream.requests) == 2, what="the second to be asked, with the third behind it")
    raw.writer.transport.abort()
    await until(lambda: not portal.proxy.is_busy, what="the end")


async def test_a_permission_that_ends_during_the_handshake(portal: Portal) -> None:
    handler = portal.upstream.handler = Held(accepting)
    raw = await portal.connect()
    raw.writer.write(portal.handshake())
    await until(lambda: portal.upstream.requests, what="the server to be asked")
    revoke(portal)
    handler.go_on.set()
    answer = await raw.head()
    if answer.status == 101:
        opcode, data = await read_frame(raw.reader)
        assert (opcode, data[:2]) == (8, (1008).to_bytes(2, "big"))
    await raw.close()
    await until(lambda: not portal.proxy.is_busy, what="the end")


async def test_a_permission_that_ends_while_the_server_is_being_reached(held: tuple[Portal, HeldDial]) -> None:
    portal, dial = held
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    await dial.waits.wait()
    revoke(portal)
    if portal.lane == "fast":  # which does not hurry
        await until(lambda: not portal.proxy.access.open_connections, what="the end of the permission to be noticed")
        dial.go_on.set()
    assert (await raw.answer()).status == 404
    await raw.close()
    assert portal.upstream.requests == []
    await until(lambda: not portal.proxy.upstreams.open_connections, what="the connection that nobody wants to end")


async def test_a_permission_that_ends_within_an_answer_nobody_takes(portal: Portal) -> None:
    async def endless(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            request.writer.write(bytes(65_536))
            await request.writer.drain()

    portal.upstream.handler = endless
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    await raw.head()
    raw.writer.transport.pause_reading()
    revoke(portal)
    await until(lambda: not portal.proxy.is_busy, what="the end")
    await raw.close()


@pytest.mark.parametrize("what", ["socket", "request"])
async def test_a_server_that_refuses(portal: Portal, what: str) -> None:
    await portal.upstream.stop()
    for _ in range(3):  # refused there; refused without a try
        raw = await portal.connect()
        raw.writer.write(asked(portal, what))
        assert (await raw.answer()).status == 503
        await raw.close()


@pytest.mark.parametrize("what", ["socket", "request"])
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n"], ids=["nothing", "half a head", "nonsense"]
)
async def test_a_server_that_leaves_within_its_answer(portal: Portal, what: str, said: bytes) -> None:
    portal.upstream.handler = answering(said, close=True)
    raw = await portal.connect()
    raw.writer.write(asked(portal, what))
    assert (await raw.answer()).status == 502
    await raw.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_breaks_off(portal: Portal, framing: bytes) -> None:
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n", close=True)
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    async with asyncio.timeout(60):
        assert not (await raw.reader.read()).endswith(b"0\r\n\r\n")
    await raw.close()


@pytest.mark.parametrize("what", ["socket", "request"])
@pytest.mark.parametrize("then", ["accepts", "refuses", "leaves"])
async def test_a_web_server_that_stops_before_the_answer(portal: Portal, what: str, then: str) -> None:
    after = {"accepts": accepting, "refuses": hello, "leaves": answering(b"", close=True)}[then]
    handler = portal.upstream.handler = Held(hello if what == "request" and then == "accepts" else after)
    raw = await portal.connect()
    raw.writer.write(asked(portal, what))
    await until(lambda: portal.upstream.requests, what="the server to be asked")
    handler.go_on.set()
    await asyncio.sleep(0)
    portal.stop()
    async with asyncio.timeout(60):
        assert await raw.reader.readuntil(b"\r\n\r\n")
    await raw.close()
    await until(lambda: not portal.proxy.is_busy, what="the end")


@pytest.mark.parametrize("what", ["socket", "request"])
@pytest.mark.parametrize("who", ["the browser leaves", "the web server stops", "the permission ends"])
async def test_at_whatever_moment(portal: Portal, what: str, who: str) -> None:
    dice = random.Random(5)
    open_access = portal.access[LABEL, COOKIE]
    portal.upstream.handler = accepting if what == "socket" else hello
    for _ in range(MOMENTS):
        portal.access[LABEL, COOKIE] = open_access
        raw = await portal.connect()
        raw.writer.write(asked(portal, what))
        for _ in range(dice.randrange(14)):  # turns of the loop: the proxy and the server are in it, too
            await asyncio.sleep(0)
        if who == "the browser leaves":
            raw.writer.transport.abort()
        elif who == "the web server stops":
            portal.stop()
        else:
            revoke(portal)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        raw.writer.transport.abort()
    await until(lambda: not portal.proxy.is_busy, what="the end")
