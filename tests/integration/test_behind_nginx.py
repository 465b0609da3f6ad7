"""The real nginx with the file we ship, names and ports changed, in front of a real proxy: what it must not spoil."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from launcher.proxy.sites import Site
from tests.integration.proxy_peers import (
    BEGUN,
    CODE,
    COOKIE,
    ENTER,
    LABEL,
    Portal,
    Raw,
    Request,
    Upstream,
    answering,
    client_frame,
    echoing_socket,
    hello,
    read_frame,
)
from tests.integration.ssh_server import free_port
from tests.waiting import until, wait_for

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or ""
SHIPPED = Path(__file__).resolve().parents[2] / "deploy/nginx.conf"
CLIENT = "127.0.0.7"
MIB = 1 << 20

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not NGINX, reason="no nginx here (Debian: nginx-light)"),
]

MAIN = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 200; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  include {folder}/shipped.conf; }}
"""


@dataclass
class Behind(Portal):
    """A proxy that browsers reach by TLS, through nginx."""

    tls_port: int = 0
    trusted_proxies: frozenset[str] = field(default_factory=lambda: frozenset({"127.0.0.1"}))

    def site(self) -> Site:
        url = f"https://notebooks.example.org:{self.tls_port}"
        return Site(url, "sessions-example.org", trusted_proxies=self.trusted_proxies)

    @property
    def host(self) -> bytes:
        name = "notebooks.example.org" if self.address == "path" else f"{LABEL}.sessions-example.org"
        return f"{name}:{self.tls_port}".encode()

    @property
    def origin(self) -> bytes:
        return b"https://" + self.host

    async def connect(self) -> Raw:
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # made for this test
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.tls_port, ssl=trust, local_addr=(CLIENT, 0), limit=4 * MIB
        )
        return Raw(reader, writer)

    def head(self, method: str, target: str | bytes, *fields: bytes, cookie: str = COOKIE, host: bytes = b"") -> bytes:
        name = b"__Secure-footbridge=" if self.address == "path" else b"__Host-footbridge="
        return super().head(method, target, *fields, cookie=cookie, host=host).replace(b"footbridge=", name, 1)


@contextlib.contextmanager
def nginx(
    folder: Path, *, tls_port: int, plain_port: int, portal_port: int, session_ports: Sequence[int] = ()
) -> Iterator[None]:
    """The shipped file with this test's ports and certificate; ``session_ports``: of processes for notebooks only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "notebooks.example.org")])
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=9))
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    shipped = SHIPPED.read_text("utf-8")
    for there, here in (
        ("/etc/ssl/footbridge", str(folder)),
        ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
        ("    listen [::]:80;\n", ""),
        ("listen 443 ssl", f"listen 127.0.0.1:{tls_port} ssl"),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("server 127.0.0.1:8000 max_fails=0;", f"server 127.0.0.1:{portal_port} max_fails=0;"),
    ):
        assert there in shipped
        shipped = shipped.replace(there, here)
    if session_ports:
        before, upstream, after = shipped.partition("upstream footbridge_sessions {")
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in session_ports)
        shipped = before + upstream + after.replace(f"    server 127.0.0.1:{portal_port} max_fails=0;", servers, 1)
    (folder / "shipped.conf").write_text(shipped)
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is this test's alone
    (folder / "main.conf").write_text(user + MAIN.format(folder=folder))
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(folder / "main.conf"), "-e", str(folder / "early.log")],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_for(lambda: (folder / "pid").exists() or process.poll() is not None, what="nginx")
        assert process.poll() is None, (folder / "out").read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["host", "path"])
async def behind(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Behind]:
    """A session behind nginx, at both kinds of address."""
    address: Literal["host", "path"] = request.param
    async with Upstream().running() as upstream:
        portal = Behind(upstream, address=address, tls_port=free_port())
        async with portal.running():
            with nginx(tmp_path, tls_port=portal.tls_port, plain_port=free_port(), portal_port=portal.port):
                yield portal


@pytest.mark.parametrize("address", ["host", "path"])
async def test_notebooks_are_spread_over_their_processes_and_each_stays_with_one(
    tmp_path: Path, address: Literal["host", "path"]
) -> None:
    async with Upstream().running() as pages, Upstream().running() as first, Upstream().running() as second:
        ports = (first.port, second.port)
        behind = Behind(pages, address=address, tls_port=free_port())
        with nginx(
            tmp_path, tls_port=behind.tls_port, plain_port=free_port(), portal_port=pages.port, session_ports=ports
        ):
            browser = await behind.connect()
            for number in range(30):
                host = "notebooks.example.org" if address == "path" else f"session{number}.sessions-example.org"
                path = f"/s/session{number}/lab" if address == "path" else "/lab"
                served = [len(process.requests) for process in (first, second)]
                for _ in range(3):
                    browser.writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    assert (await browser.answer()).status == 200
                more = [len(process.requests) - before for process, before in zip((first, second), served, strict=True)]
                assert sorted(more) == [0, 3]
            await browser.close()
        assert pages.requests == []
        assert first.requests
        assert second.requests


async def test_the_server_hears_of_the_real_client_whatever_it_claims(behind: Behind) -> None:
    claims = (b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=192.0.2.1", b"X-Forwarded-Proto: http")
    answer = await behind.ask("GET", "/a%2Fb//c?x=%2F&y=%C3%A5", *claims)
    assert (answer.status, answer.body) == (200, b"hello")
    (request,) = behind.upstream.requests
    assert request.target == b"/a%2Fb//c?x=%2F&y=%C3%A5"
    assert request.values(b"x-forwarded-for") == [CLIENT.encode()]
    assert request.values(b"x-forwarded-proto") == [b"https"]
    assert not request.values(b"forwarded")


async def test_a_websocket_passes_with_its_close_code(behind: Behind) -> None:
    behind.upstream.handler = echoing_socket
    raw = await behind.connect()
    raw.writer.write(behind.handshake())
    assert (await raw.head()).status == 101
    for size in (5, 70_000):
        raw.writer.write(client_frame(2, bytes(size)))
        assert await read_frame(raw.reader) == (2, bytes(size))
    raw.writer.write(client_frame(8, (4001).to_bytes(2, "big") + b"bye"))
    assert await read_frame(raw.reader) == (8, (4001).to_bytes(2, "big") + b"bye")
    await raw.close()


async def test_a_page_of_another_site_is_refused_through_it(behind: Behind) -> None:
    raw = await behind.connect()
    raw.writer.write(behind.handshake(origin=b"https://evil.example"))
    assert (await raw.answer()).status == 403
    await raw.close()
    assert behind.denied[0]["address"] == CLIENT
    assert behind.upstream.requests == []


async def test_a_server_in_a_job_gives_nginx_no_orders(behind: Behind) -> None:
    behind.upstream.handler = answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Accel-Redirect: /elsewhere\r\nX-Accel-Limit-Rate: 1\r\n\r\nhello"
    )
    answer = await behind.ask("GET", "/here")
    assert (answer.status, answer.body) == (200, b"hello")
    assert [request.target for request in behind.upstream.requests] == [b"/here"]


async def test_events_arrive_one_by_one(behind: Behind) -> None:
    seen = asyncio.Event()

    async def events(request: Request) -> None:
        request.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            request.writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await seen.wait()
            seen.clear()
        request.writer.write(b"0\r\n\r\n")

    behind.upstream.handler = events
    raw = await behind.connect()
    raw.writer.write(behind.head("GET", "/events"))
    await raw.head()
    got = b""
    async with asyncio.timeout(60):
        async for piece in raw.chunks():
            got += piece
            seen.set()  # the next is sent only now: whoever holds one back for more waits for ever
    assert got == b"".join(b"data: %d\n\n" % number for number in range(3))
    await raw.close()


async def test_an_upload_is_neither_limited_nor_kept_on_the_way(behind: Behind, tmp_path: Path) -> None:
    arrived = 0
    behind.upstream.reads_bodies = False

    async def take(request: Request) -> None:
        nonlocal arrived
        while arrived < 32 * MIB and (data := await request.reader.read(MIB)):
            arrived += len(data)
        await hello(request)

    behind.upstream.handler = take
    raw = await behind.connect()
    raw.writer.write(behind.head("PUT", "/api/contents/x", b"Content-Length: %d" % (32 * MIB)))
    raw.writer.write(bytes(MIB))
    await until(lambda: arrived == MIB, what="the beginning to arrive before the end is sent")
    raw.writer.write(bytes(31 * MIB))
    assert (await raw.answer()).status == 200
    await raw.close()
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file()]


async def test_a_part_of_a_file_is_a_part(behind: Behind) -> None:
    async def part(request: Request) -> None:
        assert request.values(b"range") == [b"bytes=5-9"]
        request.writer.write(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/100\r\nContent-Length: 5\r\n\r\n56789"
        )

    behind.upstream.handler = part
    answer = await behind.ask("GET", "/files/a.bin", b"Range: bytes=5-9")
    assert (answer.status, answer.body) == (206, b"56789")
    assert answer.values(b"content-range") == [b"bytes 5-9/100"]


async def test_a_head_of_a_dozen_kilobytes_passes(behind: Behind) -> None:
    assert (await behind.ask("GET", "/", cookie=f"{COOKIE}; _xsrf={'x' * 12_000}")).status == 200
    assert (await behind.ask("GET", "/?" + "q" * 7_000)).status == 200


async def test_by_tls_the_cookies_of_an_entry_have_the_strictest_names_there_are(behind: Behind) -> None:
    prefix, path = (b"__Secure-", behind.base_url.encode()) if behind.address == "path" else (b"__Host-", b"/")
    begun = await behind.ask("GET", "/.footbridge/begin", cookie="")
    pair, _, attributes = begun.values(b"set-cookie")[0].partition(b"; ")
    assert pair.startswith(prefix + b"footbridge-entry-")
    assert attributes == b"Path=" + path + b"; Max-Age=120; HttpOnly; SameSite=Lax; Secure"
    behind.codes[CODE] = COOKIE
    entered = await behind.ask("GET", ENTER, BEGUN.replace(b"footbridge-", prefix + b"footbridge-"), cookie="")
    assert (entered.status, entered.values(b"location")) == (303, [path])
    names = [cookie.partition(b"=")[0] for cookie in entered.values(b"set-cookie")]
    assert names == [prefix + b"footbridge", prefix + BEGUN[8:].partition(b"=")[0]]


async def test_by_tls_a_nonce_without_such_a_name_counts_for_nothing(behind: Behind) -> None:
    behind.codes[CODE] = COOKIE
    assert (await behind.ask("GET", ENTER, BEGUN, cookie="")).status == 403


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
async def test_browsers_may_speak_http_2(behind: Behind) -> None:
    cookie = "__Secure-footbridge" if behind.address == "path" else "__Host-footbridge"
    process = await asyncio.create_subprocess_exec(
        "curl", "--http2", "-sk", "-o", "-", "-w", " %{http_version} %{http_code}",
        "-H", f"Cookie: {cookie}={COOKIE}", "--connect-to", f"::127.0.0.1:{behind.tls_port}",
        f"{behind.origin.decode()}{behind.prefix}/x",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert said == b"hello 2 200"
