"""The conformance list for HTTP, item by item (``items`` has the list, ``conftest`` the columns)."""

from __future__ import annotations

import asyncio
import gzip
import os
import string
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import reduce

import pytest

from launcher.demo.ports import free_port
from launcher.proxy.upstream import Limits
from tests.conformance.items import IS_FULL
from tests.integration.proxy_peers import (
    COOKIE,
    LABEL,
    OTHER_LABEL,
    SECRET,
    Portal,
    Raw,
    Request,
    Upstream,
    Way,
    answering,
    begin_counting_memory,
    client_frame,
    echoing_socket,
    hello,
    most_resident_mib,
    read_body,
    read_frame,
)
from tests.waiting import standstill, until

pytestmark = pytest.mark.integration

TEXT, CLOSE = 1, 8


# Path and query


async def arrives(portal: Portal, target: str | bytes) -> bytes:
    answer = await portal.ask("GET", target)
    assert answer.status == 200
    return portal.upstream.requests[-1].target


async def test_c01_every_legal_byte_of_a_path_and_query_arrives_unchanged(portal: Portal) -> None:
    target = (
        "/Hello%20world%20123%20%C3%A5%C3%A4%C3%B6%20%F0%9F%8E%89%E4%BD%A0%E5%A5%BD%E4%B8%96%E7%95%8C%C2%B1%C2%A5"
        "%20:/[]@!$&'()*+,;=-._~?Hello%20:/[]@!$&'()*+,;=-._~?/x=%E4%BD%A0"
    )
    assert await arrives(portal, target) == target.encode()


async def test_c02_a_quoted_hash_stays_quoted(portal: Portal) -> None:
    assert await arrives(portal, "/a%23b?c=%23d") == b"/a%23b?c=%23d"


async def test_c03_a_quoted_slash_stays_quoted(portal: Portal) -> None:
    assert await arrives(portal, "/a%2Fb/%252Fc?x=%2F&y=%252F") == b"/a%2Fb/%252Fc?x=%2F&y=%252F"


async def test_c04_an_at_stays_as_it_was_written(portal: Portal) -> None:
    assert await arrives(portal, "/user@host/%40me") == b"/user@host/%40me"


async def test_c06_a_query_is_not_taken_apart(portal: Portal) -> None:
    assert await arrives(portal, "/x?a=%2F&b=+&c") == b"/x?a=%2F&b=+&c"


async def test_c07_slashes_are_not_merged(portal: Portal) -> None:
    assert await arrives(portal, "//a///b") == b"//a///b"


async def test_c01_every_byte_arrives_as_it_was_written_plain_or_quoted(portal: Portal) -> None:
    plain = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/"  # RFC 3986, 3.3 and 3.4
    quoted = "".join(f"%{number:02x}%{number:02X}" for number in range(256))
    target = f"/x/{plain}[]{quoted}?{plain}[]?{quoted}"
    assert await arrives(portal, target) == target.encode()


@pytest.mark.parametrize("target", ["/%e4%BD%a0/../a/./b;c", "/x?"])
async def test_c01_a_path_is_not_normalised(portal: Portal, target: str) -> None:
    assert await arrives(portal, target) in (target.encode(), target.rstrip("?").encode())


async def test_the_token_parameter_alone_is_taken_out(portal: Portal) -> None:
    assert await arrives(portal, "/lab?a=%2F&token=wrong&b=+&%74oken=x&tokens=1&c") == b"/lab?a=%2F&b=+&tokens=1&c"


@asynccontextmanager
async def below_a_prefix(upstream: Upstream, by: Way) -> AsyncIterator[tuple[Portal, str]]:
    """A session below a prefix, and the prefix: at its own address a server's own, else that of the session."""
    async with by.portal(upstream, base_url="/s/abc/").running() as portal:
        portal.prefix, upstream.prefix = "", b""  # what is asked here is asked as it stands
        yield portal, portal.base_url


async def test_c09_a_prefix_is_kept(upstream: Upstream, by: Way) -> None:
    async with below_a_prefix(upstream, by) as (portal, prefix):
        assert await arrives(portal, f"{prefix}lab") == f"{prefix}lab".encode()


async def test_c10_a_prefix_without_its_slash_redirects(upstream: Upstream, by: Way) -> None:
    async with below_a_prefix(upstream, by) as (portal, prefix):
        answer = await portal.ask("GET", f"{prefix[:-1]}?x=1", b"Accept: text/html")
        assert (answer.status, answer.values(b"location")) == (302, [f"{prefix}?x=1".encode()])


@pytest.mark.parametrize("path", ["/s/other/lab", "/s/zyxwvutsrqpm/lab", "/lab", "/s/../lab", "/s/"])
async def test_c11_a_foreign_prefix_is_not_found(upstream: Upstream, by: Way, path: str) -> None:
    async with below_a_prefix(upstream, by) as (portal, _):
        assert (await portal.ask("GET", path)).status == 404
        assert upstream.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1@other",
        "user:pass@host:1",
        LABEL,
        f"{LABEL}.localhost",
        f"{LABEL}.localhost:1",
        f"{LABEL}.localhost.evil.example:PORT",
        f"x{LABEL}.localhost:PORT",
        f"{LABEL[:-1]}.localhost:PORT",
        f"{LABEL[:-1]}_.localhost:PORT",
        f"{LABEL}.localhost.:PORT",
        "<script>alert(1)</script>",
    ],
)
async def test_c15_a_bad_host_is_never_proxied_nor_echoed(portal: Portal, host: str) -> None:
    sent = host.replace("PORT", str(portal.port)).encode()
    answer = await portal.ask("GET", "/lab", b"Accept: text/html", host=sent)
    assert answer.status in (400, 404)
    assert sent not in answer.body
    assert portal.upstream.requests == []


NO_PATHS = ("host", "host:1", "127.0.0.1@other/x", "user:pass@host:1/x", "http://127.0.0.1@other/x", "*",
            "http://user:pass@host:1/x", "http://HOST/x", "/x y", "/é")  # fmt: skip
ODD_PATHS = ("//user:pass@host:1/x", "/user:pass@host:1/x", "/http://127.0.0.1:22/x", "/127.0.0.1@other/x")


async def test_c15_a_target_that_is_no_path_is_never_proxied_nor_echoed(portal: Portal) -> None:
    for target in NO_PATHS:
        sent = target.replace("HOST", portal.host.decode()).encode()
        raw = await portal.connect()
        raw.writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\nCookie: footbridge=%b\r\nAccept: text/html\r\n\r\n"
                         % (sent, portal.host, COOKIE.encode()))  # fmt: skip
        answer = await raw.answer()
        await raw.close()
        assert answer.status == 400, target
        assert target == "*" or sent not in answer.body
    assert portal.upstream.requests == []


async def test_c15_a_path_that_looks_like_an_address_leads_to_the_sessions_own_server(portal: Portal) -> None:
    for target in ODD_PATHS:
        assert await arrives(portal, target) == target.encode()


async def test_c15_nobody_connects_through_the_portal(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (portal.upstream.port, portal.host))
    assert (await raw.answer()).status == 400
    await raw.close()
    assert portal.upstream.connections == 0


async def test_the_host_is_compared_without_case(portal: Portal) -> None:
    assert (await portal.ask("GET", "/", host=portal.host.upper())).status == 200
    assert portal.upstream.requests[-1].values(b"host") == [portal.host]


# HTTP


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK",
           "UNLOCK", "SEARCH", "REPORT")  # fmt: skip


async def test_c20_every_method_passes(portal: Portal) -> None:
    for method in METHODS:
        answer = await portal.ask(method, "/x")
        assert (answer.status, answer.body) == (200, b"hello"), method
        assert portal.upstream.requests[-1].line == f"{method} /x HTTP/1.1".encode()


async def test_trace_is_refused_because_it_would_show_the_secret(portal: Portal) -> None:
    assert (await portal.ask("TRACE", "/x")).status == 405
    assert portal.upstream.requests == []


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "POST"])
async def test_c21_a_request_without_body_gains_no_framing(portal: Portal, method: str) -> None:
    assert (await portal.ask(method, "/x")).body == b"hello"
    request = portal.upstream.requests[-1]
    assert request.values(b"transfer-encoding") == []
    assert request.values(b"content-length") == []


@pytest.mark.parametrize("status", [200, 201, 202, 301, 400, 404, 409, 418, 429, 500, 503, 599])
async def test_c22_a_status_passes_with_its_body(portal: Portal, status: int) -> None:
    portal.upstream.handler = answering(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nab" % status)
    answer = await portal.ask("GET", "/")
    assert (answer.status, answer.body) == (status, b"ab")


@pytest.mark.parametrize("status", [204, 304])
async def test_c22_a_status_without_body_leaves_both_connections_alive(portal: Portal, status: int) -> None:
    portal.upstream.handler = answering(b"HTTP/1.1 %d X\r\nContent-Length: 20\r\nETag: x\r\n\r\n" % status)
    raw = await portal.connect()
    for _ in range(3):
        raw.writer.write(portal.head("GET", "/"))
        answer = await raw.answer()
        assert (answer.status, answer.values(b"etag")) == (status, [b"x"])
    await raw.close()
    assert portal.upstream.connections == 1


async def test_c23_a_compressed_body_passes_byte_for_byte(portal: Portal) -> None:
    body = gzip.compress(b"x" * 10_000)
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    answer = await portal.ask("GET", "/", b"Accept-Encoding: gzip, br")
    assert answer.body == body
    assert answer.values(b"content-encoding") == [b"gzip"]
    assert portal.upstream.requests[-1].values(b"accept-encoding") == [b"gzip, br"]


async def test_c25_hop_by_hop_fields_stay_on_their_hop(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Inner\r\nKeep-Alive: timeout=5\r\nX-Inner: 1\r\nX-Outer: 2\r\n"
        b"Proxy-Authenticate: x\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await portal.ask(
        "GET", "/", b"Connection: keep-alive, X-Mine", b"X-Mine: 1", b"X-Yours: 2", b"TE: trailers",
        b"Proxy-Authorization: x", b"Keep-Alive: 5",
    )  # fmt: skip
    request = portal.upstream.requests[-1]
    for gone in (b"connection", b"x-mine", b"te", b"proxy-authorization", b"keep-alive"):
        assert request.values(gone) == []
    assert request.values(b"x-yours") == [b"2"]
    for gone in (b"keep-alive", b"x-inner", b"proxy-authenticate", b"upgrade"):
        assert answer.values(gone) == []
    assert b"x-inner" not in b",".join(answer.values(b"connection")).lower()
    assert answer.values(b"x-outer") == [b"2"]


async def test_c25_connection_cannot_name_the_host_the_cookie_or_the_framing(portal: Portal) -> None:
    answer = await portal.ask("POST", "/", b"Connection: host, content-length, x-forwarded-for", body=b"abc")
    assert answer.status == 200
    request = portal.upstream.requests[-1]
    assert request.values(b"host") == [portal.host]
    assert request.body == b"abc"
    assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]


async def test_c26_trailers_do_not_hang(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    for _ in range(2):
        assert (await portal.ask("GET", "/", b"TE: trailers")).body == b"abc"
    assert portal.upstream.connections == 1


async def test_c26_trailers_of_a_request_do_not_hang(portal: Portal) -> None:
    raw = await portal.connect()
    for _ in range(2):
        raw.writer.write(portal.head("POST", "/", b"Trailer: X-Sum", b"Transfer-Encoding: chunked"))
        raw.writer.write(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert (await raw.answer()).body == b"hello"
    await raw.close()
    assert [request.body for request in portal.upstream.requests] == [b"abc", b"abc"]
    assert not any(request.values(b"x-sum") for request in portal.upstream.requests)


async def test_c27_repeated_cookies_all_arrive(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: _xsrf=1; Path=%b\r\nSet-Cookie: username-x=2; Path=%b\r\n"
        b"Content-Length: 0\r\n\r\n" % (path := portal.base_url.encode(), path)
    )
    cookies = [b"_xsrf=1; Path=" + path, b"username-x=2; Path=" + path]
    assert (await portal.ask("GET", "/")).values(b"set-cookie") == cookies


async def test_c28_a_redirect_stays_on_the_sessions_address(portal: Portal) -> None:
    cases = [
        (b"/lab?next=%2Ftree", b"/lab?next=%2Ftree"),
        (b"../tree", b"../tree"),
        (portal.origin + b"/lab", b"/lab"),
        (b"https://elsewhere.example/sign-in", b"https://elsewhere.example/sign-in"),
    ]
    if not portal.upstream.host.startswith("/"):  # a server on a socket has no name to redirect to
        inner = f"http://{portal.upstream.host}:{portal.upstream.port}/lab?x=1".encode()
        cases.append((inner, b"/lab?x=1"))
    for location, expected in cases:
        portal.upstream.handler = answering(
            b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        )
        assert (await portal.ask("GET", "/")).values(b"location") == [expected]


async def test_c29_cookies_are_confined_to_the_session(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: _xsrf=2|x; Domain=localhost; Path=/\r\nSet-Cookie: footbridge=evil\r\n"
        b"Set-Cookie: __Host-portal=evil; Secure; Path=/\r\nSet-Cookie: =footbridge=evil\r\n"
        b"Set-Cookie: footbridge-entry-0a=evil; Path=/\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await portal.ask("GET", "/")).values(b"set-cookie") == [b"_xsrf=2|x; Path=" + portal.base_url.encode()]


async def test_c29_the_portals_cookies_never_reach_the_server(portal: Portal) -> None:
    raw = await portal.connect()
    ours = f"footbridge={COOKIE}; footbridge-entry-0a=n; portal=p; __Host-portal-csrf=c"
    cookies = f"_xsrf=2|a; {ours}; username-x=%221%22".encode()
    raw.writer.write(portal.head("GET", "/", b"Cookie: " + cookies, cookie=""))
    assert (await raw.answer()).status == 200
    await raw.close()
    assert portal.upstream.requests[-1].values(b"cookie") == [b"_xsrf=2|a; username-x=%221%22"]


CLAIMS = (
    b"Remote-User: root",
    b"X-Forwarded-For: 6.6.6.6",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-User: root",
    b"Forwarded: for=6.6.6.6",
    b"X-Real-IP: 6.6.6.6",
    b"X-Scheme: https",
    b"Authorization: token mine",
    b"X_Forwarded_For: 6.6.6.6",
    b"Remote_User: root",
    b"X-Footbridge-Secret: guess",
    b"Proxy-Connection: close",
)


async def test_c30_claims_of_the_client_are_dropped(portal: Portal) -> None:
    await portal.ask("GET", "/", *CLAIMS)
    head = portal.upstream.requests[-1].head
    for word in (b"root", b"6.6.6.6", b"evil", b"mine", b"guess", b"_"):
        assert word not in head.split(b"\r\n", 1)[1]


async def test_c31_our_own_fields_are_set(portal: Portal) -> None:
    await portal.ask("GET", "/", *CLAIMS)
    request = portal.upstream.requests[-1]
    assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.values(b"x-forwarded-proto") == [b"http"]
    assert request.values(b"x-forwarded-host") == [portal.host]
    assert request.values(b"host") == [portal.host]
    assert request.values(b"x-footbridge-secret") == [SECRET.encode()]
    assert request.values(b"authorization") == []


async def test_c31_an_older_server_gets_its_token(upstream: Upstream, by: Way) -> None:
    async with by.portal(upstream, flavor="token").running() as portal:
        await portal.ask("GET", "/", b"Authorization: token mine")
        request = upstream.requests[-1]
        assert request.values(b"authorization") == [b"token " + SECRET.encode()]
        assert request.values(b"x-footbridge-secret") == []


async def test_cross_origin_grants_of_the_server_are_dropped(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
        b"Content-Security-Policy: frame-ancestors 'self'\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await portal.ask("GET", "/")
    assert b"access-control" not in answer.head.lower()
    assert answer.values(b"content-security-policy") == [b"frame-ancestors 'self'"]


@pytest.mark.parametrize("accept", [b"Accept: text/event-stream", b""])
async def test_c34_events_arrive_one_by_one(portal: Portal, accept: bytes) -> None:
    go_on = asyncio.Event()

    async def stream(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            request.writer.write(b"data: %d\n\n" % number)
            await request.writer.drain()
            await go_on.wait()
            go_on.clear()
        request.writer.close()

    portal.upstream.handler = stream
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/events", accept))
    await raw.head()
    seen = []
    async for piece in raw.chunks():
        seen.append(piece)
        go_on.set()
    await raw.close()
    assert seen == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_c35_a_connection_serves_many_requests(portal: Portal) -> None:
    raw = await portal.connect()
    for _ in range(20):
        raw.writer.write(portal.head("POST", "/", b"Content-Length: 3") + b"abc")
        assert (await raw.answer()).body == b"hello"
    await raw.close()
    assert portal.upstream.connections == 1
    assert len(portal.upstream.requests) == 20


async def test_b07_c35_a_connection_is_kept_after_head(portal: Portal) -> None:
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    raw = await portal.connect()
    for _ in range(5):
        raw.writer.write(portal.head("HEAD", "/"))
        assert (await raw.answer(head_only=True)).values(b"content-length") == [b"5000"]
    await raw.close()
    assert portal.upstream.connections == 1


async def test_c35_a_kept_connection_that_the_server_closed_costs_no_request(portal: Portal) -> None:
    await portal.ask("GET", "/")
    writer = next(iter(portal.upstream.open))

    async def hang_up_without_answer(request: Request) -> None:
        request.writer.close()
        portal.upstream.handler = hello

    portal.upstream.handler = hang_up_without_answer
    assert not writer.is_closing()
    assert (await portal.ask("GET", "/")).body == b"hello"
    assert len(portal.upstream.requests) == 3


async def test_c35_a_request_that_changes_something_is_never_sent_twice(portal: Portal) -> None:
    await portal.ask("GET", "/")

    async def hang_up_without_answer(request: Request) -> None:
        request.writer.close()

    portal.upstream.handler = hang_up_without_answer
    assert (await portal.ask("POST", "/")).status == 502
    assert len(portal.upstream.requests) == 2


async def test_c36_an_http10_client_gets_an_answer_without_chunks(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    )
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/").replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer = await raw.answer()
    await raw.close()
    assert (answer.values(b"transfer-encoding"), answer.body) == ([], b"abcdef")


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\nContent-Length: 3\r\n"])
async def test_c36_an_http10_server_is_understood(portal: Portal, keep: bytes) -> None:
    portal.upstream.handler = answering(b"HTTP/1.0 200 OK\r\n%b\r\nabc" % keep, close=not keep)
    assert [(await portal.ask("GET", "/")).body for _ in range(2)] == [b"abc", b"abc"]
    assert portal.upstream.connections == (1 if keep else 2)


async def test_c38_an_ipv6_server_is_reached(by: Way) -> None:
    server = Upstream()
    try:
        await server.start(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
    async with by.portal(server).running() as portal:
        assert (await portal.ask("GET", "/")).body == b"hello"
    await server.stop()


async def test_c39_a_silent_server_gets_an_answer_for_it(impatient: Portal) -> None:
    async def say_nothing(request: Request) -> None:
        await request.reader.read()

    impatient.upstream.handler = say_nothing
    answer = await impatient.ask("GET", "/", b"Accept: text/html")
    assert answer.status == 504
    await until(lambda: impatient.proxy.upstreams.open_connections == 0)


async def test_c39_a_slow_answer_has_no_total_limit(impatient: Portal) -> None:
    async def drip(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for byte in (b"a", b"b", b"c", b"d"):
            await asyncio.sleep(0.4)  # together longer than the head may take
            request.writer.write(byte)

    impatient.upstream.handler = drip
    assert (await impatient.ask("GET", "/")).body == b"abcd"


async def test_c40_a_refused_server_gives_a_page_that_tries_again(portal: Portal) -> None:
    await portal.upstream.stop()
    answer = await portal.ask("GET", "/lab", b"Accept: text/html")
    assert answer.status == 503
    assert answer.values(b"retry-after") == [b"5"]
    assert b"cannot be reached" in answer.body
    assert b'http-equiv="refresh"' in answer.body


async def test_c40_a_program_gets_short_json(portal: Portal) -> None:
    await portal.upstream.stop()
    answer = await portal.ask("GET", "/api/kernels", b"Accept: application/json")
    assert answer.status == 503
    assert answer.values(b"content-type") == [b"application/json"]
    assert answer.values(b"retry-after") == [b"5"]


async def test_c42_a_unix_socket_is_reached(by: Way, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("u") / "s"
    async with Upstream().running(path=str(path)) as server, by.portal(server).running() as portal:
        assert (await portal.ask("GET", "/")).body == b"hello"


async def test_c73_an_address_survives_a_restart_of_the_portal(upstream: Upstream, by: Way) -> None:
    async with by.portal(upstream).running() as portal:
        first = portal.host
        assert (await portal.ask("GET", "/lab")).body == b"hello"
    again = by.portal(upstream, port=portal.port)
    async with again.running() as portal:  # as another process: nothing but the database's answer is the same
        assert portal.host == first
        assert (await portal.ask("GET", "/lab")).body == b"hello"
    assert upstream.connections == 2


async def test_c73_a_browser_is_told_of_the_restart_and_its_socket_comes_back(upstream: Upstream, by: Way) -> None:
    upstream.handler = echoing_socket
    async with by.portal(upstream).running() as portal:
        browser = await portal.connect()
        browser.writer.write(portal.handshake())
        assert (await browser.head()).status == 101
        browser.writer.write(client_frame(TEXT, b"before"))
        assert await read_frame(browser.reader) == (TEXT, b"before")
    assert await read_frame(browser.reader) == (CLOSE, (1012).to_bytes(2, "big"))
    await browser.close()
    await until(lambda: not upstream.open, what="the server's connection to close")
    async with by.portal(upstream, port=portal.port).running() as portal:
        browser = await portal.connect()
        browser.writer.write(portal.handshake())
        assert (await browser.head()).status == 101
        browser.writer.write(client_frame(TEXT, b"after"))
        assert await read_frame(browser.reader) == (TEXT, b"after")
        await browser.close()


# Bodies


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 1_000_000])
async def test_b02_a_body_of_known_length_arrives_whole(portal: Portal, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    answer = await portal.ask("PUT", "/x", b"" if size else b"Content-Length: 0", body=body[:size])
    assert answer.status == 200
    assert portal.upstream.requests[-1].body == body[:size]


async def test_b02_a_chunked_body_arrives_whole(portal: Portal) -> None:
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/x", b"Transfer-Encoding: chunked"))
    for piece in (b"abc", b"d" * 100_000, b"e"):
        raw.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await raw.writer.drain()
        await asyncio.sleep(0)
    raw.writer.write(b"0\r\n\r\n")
    assert (await raw.answer()).status == 200
    await raw.close()
    assert portal.upstream.requests[-1].body == b"abc" + b"d" * 100_000 + b"e"


async def test_b05_expect_continue_asks_the_server_first(portal: Portal) -> None:
    portal.upstream.reads_bodies = False

    async def invite(request: Request) -> None:
        assert request.values(b"expect") == [b"100-continue"]
        request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await read_body(request)
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    portal.upstream.handler = invite
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/x", b"Expect: 100-continue", b"Content-Length: 3"))
    assert (await raw.head()).status == 100
    raw.writer.write(b"abc")
    assert (await raw.answer()).body == b"abc"
    await raw.close()


async def test_b05_expect_continue_refused_by_the_server_saves_the_body(portal: Portal) -> None:
    portal.upstream.reads_bodies = False
    portal.upstream.handler = answering(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    raw = await portal.connect()
    raw.writer.write(portal.head("POST", "/x", b"Expect: 100-continue", b"Content-Length: 300000"))
    answer = await raw.head()
    assert answer.status == 413
    await raw.close()
    await until(lambda: portal.proxy.upstreams.open_connections == 0)


async def test_b06_range_and_validators_pass(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab"
    )
    answer = await portal.ask("GET", "/f", b"Range: bytes=0-1", b'If-None-Match: "x"')
    request = portal.upstream.requests[-1]
    assert (request.values(b"range"), request.values(b"if-none-match")) == ([b"bytes=0-1"], [b'"x"'])
    assert (answer.status, answer.values(b"content-range"), answer.body) == (206, [b"bytes 0-1/9"], b"ab")


async def test_interim_answers_are_skipped(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    answer = await portal.ask("GET", "/")
    assert (answer.status, answer.body, answer.values(b"link")) == (200, b"ok", [])


MIB = 2**20
LONG_BYTES = int(os.environ.get("CONFORMANCE_MIB", "1024" if IS_FULL else "96")) * MIB
MOST_GROWTH_MIB = 48
"""Of this process, which is the browser, the proxy, the login host and the server in one."""


def piece_of(number: int) -> bytes:
    """A mebibyte that is like no other, so that nothing lost, doubled or swapped goes unnoticed."""
    return number.to_bytes(8, "big") * (MIB // 8)


@dataclass
class Taken:
    """How much of a long body has come, and its checksum."""

    size: int = 0
    sum: int = 0

    async def take(self, reader: asyncio.StreamReader, total: int) -> None:
        """Read until ``total`` bytes have come. Raises IncompleteReadError."""
        while self.size < total:
            data = await reader.read(min(MIB, total - self.size))
            if not data:
                raise asyncio.IncompleteReadError(b"", total - self.size)
            self.size += len(data)
            self.sum = zlib.crc32(data, self.sum)


def checksum(total: int) -> int:
    """What ``Taken.sum`` should be."""
    return reduce(lambda value, number: zlib.crc32(piece_of(number), value), range(total // MIB), 0)


async def test_b01_b04_a_long_download_to_a_slow_reader_stays_small(portal: Portal) -> None:
    total = LONG_BYTES
    sent = 0

    async def pour(request: Request) -> None:
        nonlocal sent
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            request.writer.write(piece_of(sent // MIB))
            await request.writer.drain()
            sent += MIB

    portal.upstream.handler = pour
    raw = await portal.connect()
    raw.take_little()
    raw.writer.write(portal.head("GET", "/big"))
    await raw.head()
    before = begin_counting_memory()
    await standstill(lambda: sent)
    assert sent < 32 * MIB  # the socket buffers of three connections, and ours
    taken = Taken()
    await taken.take(raw.reader, total)
    assert most_resident_mib() - before < MOST_GROWTH_MIB
    assert taken.sum == checksum(total)
    raw.writer.write(portal.head("GET", "/again"))  # the message has ended where it should
    sent = total
    assert (await raw.head()).status == 200
    await raw.close()


async def test_b02_b04_a_long_upload_to_a_slow_server_stays_small(portal: Portal) -> None:
    total = LONG_BYTES
    portal.upstream.reads_bodies = False
    may_read = asyncio.Event()
    taken = Taken()

    async def take(request: Request) -> None:
        await may_read.wait()
        await taken.take(request.reader, total)
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    portal.upstream.handler = take
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/big", b"Content-Length: %d" % total))
    sent = 0

    async def pour() -> None:
        nonlocal sent
        while sent < total:
            raw.writer.write(piece_of(sent // MIB))
            await raw.writer.drain()
            sent += MIB

    before = begin_counting_memory()
    pouring = asyncio.create_task(pour())
    await standstill(lambda: sent)
    assert sent < 32 * MIB
    may_read.set()
    await pouring
    assert (await raw.answer()).status == 200
    assert most_resident_mib() - before < MOST_GROWTH_MIB
    assert taken.sum == checksum(total)
    await raw.close()


async def test_b03_a_browser_that_leaves_ends_the_servers_work(portal: Portal) -> None:
    async def pour(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            request.writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
            await request.writer.drain()

    portal.upstream.handler = pour
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/endless"))
    await raw.head()
    raw.writer.transport.abort()
    await until(lambda: not portal.upstream.open, what="the server's connection to close")
    await until(lambda: portal.proxy.access.open_connections == 0)


async def test_b03_a_browser_that_leaves_before_the_answer_ends_the_servers_work(upstream: Upstream, by: Way) -> None:
    async def think(request: Request) -> None:
        await request.reader.read()

    upstream.handler = think
    async with by.portal(upstream, limits=Limits(head_seconds=600)).running() as portal:  # it is not that which ends it
        raw = await portal.connect()
        raw.writer.write(portal.head("GET", "/slow"))
        await until(lambda: upstream.requests)
        raw.writer.transport.abort()
        await until(lambda: not upstream.open, what="the server's connection to close")


async def test_b03_a_browser_that_leaves_in_an_upload_ends_the_servers_work(portal: Portal) -> None:
    portal.upstream.reads_bodies = False

    async def take(request: Request) -> None:
        await request.reader.read()

    portal.upstream.handler = take
    raw = await portal.connect()
    raw.writer.write(portal.head("PUT", "/x", b"Content-Length: 1000000") + bytes(1000))
    await until(lambda: portal.upstream.requests)
    raw.writer.transport.abort()
    await until(lambda: not portal.upstream.open, what="the server's connection to close")


async def test_an_answer_that_breaks_off_does_not_look_complete(portal: Portal) -> None:
    portal.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", close=True
    )
    raw = await portal.connect()
    raw.writer.write(portal.head("GET", "/"))
    await raw.head()
    assert b"0\r\n\r\n" not in await raw.reader.read()
    await raw.close()


# Hostile bytes


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX y: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 700 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_a_garbled_answer_is_a_502_and_costs_the_connection(portal: Portal, raw: bytes) -> None:
    portal.upstream.handler = answering(raw)
    assert (await portal.ask("GET", "/")).status == 502
    await until(lambda: portal.proxy.upstreams.open_connections == 0)


async def test_an_answer_nobody_asked_for_is_given_to_nobody(portal: Portal) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    portal.upstream.handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil)
    assert (await portal.ask("GET", "/")).body == b"ok"
    portal.upstream.handler = hello
    assert (await portal.ask("GET", "/")).body == b"hello"


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 3", b"Content-Length: 4"),
        (b"Transfer-Encoding: chunked, gzip",),
        (b"Transfer-Encoding : chunked",),
        (b"Host: other.example",),
    ],
)
async def test_an_ambiguous_request_is_refused(portal: Portal, fields: tuple[bytes, ...]) -> None:
    answer = await portal.ask("POST", "/", *fields)
    assert answer.status in (400, 404)
    assert portal.upstream.requests == []


async def test_a_path_that_is_too_long_is_refused(portal: Portal) -> None:
    assert (await portal.ask("GET", "/" + "a" * 20_000)).status == 414
    assert portal.upstream.requests == []


async def test_a_head_that_is_too_long_is_refused(portal: Portal) -> None:
    assert (await portal.ask("GET", "/", b"X-Long: " + b"a" * 70_000)).status == 431
    assert portal.upstream.requests == []


async def test_a_second_session_at_another_address_is_not_this_one(portal: Portal) -> None:
    host = f"{OTHER_LABEL}.localhost:{portal.port}".encode()
    assert (await portal.ask("GET", "/", host=host)).status == 404
    assert portal.upstream.requests == []


# The pool


async def test_c60_nothing_is_left_after_a_burst(upstream: Upstream, by: Way) -> None:
    limits = Limits(idle_seconds=0.2, idle=4)
    async with by.portal(upstream, limits=limits).running() as portal:
        await asyncio.gather(*(portal.ask("GET", f"/{number}") for number in range(200)))
        assert upstream.most_open <= limits.connections
        assert portal.proxy.upstreams.idle_connections <= limits.idle
        await until(lambda: portal.proxy.upstreams.open_connections == 0, what="idle connections to close")
        await until(lambda: not upstream.open)


async def test_a_burst_finds_its_connections_again_and_gives_most_back_a_moment_later(
    upstream: Upstream, by: Way
) -> None:
    limits = Limits(connections=8, idle=8, burst_seconds=1, idle_after_burst=2)
    async with by.portal(upstream, limits=limits).running() as portal:
        for _ in range(2):
            await asyncio.gather(*(portal.ask("GET", f"/{number}") for number in range(8)))
            assert 2 < portal.proxy.upstreams.idle_connections <= 8
        assert upstream.most_open <= 8
        await until(lambda: portal.proxy.upstreams.idle_connections == 2, what="the spare connections to close")


async def test_requests_wait_for_a_connection_and_too_many_are_turned_away(upstream: Upstream, by: Way) -> None:
    go_on = asyncio.Event()

    async def wait(request: Request) -> None:
        await go_on.wait()
        await hello(request)

    upstream.handler = wait
    async with by.portal(upstream, limits=Limits(connections=2, waiting=3)).running() as portal:
        asking = [asyncio.create_task(portal.ask("GET", "/")) for _ in range(8)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert all(task.result().status == 503 for task in done)
        go_on.set()
        statuses = sorted(answer.status for answer in await asyncio.gather(*asking))
        assert statuses == [200] * 5 + [503] * 3
        assert upstream.connections == 2


async def test_a_dead_server_is_not_dialled_for_every_request() -> None:
    dead = Upstream()
    dead.port = free_port()
    portal = Portal(dead, limits=Limits(refusal_seconds=30))
    dials = 0
    dial = portal.dial

    class Counting:
        async def __call__(self, target, factory):  # type: ignore[no-untyped-def]  # as the real one
            nonlocal dials
            dials += 1
            return await dial(target, factory)

        async def aclose(self) -> None:
            pass

    portal.dial = Counting()
    async with portal.running():
        for _ in range(20):
            assert (await portal.ask("GET", "/api/status")).status == 503
    assert dials == 1


async def pipelined(raw: Raw, portal: Portal, count: int) -> list[bytes]:
    raw.writer.write(b"".join(portal.head("GET", f"/{number}") for number in range(count)))
    return [(await raw.answer()).body for _ in range(count)]


async def test_pipelined_requests_are_answered_in_order(portal: Portal) -> None:
    async def name(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + request.target)

    portal.upstream.handler = name
    raw = await portal.connect()
    assert await pipelined(raw, portal, 5) == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    await raw.close()
