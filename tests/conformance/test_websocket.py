"""The conformance list for WebSockets, item by item: frames by hand on both sides, a real uvicorn between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from launcher.proxy import websocket
from launcher.proxy.access_types import Access, Verdict
from launcher.proxy.upstream import Limits
from tests.conformance.items import IS_FULL
from tests.integration.proxy_peers import (
    COOKIE,
    LABEL,
    Handler,
    Portal,
    Raw,
    Request,
    Upstream,
    Way,
    answering,
    begin_counting_memory,
    client_frame,
    echoing_socket,
    most_resident_mib,
    open_files,
    read_frame,
    server_frame,
    switching,
)
from tests.waiting import standstill, until

pytestmark = pytest.mark.integration

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MIB = 2**20


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these servers never answer a close frame."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)


@pytest.fixture
def time_to_close(_little_patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that do answer a close frame, on a machine that may be slow."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 60)


@pytest.fixture
def handler() -> Handler:
    """What these tests' server does, unless a test says otherwise."""
    return echoing_socket


@pytest.fixture
def portable(portal: Portal) -> Portal:
    """The lane that takes messages apart and puts them together again; ``test_tunnel`` tests the other."""
    return portal


@asynccontextmanager
async def socket_of(portal: Portal, *fields: bytes, target: str = "/ws") -> AsyncIterator[Raw]:
    """An accepted WebSocket."""
    raw = await portal.connect()
    raw.writer.write(portal.handshake(target, *fields))
    answer = await raw.head()
    assert answer.status == 101, answer
    try:
        yield raw
    finally:
        await raw.close()


async def refusal(portal: Portal, handshake: bytes) -> int:
    raw = await portal.connect()
    raw.writer.write(handshake)
    answer = await raw.answer()
    await raw.close()
    return answer.status


@pytest.mark.parametrize(
    ("opcode", "data"),
    [
        pytest.param(TEXT, "6*7 = 42, 你好 🎉".encode(), id="text"),
        pytest.param(BINARY, bytes(range(256)) * 3, id="binary"),
        pytest.param(TEXT, b"", id="empty-text"),
        pytest.param(BINARY, b"", id="empty-binary"),
        pytest.param(BINARY, b"x" * 70_000, id="64-bit-length"),
    ],
)
async def test_c50_a_message_comes_back_as_it_went(portal: Portal, opcode: int, data: bytes) -> None:
    async with socket_of(portal) as raw:
        raw.writer.write(client_frame(opcode, data))
        assert await read_frame(raw.reader) == (opcode, data)


async def test_c50_fragments_make_one_message_in_both_directions(portable: Portal) -> None:
    got: list[tuple[int, bytes]] = []

    async def fragment(request: Request) -> None:
        request.writer.write(switching(request))
        got.append(await read_frame(request.reader))
        request.writer.write(server_frame(TEXT, b"on", final=False))
        request.writer.write(server_frame(PING, b"between"))
        request.writer.write(server_frame(0, b"e", final=False) + server_frame(0, b"", final=True))
        got.append(await read_frame(request.reader))
        await request.reader.read()

    portable.upstream.handler = fragment
    async with socket_of(portable) as raw:
        raw.writer.write(client_frame(BINARY, b"ab", final=False) + client_frame(0, b"cd", final=False))
        raw.writer.write(client_frame(0, b"ef"))
        assert await read_frame(raw.reader) == (TEXT, b"one")
    assert got == [(BINARY, b"abcdef"), (PONG, b"between")]


async def test_c51_a_message_of_20_mb_passes(portal: Portal) -> None:
    data = bytes(range(250)) * 80_000
    async with socket_of(portal) as raw:
        raw.writer.write(client_frame(BINARY, data))
        assert await read_frame(raw.reader) == (BINARY, data)


def choosing(chosen: bytes) -> object:
    async def handler(request: Request) -> None:
        fields = (b"Sec-WebSocket-Protocol: " + chosen,) if chosen else ()
        request.writer.write(switching(request, *fields))
        await request.reader.read()

    return handler


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        pytest.param(b"", b"", id="none"),
        pytest.param(b"v1.kernel.websocket.jupyter.org", b"v1.kernel.websocket.jupyter.org", id="one"),
        pytest.param(b"first, second", b"second", id="second-preferred"),
        pytest.param(b"first, second", b"", id="none-accepted"),
    ],
)
async def test_c52_the_server_chooses_the_subprotocol(portal: Portal, offered: bytes, chosen: bytes) -> None:
    portal.upstream.handler = choosing(chosen)  # type: ignore[assignment]  # a handler
    raw = await portal.connect()
    raw.writer.write(portal.handshake("/ws", b"Sec-WebSocket-Protocol: " + offered if offered else b""))
    answer = await raw.head()
    await raw.close()
    assert answer.status == 101
    assert answer.values(b"sec-websocket-protocol") == ([chosen] if chosen else [])
    assert portal.upstream.requests[-1].values(b"sec-websocket-protocol") == ([offered] if offered else [])


async def test_c52_a_subprotocol_nobody_offered_is_no_handshake(portal: Portal) -> None:
    portal.upstream.handler = choosing(b"other")  # type: ignore[assignment]  # a handler
    assert await refusal(portal, portal.handshake("/ws", b"Sec-WebSocket-Protocol: mine")) == 502


async def test_c54_without_the_cookie_the_handshake_is_answered_403(portal: Portal) -> None:
    assert await refusal(portal, portal.handshake(cookie="")) == 403
    assert portal.upstream.requests == []


@pytest.mark.parametrize("verdict", [Verdict.FORBIDDEN, Verdict.UNKNOWN, Verdict.SIGN_IN])
async def test_c54_who_may_not_enter_gets_403(portal: Portal, verdict: Verdict) -> None:
    portal.access[LABEL, COOKIE] = Access(verdict)
    assert await refusal(portal, portal.handshake()) == 403
    assert portal.upstream.requests == []


@pytest.mark.parametrize("verdict", [Verdict.NOT_READY, Verdict.ENDED])
async def test_a_session_without_a_server_answers_503_to_a_handshake(portal: Portal, verdict: Verdict) -> None:
    portal.access[LABEL, COOKIE] = Access(verdict, session_id="session-1")
    assert await refusal(portal, portal.handshake()) == 503


@pytest.mark.parametrize(
    "origin",
    [None, b"null", b"http://evil.example", b"http://localhost", b"https://SAME", b"http://SAME.evil.example",
     b"http://xwvutsrqponmlkjihgfedcba.localhost:PORT"],
)  # fmt: skip
async def test_a_handshake_of_another_origin_is_refused_and_reported(portal: Portal, origin: bytes | None) -> None:
    if origin is not None:
        origin = origin.replace(b"SAME", portal.host).replace(b"PORT", b"%d" % portal.port)
    assert await refusal(portal, portal.handshake(origin=origin)) == 403
    assert portal.upstream.requests == []
    assert [(item["door"], item["cause"]) for item in portal.denied] == [("websocket", "origin")]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
async def test_c55_an_http_answer_to_a_handshake_reaches_the_browser(portal: Portal, status: int) -> None:
    portal.upstream.handler = answering(
        b'HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{"message": "no"}' % status
    )
    raw = await portal.connect()
    raw.writer.write(portal.handshake())
    answer = await raw.answer()
    await raw.close()
    assert (answer.status, answer.body) == (status, b'{"message": "no"}')
    await until(lambda: not portal.upstream.open, what="the server's connection to close")


async def test_c56_a_server_that_hangs_up_on_a_handshake_is_a_502(portal: Portal) -> None:
    async def hang_up(request: Request) -> None:
        request.writer.close()

    portal.upstream.handler = hang_up
    assert await refusal(portal, portal.handshake()) == 502


@pytest.mark.parametrize("missing", [b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Accept"])
async def test_c56_a_handshake_answered_wrongly_is_a_502(portal: Portal, missing: bytes) -> None:
    async def wrong(request: Request) -> None:
        head = switching(request)
        request.writer.write(head.replace(missing, b"X" if missing == b"Accept" else b""))
        await request.reader.read()

    portal.upstream.handler = wrong
    assert await refusal(portal, portal.handshake()) == 502


async def test_c56_a_server_silent_at_the_handshake_is_a_504(impatient: Portal) -> None:
    async def say_nothing(request: Request) -> None:
        await request.reader.read()

    impatient.upstream.handler = say_nothing
    assert await refusal(impatient, impatient.handshake()) == 504


async def test_c57_cookies_of_the_handshake_arrive_confined(portal: Portal) -> None:
    async def set_cookies(request: Request) -> None:
        cookies = (b"Set-Cookie: _xsrf=1; Domain=localhost; Path=/", b"Set-Cookie: footbridge=x")
        request.writer.write(switching(request, *cookies))
        await request.reader.read()

    portal.upstream.handler = set_cookies
    raw = await portal.connect()
    raw.writer.write(portal.handshake())
    assert (await raw.head()).values(b"set-cookie") == [b"_xsrf=1; Path=" + portal.base_url.encode()]
    await raw.close()


async def test_c58_an_upgrade_to_something_else_is_a_plain_request(portal: Portal) -> None:
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answer = await portal.ask("GET", "/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x")
    assert (answer.status, answer.body) == (200, b"ok")
    for gone in (b"upgrade", b"connection", b"http2-settings"):
        assert portal.upstream.requests[-1].values(gone) == []


async def test_the_handshake_carries_our_fields_and_offers_no_extension(portable: Portal) -> None:
    extension = b"Sec-WebSocket-Extensions: permessage-deflate"
    async with socket_of(
        portable, extension, b"X-Forwarded-For: 6.6.6.6", target="/api/kernels/1/channels?a=%2F&token=x"
    ):
        request = portable.upstream.requests[-1]
    assert request.target == b"/api/kernels/1/channels?a=%2F"
    assert request.values(b"x-footbridge-secret") == [b"upstreams-secret"]
    assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.values(b"origin") == [portable.origin]
    assert request.values(b"cookie") == []
    assert request.values(b"sec-websocket-extensions") == []
    assert request.values(b"sec-websocket-key") != [b"dGhlIHNhbXBsZSBub25jZQ=="]


async def test_bytes_right_behind_the_handshake_are_not_lost(portal: Portal) -> None:
    async def eager(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(TEXT, b"early") + server_frame(TEXT, b"bird"))
        await request.reader.read()

    portal.upstream.handler = eager
    async with socket_of(portal) as raw:
        assert await read_frame(raw.reader) == (TEXT, b"early")
        assert await read_frame(raw.reader) == (TEXT, b"bird")


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "done"), (1001, ""), (1009, "too big"), (3000, "x" * 123), (4001, "你好")]
)
async def test_c61_the_servers_close_reaches_the_browser(portable: Portal, code: int, reason: str) -> None:
    async def closing(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(TEXT, b"last"))
        request.writer.write(server_frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))
        answers.append(await read_frame(request.reader))

    answers: list[tuple[int, bytes]] = []
    portable.upstream.handler = closing
    async with socket_of(portable) as raw:
        assert await read_frame(raw.reader) == (TEXT, b"last")
        assert await read_frame(raw.reader) == (CLOSE, code.to_bytes(2, "big") + reason.encode())
    await until(lambda: answers)
    assert answers[0][1][:2] == code.to_bytes(2, "big")


@pytest.mark.usefixtures("time_to_close")
@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, "bye"), (4001, "你好"), (0, "")])
async def test_c61_the_browsers_close_reaches_the_server(portal: Portal, code: int, reason: str) -> None:
    payload = code.to_bytes(2, "big") + reason.encode() if code else b""
    got: list[tuple[int, bytes]] = []

    async def listening(request: Request) -> None:
        request.writer.write(switching(request))
        got.append(await read_frame(request.reader))
        request.writer.write(server_frame(CLOSE, got[0][1]))

    portal.upstream.handler = listening
    async with socket_of(portal) as raw:
        raw.writer.write(client_frame(CLOSE, payload))
        assert await read_frame(raw.reader) == (CLOSE, payload)
    await until(lambda: got)
    assert got == [(CLOSE, payload)]


async def test_c61_a_server_that_vanishes_ends_the_browsers_socket_without_a_code(portal: Portal) -> None:
    async def vanish(request: Request) -> None:
        request.writer.write(switching(request))
        await request.writer.drain()
        request.writer.transport.abort()

    portal.upstream.handler = vanish
    async with socket_of(portal) as raw:
        async with asyncio.timeout(60):
            assert await raw.reader.read() == b""


async def test_a_browser_that_vanishes_ends_the_servers_socket(portal: Portal) -> None:
    async with socket_of(portal) as raw:
        await until(lambda: portal.proxy.access.open_connections == 1)
        raw.writer.transport.abort()
        await until(lambda: not portal.upstream.open, what="the server's connection to close")
    await until(lambda: portal.proxy.access.open_connections == 0)


async def test_w02_each_side_gets_its_own_pong(portable: Portal) -> None:
    got: list[tuple[int, bytes]] = []

    async def pinging(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(PING, b"are you there"))
        got.append(await read_frame(request.reader))
        await request.reader.read()

    portable.upstream.handler = pinging
    async with socket_of(portable) as raw:
        raw.writer.write(client_frame(PING, b"hello"))
        assert await read_frame(raw.reader) == (PONG, b"hello")
        await until(lambda: got)
    assert got == [(PONG, b"are you there")]


async def test_w03_a_server_that_closes_its_half_ends_both_connections(portal: Portal) -> None:
    async def half(request: Request) -> None:
        request.writer.write(switching(request) + server_frame(TEXT, b"last"))
        request.writer.write_eof()
        await request.reader.read()

    portal.upstream.handler = half
    async with socket_of(portal) as raw:
        assert await read_frame(raw.reader) == (TEXT, b"last")
        async with asyncio.timeout(60):
            assert await raw.reader.read() == b""
    await until(lambda: not portal.upstream.open, what="the server's connection to close")


async def test_w03_a_browser_that_closes_its_half_ends_both_connections(portal: Portal) -> None:
    async with socket_of(portal) as raw:
        raw.writer.write(client_frame(TEXT, b"last"))
        assert await read_frame(raw.reader) == (TEXT, b"last")
        raw.writer.write_eof()
        await until(lambda: not portal.upstream.open, what="the server's connection to close")
    await until(lambda: portal.proxy.access.open_connections == 0)


@pytest.mark.usefixtures("time_to_close")
async def test_w03_after_a_close_frame_what_the_server_still_says_disturbs_nothing(portal: Portal) -> None:
    async def talkative(request: Request) -> None:
        request.writer.write(switching(request))
        _, payload = await read_frame(request.reader)
        request.writer.write(server_frame(TEXT, b"one more") + server_frame(CLOSE, payload))

    portal.upstream.handler = talkative
    payload = (1000).to_bytes(2, "big") + b"done"
    async with socket_of(portal) as raw:
        raw.writer.write(client_frame(CLOSE, payload))
        frames = [await read_frame(raw.reader)]
        while frames[-1][0] != CLOSE:
            frames.append(await read_frame(raw.reader))
    assert frames[-1] == (CLOSE, payload)
    await until(lambda: not portal.upstream.open)


@pytest.mark.parametrize(
    ("raw_frame", "code"),
    [
        pytest.param(b"\xc1\x00", 1002, id="reserved-bit"),
        pytest.param(b"\x83\x00", 1002, id="unknown-opcode"),
        pytest.param(b"\x81\x80abcd", 1002, id="masked"),
        pytest.param(b"\x80\x00", 1002, id="continuation-of-nothing"),
        pytest.param(b"\x09\x00", 1002, id="ping-in-pieces"),
        pytest.param(b"\x81\x02\xff\xfe", 1007, id="text-that-is-none"),
        pytest.param(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1009, id="endless"),
        pytest.param(b"\x88\x02\x03\xed", 1002, id="code-1005-sent"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_cut_off(portable: Portal, raw_frame: bytes, code: int) -> None:
    async def breaking(request: Request) -> None:
        request.writer.write(switching(request) + raw_frame)
        await request.reader.read()

    portable.upstream.handler = breaking
    async with socket_of(portable) as raw:
        opcode, data = await read_frame(raw.reader)
    assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, code)
    await until(lambda: not portable.upstream.open)


async def test_w01_a_slow_browser_holds_the_server_back(portal: Portal) -> None:
    total, sent = 256, 0

    async def pour(request: Request) -> None:
        nonlocal sent
        request.writer.write(switching(request))
        while sent < total:
            request.writer.write(server_frame(BINARY, bytes(MIB)))
            await request.writer.drain()
            sent += 1
        await request.reader.read()

    portal.upstream.handler = pour
    async with socket_of(portal) as raw:
        raw.take_little()
        before = begin_counting_memory()
        await standstill(lambda: sent)
        assert sent < 32
        for _ in range(total):
            assert len((await read_frame(raw.reader))[1]) == MIB
        assert most_resident_mib() - before < 64


async def test_w01_a_slow_server_holds_the_browser_back(portal: Portal) -> None:
    may_read = asyncio.Event()
    total, taken = 128, 0

    async def take(request: Request) -> None:
        nonlocal taken
        request.writer.write(switching(request))
        await may_read.wait()
        while taken < total:
            assert len((await read_frame(request.reader))[1]) == MIB
            taken += 1
        await request.reader.read()

    portal.upstream.handler = take
    async with socket_of(portal) as raw:
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while sent < total:
                raw.writer.write(client_frame(BINARY, bytes(MIB)))
                await raw.writer.drain()
                sent += 1

        pouring = asyncio.create_task(pour())
        await standstill(lambda: sent)
        assert sent < 32
        may_read.set()
        await pouring
        await until(lambda: taken == total)


async def test_too_many_sockets_of_a_session_are_turned_away(upstream: Upstream, by: Way) -> None:
    async with by.portal(upstream, limits=Limits(sockets=2)).running() as portal:
        async with socket_of(portal), socket_of(portal):
            assert await refusal(portal, portal.handshake()) == 503


# The end of a permission


@pytest.mark.parametrize("what", [{"session_id": "session-1"}, {"user_id": 1}, {}])
async def test_r01_a_revoked_socket_is_closed_at_once(portal: Portal, what: dict[str, object]) -> None:
    async with socket_of(portal) as raw:
        portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
        portal.proxy.drop(**what)  # type: ignore[arg-type]  # by name
        async with asyncio.timeout(60):
            opcode, data = await read_frame(raw.reader)
    assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, 1008)
    await until(lambda: not portal.upstream.open)


async def test_a_drop_that_concerns_others_closes_nothing(portal: Portal) -> None:
    async with socket_of(portal) as raw:
        portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
        portal.proxy.drop(session_id="session-2")
        portal.proxy.drop(user_id=2)
        raw.writer.write(client_frame(TEXT, b"still here"))
        assert await read_frame(raw.reader) == (TEXT, b"still here")


async def test_a_drop_without_a_reason_keeps_the_socket(portal: Portal) -> None:
    async with socket_of(portal) as raw:
        before = portal.lookups
        portal.proxy.drop(user_id=1)
        await until(lambda: portal.lookups > before)
        raw.writer.write(client_frame(TEXT, b"still here"))
        assert await read_frame(raw.reader) == (TEXT, b"still here")


async def test_r03_a_lost_message_about_a_revocation_is_made_up_for(strict: Portal) -> None:
    async with socket_of(strict) as raw:
        strict.access[LABEL, COOKIE] = Access(Verdict.ENDED, session_id="session-1")
        async with asyncio.timeout(60):
            assert (await read_frame(raw.reader))[0] == CLOSE


async def test_a_job_that_moved_ends_the_sockets_to_its_old_place(strict: Portal) -> None:
    async with socket_of(strict) as raw:
        access = strict.access[LABEL, COOKIE]
        assert access.target is not None
        strict.access[LABEL, COOKIE] = replace(access, target=replace(access.target, port=2))
        async with asyncio.timeout(60):
            assert (await read_frame(raw.reader))[0] == CLOSE


async def test_a_database_that_is_away_for_a_moment_closes_nothing(strict: Portal) -> None:
    async with socket_of(strict) as raw:
        strict.database_is_away = True
        asked = strict.lookups
        await until(lambda: strict.lookups >= asked + 2)
        raw.writer.write(client_frame(TEXT, b"still here"))
        assert await read_frame(raw.reader) == (TEXT, b"still here")


async def test_r01_a_revoked_socket_of_a_browser_that_takes_nothing_is_closed_too(portal: Portal) -> None:
    sent = 0

    async def pour(request: Request) -> None:
        nonlocal sent
        request.writer.write(switching(request))
        while True:
            request.writer.write(server_frame(BINARY, bytes(MIB)))
            await request.writer.drain()
            sent += 1

    portal.upstream.handler = pour
    async with socket_of(portal):
        await until(lambda: portal.proxy.access.open_connections == 1)
        await standstill(lambda: sent)
        portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
        portal.proxy.drop(user_id=1)
        await until(lambda: not portal.upstream.open, what="the server's connection to close")


async def test_b03_a_browser_that_leaves_during_the_handshake_holds_no_connection(upstream: Upstream, by: Way) -> None:
    async def think(request: Request) -> None:
        await request.reader.read()

    upstream.handler = think
    async with by.portal(upstream, limits=Limits(head_seconds=600)).running() as portal:
        raw = await portal.connect()
        raw.writer.write(portal.handshake())
        await until(lambda: upstream.requests)
        raw.writer.transport.abort()
        await until(lambda: not upstream.open, what="the server's connection to close")
        await until(lambda: not portal.proxy.upstreams.open_connections)
        assert not portal.proxy.is_busy


async def test_r02_a_revoked_download_is_cut_off(portal: Portal) -> None:
    async def drip(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await request.reader.read()

    portal.upstream.handler = drip
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/events"))
    await raw.head()
    await until(lambda: portal.proxy.access.open_connections == 1)
    portal.access[LABEL, COOKIE] = Access(Verdict.SIGN_IN, session_id="session-1")
    portal.proxy.drop(session_id="session-1")
    async with asyncio.timeout(60):
        assert b"0\r\n\r\n" not in await raw.reader.read()
    await raw.close()
    await until(lambda: not portal.upstream.open)


@pytest.mark.parametrize("way", ["down", "up"])
async def test_r02_a_revoked_transfer_at_full_speed_is_cut_off_and_the_next_try_audited_once(
    portal: Portal, way: str
) -> None:
    total, moved = 1 << 40, 0

    async def carry(request: Request) -> None:
        nonlocal moved
        if way == "down":
            request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            while True:
                request.writer.write(bytes(MIB))
                await request.writer.drain()
                moved += MIB
        while data := await request.reader.read(MIB):
            moved += len(data)

    async def use(raw: Raw) -> None:
        with contextlib.suppress(ConnectionError):
            if way == "down":
                while await raw.reader.read(MIB):
                    pass
            else:
                while True:
                    raw.writer.write(bytes(MIB))
                    await raw.writer.drain()

    portal.upstream.handler = carry
    portal.upstream.reads_bodies = False
    raw = await portal.connect()
    length = b"Content-Length: %d" % total
    raw.writer.write(portal.head("GET", "/big") if way == "down" else portal.head("PUT", "/big", length))
    using = asyncio.create_task(use(raw))
    await until(lambda: moved > 4 * MIB, "the transfer to run")
    portal.access[LABEL, COOKIE] = Access(Verdict.FORBIDDEN, session_id="session-1", username="alice", user_id=1)
    portal.proxy.drop(session_id="session-1", user_id=1)
    await until(lambda: not portal.upstream.open, "the server's connection to close")
    if way == "down":
        async with asyncio.timeout(60):
            await using
    else:  # the rest of it is read, as of any request that was refused, and goes nowhere
        assert (await raw.head()).status == 404
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)
    raw.writer.transport.abort()
    assert [(await portal.ask("GET", "/lab")).status for _ in range(3)] == [404, 404, 404]
    assert [item["cause"] for item in portal.denied] == ["forbidden"]


async def test_c60_nothing_is_left_after_many_sockets_and_requests_that_break_off(upstream: Upstream, by: Way) -> None:
    async def either(request: Request) -> None:
        if request.values(b"upgrade"):
            await echoing_socket(request)
        else:
            body = json.dumps({"path": request.target.decode()}).encode() * 1000
            request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    upstream.handler = either

    async def one(portal: Portal, number: int) -> None:
        raw = await portal.connect()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if number % 3 == 0:
                raw.writer.write(portal.handshake())
                await raw.head()
                raw.writer.write(client_frame(TEXT, b"hello"))
                if number % 2:
                    await read_frame(raw.reader)
            else:
                raw.writer.write(portal.head("GET", f"/{number}"))
                if number % 2:
                    await raw.answer()
                elif number % 4:
                    await raw.head()
        raw.writer.transport.abort()

    async with by.portal(upstream, limits=Limits(idle_seconds=0.2)).running() as portal:
        await one(portal, 1)
        await until(lambda: portal.proxy.upstreams.open_connections == 0)
        files, tasks = open_files(), len(asyncio.all_tasks())
        for batch in range(400 if IS_FULL else 10):  # in full, 12,000: 4,000 WebSockets and 8,000 requests
            await asyncio.gather(*(one(portal, batch * 30 + number) for number in range(30)))
            upstream.requests.clear()
        await until(lambda: portal.proxy.upstreams.open_connections == 0, what="upstream connections to close")
        await until(lambda: not upstream.open, what="the server's connections to close")
        await until(lambda: open_files() <= files, what="files to close")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, what="tasks to end")
        assert portal.proxy.access.open_connections == 0
