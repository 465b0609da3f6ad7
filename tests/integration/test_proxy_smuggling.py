"""Requests hidden in requests, answers hidden in answers: over real sockets and SSH channels, in both lanes.

Each hostile request is followed by ``/last``, which closes the connection. What was hidden asks for ``/hidden``, and no
server in a job may ever see that.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.proxy_peers import COOKIE, Portal, Raw, Request, Upstream, hello, way

pytestmark = pytest.mark.integration


@pytest.fixture(params=["fast", "portable", "fast-ssh", "portable-ssh"])
async def portal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Portal]:
    """A session in one of the lanes, reached straight or through SSH."""
    lane, _, through = request.param.partition("-")
    async with way(through or "tcp", tmp_path, lane=lane) as chosen, Upstream().running() as upstream:
        async with chosen.portal(upstream).running() as portal:
            yield portal


@dataclass(frozen=True)
class Attack:
    """A request: its first line, its fields (beside host, cookie and origin), what follows, and what comes of it."""

    fields: bytes = b""
    body: bytes = b""
    line: bytes = b"POST /a HTTP/1.1"
    arrive: tuple[bytes, ...] = ()
    statuses: tuple[int, ...] = (400,)
    origin: bytes = b""


HIDDEN = b"<hidden>"
LENGTH = b"Content-Length: <length>\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NOTHING = b"0\r\n\r\n"
SOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
GET = b"GET /a HTTP/1.1"

ATTACKS = {
    "behind a refused upgrade": Attack(SOCKET, HIDDEN, GET, origin=b"http://evil.example"),
    "in the body of an upgrade": Attack(SOCKET + LENGTH, HIDDEN, GET),
    "behind an upgrade of no known version": Attack(SOCKET.replace(b"13", b"77"), HIDDEN, GET),
    "behind another upgrade": Attack(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
        line=GET,
        arrive=(b"/a", b"/last"),
        statuses=(200, 200),
    ),
    "in the body of a refused request": Attack(
        LENGTH, HIDDEN, origin=b"http://evil.example", arrive=(b"/last",), statuses=(403, 200)
    ),
    "in a body that was not asked for": Attack(
        b"Expect: 100-continue\r\n" + LENGTH, HIDDEN, arrive=(b"/a", b"/last"), statuses=(200, 200)
    ),
    "in the body of a GET": Attack(LENGTH, HIDDEN, GET, (b"/a", b"/last"), (200, 200)),
    "two codings": Attack(b"Transfer-Encoding: chunked, identity\r\n", NOTHING + HIDDEN),
    "the same coding twice": Attack(CHUNKED + CHUNKED, NOTHING + HIDDEN),
    "an upgrade with two Connection fields": Attack(SOCKET + b"Connection: keep-alive\r\n", line=GET),
    "a length and chunks": Attack(b"Content-Length: 4\r\n" + CHUNKED, NOTHING + HIDDEN),
    "a coding behind a vertical tab": Attack(b"Transfer-Encoding:\x0bchunked\r\n", NOTHING + HIDDEN),
    "a space before the colon": Attack(b"Transfer-Encoding : chunked\r\n", NOTHING + HIDDEN),
    "two lengths": Attack(b"Content-Length: 0\r\n" + LENGTH, HIDDEN),
    "a list of lengths": Attack(b"Content-Length: 0, 0\r\n", HIDDEN),
    "a length beyond all numbers": Attack(b"Content-Length: 18446744073709551616\r\n", HIDDEN),
    "chunks in HTTP/1.0": Attack(CHUNKED, NOTHING + HIDDEN, b"POST /a HTTP/1.0"),
    "a folded field": Attack(b"X: a\r\n b\r\n", line=GET),
    "a zero byte in a value": Attack(b"X: a\0b\r\n", line=GET),
    "a zero byte in a name": Attack(b"X\0: a\r\n", line=GET),
    "a bare CR": Attack(b"X: a\rContent-Length: 9\r\n", line=GET),
    "a bare LF": Attack(b"X: a\nContent-Length: 9\r\n", line=GET),
    "a second host": Attack(b"Host: other.example\r\n", line=GET),
    "an absolute address": Attack(line=b"GET http://evil.example/a HTTP/1.1"),
    "an authority": Attack(line=b"CONNECT evil.example:443 HTTP/1.1"),
    "TRACE": Attack(line=b"TRACE /a HTTP/1.1", arrive=(b"/last",), statuses=(405, 200)),
    "bytes beyond ASCII in the path": Attack(line=b"GET /\xff HTTP/1.1"),
    "a Connection field that names ours": Attack(
        b"Connection: Cookie, Host, X-Footbridge-Secret, X-Forwarded-For, Content-Length\r\n" + LENGTH,
        HIDDEN,
        arrive=(b"/a", b"/last"),
        statuses=(200, 200),
    ),
}


async def everything(raw: Raw) -> bytes:
    """All that comes until the connection ends."""
    got = b""
    while piece := await raw.reader.read(65536):
        got += piece
    await raw.close()
    return got


@pytest.mark.parametrize("name", ATTACKS)
async def test_no_request_hides_another(portal: Portal, name: str) -> None:
    attack = ATTACKS[name]
    ours = b"Host: " + portal.host + b"\r\nCookie: footbridge=" + COOKIE.encode() + b"\r\n"
    hidden = b"GET /hidden HTTP/1.1\r\n" + ours + b"\r\n"
    body = attack.body.replace(HIDDEN, hidden)
    fields = attack.fields.replace(b"<length>", b"%d" % len(body))
    origin = b"Origin: " + (attack.origin or portal.origin) + b"\r\n"
    raw = await portal.connect()
    raw.writer.write(attack.line + b"\r\n" + ours + origin + fields + b"\r\n" + body)
    raw.writer.write(b"GET /last HTTP/1.1\r\n" + ours + b"Connection: close\r\n\r\n")
    got = await everything(raw)
    statuses = tuple(int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", got) if found != b"100")
    assert (tuple(request.target for request in portal.upstream.requests), statuses) == (attack.arrive, attack.statuses)
    for request in portal.upstream.requests:
        assert request.values(b"x-footbridge-secret") == [portal.secret.encode()]
        assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert not request.values(b"cookie")
    assert not re.search(rb"evil|hidden|other\.example", got)


ANSWERS = {
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\n\r\n<evil>",
    "a WebSocket nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n<evil>"
    ),
    "an interim answer with a body": b"HTTP/1.1 100 Continue\r\nContent-Length: 40\r\n\r\n<evil>",
    "a folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "a zero byte": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX Y: b\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another protocol": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of nine hundred": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
}
SURPLUS = {
    "behind a body": (200, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok<evil>"),
    "behind no content": (204, b"HTTP/1.1 204 No Content\r\n\r\n<evil>"),
    "behind what has not changed": (304, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n<evil>"),
}


async def ask_twice(portal: Portal, answer: bytes) -> bytes:
    """All that a browser gets which asks once for what is answered so, and then for ``/last``."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def handler(request: Request) -> None:
        if request.target == b"/a":
            request.writer.write(answer.replace(b"<evil>", evil))
        else:
            await hello(request)

    portal.upstream.handler = handler
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/a") + portal.head("GET", "/last", b"Connection: close"))
    return await everything(raw)


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_of_two_meanings_is_none(portal: Portal, name: str) -> None:
    got = await ask_twice(portal, ANSWERS[name])
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"502", b"200"]
    assert got.endswith(b"\r\n\r\nhello")
    assert b"evil" not in got


@pytest.mark.parametrize("name", SURPLUS)
async def test_what_follows_an_answer_is_nobodys_answer(portal: Portal, name: str) -> None:
    status, answer = SURPLUS[name]
    got = await ask_twice(portal, answer)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"%d" % status, b"200"]
    assert got.endswith(b"\r\n\r\nhello")
    assert b"evil" not in got


async def test_a_thousand_interim_answers_are_none(portal: Portal) -> None:
    flood = 500 * (b"HTTP/1.1 102 Processing\r\n\r\n" + b"HTTP/1.1 100 Continue\r\n\r\n")
    got = await ask_twice(portal, flood + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"200", b"200"]
