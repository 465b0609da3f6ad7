"""Access that is taken back in the middle of transfers at full speed: by a real sign-out, by an administrator who shuts
the account out, and by the session's end.

The real front, proxy, selectors, grants and news, straight and through the demo cluster's SSH server. The proxy's own
regular look at whoever stays connected is switched off: what ends here was ended by the news.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from channels.db import database_sync_to_async
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from launcher import parts, revocation, services
from launcher.models import InteractiveSession
from launcher.proxy.access import Durations
from launcher.proxy.dial import SSHDial, TCPDial
from portal.accounts.models import User
from tests.entering import entered
from tests.integration.proxy_peers import (
    Raw,
    Request,
    client_frame,
    hello,
    read_frame,
    server_frame,
    switching,
)
from tests.integration.test_refusals_table import House, opened
from tests.integration.test_robustness import ready
from tests.waiting import until

__all__ = ["ready"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

NEVER = 3600.0
MOST_SECONDS = 8.0
"""Two are promised, and hardly more than one is needed; a browser that does not answer a close frame once got ten."""
PIECE = bytes(65536)


@pytest.fixture(autouse=True)
def forgotten(valkey: None) -> Iterator[None]:
    """Nothing was told before."""
    cache.clear()
    yield
    cache.clear()


class Server:
    """A server in a job, and how far each of its conversations has come."""

    def __init__(self) -> None:
        self.moved = dict.fromkeys((b"/down", b"/up", b"/events", b"/ws"), 0)  # pieces, per target
        self.ended: set[bytes] = set()

    async def __call__(self, request: Request) -> None:
        if request.target not in self.moved:
            await hello(request)
            return
        try:
            await getattr(self, request.target[1:].decode())(request)
        finally:
            self.ended.add(request.target)

    async def down(self, request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while not request.writer.is_closing():
            request.writer.write(PIECE)
            await request.writer.drain()
            self.moved[b"/down"] += 1

    async def up(self, request: Request) -> None:
        while await request.reader.read(65536):
            self.moved[b"/up"] += 1

    async def events(self, request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        self.moved[b"/events"] += 1
        await request.reader.read(1)

    async def ws(self, request: Request) -> None:
        request.writer.write(switching(request))
        while True:
            opcode, data = await read_frame(request.reader)
            if opcode == 8:
                return
            request.writer.write(server_frame(opcode, data))
            await request.writer.drain()
            self.moved[b"/ws"] += 1


async def follow(house: House) -> None:
    """As the portal's own process does: what the news say is dropped."""
    async for news in revocation.listen():
        house.proxy.access.drop(session_id=news.session_id, user_id=news.user_id)


async def read_all(raw: Raw) -> None:
    with contextlib.suppress(OSError):
        while await raw.reader.read(1 << 20):
            pass


async def refused(raw: Raw) -> None:
    """What is left of the upload is thrown away for a while, so that the refusal can be read."""
    assert (await raw.answer()).status in (403, 503)


async def pour(raw: Raw, piece: bytes) -> None:
    with contextlib.suppress(OSError):
        while not raw.writer.is_closing():
            raw.writer.write(piece)
            await raw.writer.drain()


SIGN_OUT = "the person signs out"
SHUT_OUT = "an administrator shuts the account out"
ENDED = "the session ends"


def take_back(how: str, session: InteractiveSession, browser: Client, as_admin: Client, alice: User) -> None:
    if how == SIGN_OUT:
        assert browser.post(reverse("accounts:sign-out")).status_code == 302
    elif how == SHUT_OUT:
        assert as_admin.post(reverse("launcher:admin-user-disable", args=[alice.pk])).status_code == 302
    else:
        services.request_stop(session=session, actor=alice, address="")


@pytest.mark.parametrize("way", ["straight", "ssh"])
@pytest.mark.parametrize("lane", ["fast", "portable"])
@pytest.mark.parametrize("how", [SIGN_OUT, SHUT_OUT, ENDED])
async def test_what_moves_at_full_speed_ends_with_the_permission(
    ready: InteractiveSession, as_admin: Client, alice: User, how: str, lane: str, way: str
) -> None:
    browser = Client()

    def enter() -> str:
        browser.force_login(alice, backend="portal.accounts.backends.PortalBackend")
        browser.get("/history/")
        return entered(ready, alice, web_session_key=browser.session.session_key or "")

    cookie = await database_sync_to_async(enter)()
    server = Server()
    durations = Durations(keep_seconds=NEVER, recheck_seconds=NEVER)
    dial = SSHDial(parts.new_pool()) if way == "ssh" else TCPDial()
    async with contextlib.aclosing(opened(ready, lane, dial=dial, durations=durations)) as houses:
        house = await anext(houses)
        house.upstream.handler, house.upstream.reads_bodies = server, False
        following = asyncio.create_task(follow(house))
        down, up, events, ws, idle = [await house.connect() for _ in range(5)]
        down.writer.write(house.head("GET", "/down", cookie=cookie))
        up.writer.write(house.head("POST", "/up", b"Content-Length: %d" % (1 << 40), cookie=cookie))
        events.writer.write(house.head("GET", "/events", cookie=cookie))
        ws.writer.write(house.handshake("/ws", cookie=cookie))
        idle.writer.write(house.head("GET", "/idle", cookie=cookie))
        assert (await ws.head()).status == 101
        assert (await idle.answer()).body == b"hello"
        sending = [asyncio.create_task(pour(up, PIECE)), asyncio.create_task(pour(ws, client_frame(2, bytes(20_000))))]
        ends = [asyncio.create_task(read_all(raw)) for raw in (down, events, ws)]
        ends.append(asyncio.create_task(refused(up)))
        await until(lambda: min(server.moved[target] for target in (b"/down", b"/up", b"/ws")) > 20, "all to move")
        await until(lambda: server.moved[b"/events"], "the first event")
        await until(lambda: house.proxy.access.open_connections >= 4, "the holds")
        assert not any(end.done() for end in ends)

        await database_sync_to_async(take_back)(how, ready, browser, as_admin, alice)
        began = time.monotonic()
        async with asyncio.timeout(60):
            await asyncio.gather(*ends)
        assert time.monotonic() - began < MOST_SECONDS
        await until(lambda: server.ended == set(server.moved), "the server in the job to be left alone")
        idle.writer.write(house.head("GET", "/idle", cookie=cookie))
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # idle for too long, on a slow machine
            assert (await idle.answer()).status in (403, 503)
        for task in (*sending, following):
            task.cancel()
        await asyncio.gather(*sending, following, return_exceptions=True)
        for raw in (down, up, events, ws, idle):
            raw.writer.transport.abort()
