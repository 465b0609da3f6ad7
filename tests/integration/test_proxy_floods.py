"""What one browser, or one server in a job, sends without end costs the web process no memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from launcher.proxy.fast.socket import MOST_FRAGMENTS, PAGE_MESSAGE_BYTES, FastSocket
from launcher.proxy.fast.tunnel import EXTENSION
from launcher.proxy.websocket import UpstreamSocket
from tests.integration.proxy_peers import (
    Portal,
    Raw,
    Request,
    Upstream,
    client_frame,
    read_frame,
    server_frame,
    switching,
)
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A server in a job."""
    async with Upstream().running() as server:
        yield server


PINGS = 100 * client_frame(9, bytes(125))
MIB = 1 << 20


@dataclass
class Pages(Portal):
    """A page's WebSocket in the place of the proxy: it takes what comes."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    server: FastSocket | None = None

    def application(self) -> Any:
        async def page(scope: Any, receive: Any, send: Any) -> None:
            self.server = scope["extensions"][EXTENSION]
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                self.taken.append(await receive())
                if self.taken[-1]["type"] == "websocket.disconnect":
                    return

        return page


async def slow_browser(portal: Portal) -> Raw:
    """A connection that has no room for what nobody reads."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.setblocking(False)
    await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", portal.port))
    reader, writer = await asyncio.open_connection(sock=link, limit=2048)
    return Raw(reader, writer)


async def test_a_page_takes_no_long_message(upstream: Upstream) -> None:
    async with Pages(upstream).running() as pages:
        raw = await pages.connect()
        raw.writer.write(pages.handshake())
        assert (await raw.head()).status == 101
        one_more = client_frame(2, bytes(2 * PAGE_MESSAGE_BYTES))[:14]  # its head says how long it would be
        raw.writer.write(client_frame(2, bytes(PAGE_MESSAGE_BYTES)))
        await until(lambda: bool(pages.taken), what="the longest message")
        raw.writer.write(one_more)
        opcode, data = await read_frame(raw.reader)
        assert (opcode, data[:2]) == (8, (1009).to_bytes(2, "big"))
        await raw.close()
        assert [event.get("code") or len(event["bytes"]) for event in pages.taken] == [PAGE_MESSAGE_BYTES, 1009]


async def test_a_message_in_pieces_without_end_is_refused(upstream: Upstream) -> None:
    async with Pages(upstream).running() as pages:
        raw = await pages.connect()
        raw.writer.write(pages.handshake())
        assert (await raw.head()).status == 101
        raw.writer.write(client_frame(1, b"", final=False) + MOST_FRAGMENTS * client_frame(0, b"", final=False))
        opcode, data = await read_frame(raw.reader)
        assert (opcode, data[:2]) == (8, (1009).to_bytes(2, "big"))
        await raw.close()


async def test_answers_to_pings_do_not_pile_up_for_a_browser_that_takes_none(upstream: Upstream) -> None:
    async with Pages(upstream).running() as pages:
        raw = await slow_browser(pages)
        raw.writer.write(pages.handshake())
        assert (await raw.head()).status == 101
        for _ in range(800):  # ten megabytes: more than both kernels' buffers hold
            raw.writer.write(PINGS)
            await raw.writer.drain()
        raw.writer.write(client_frame(9, b"last") + client_frame(1, b"done"))
        await until(lambda: bool(pages.taken), what="all pings to be read")
        server = pages.server
        assert server is not None
        assert not server.writable.is_set()
        assert server.transport.get_write_buffer_size() < MIB
        while (await read_frame(raw.reader))[1] != b"last":  # once it reads, the last one is answered
            pass
        await raw.close()


async def test_answers_to_pings_do_not_pile_up_for_a_server_that_takes_none(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets: list[UpstreamSocket] = []
    begin = UpstreamSocket.__init__

    def watched(self: UpstreamSocket, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        sockets.append(self)

    monkeypatch.setattr(UpstreamSocket, "__init__", watched)
    may_read = asyncio.Event()
    answered = asyncio.Event()

    async def pinging(request: Request) -> None:
        request.writer.write(switching(request))
        for _ in range(1600):
            request.writer.write(100 * server_frame(9, bytes(125)))
            await request.writer.drain()
        request.writer.write(server_frame(9, b"last") + server_frame(1, b"done"))
        await may_read.wait()
        while (await read_frame(request.reader))[1] != b"last":
            pass
        answered.set()

    upstream.handler = pinging
    async with Portal(upstream, lane="portable").running() as portal:
        raw = await portal.connect()
        raw.writer.write(portal.handshake())
        assert (await raw.head()).status == 101
        assert await read_frame(raw.reader) == (1, b"done")
        (server,) = sockets
        assert server.is_congested
        transport = server._connection.transport
        assert transport is not None
        assert transport.get_write_buffer_size() < MIB
        may_read.set()
        async with asyncio.timeout(60):
            await answered.wait()
        await raw.close()
