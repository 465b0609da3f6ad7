"""What the proxy's tests talk to: servers in a job that behave as their names say, a browser of raw bytes, and a site.

``Upstream`` is an HTTP/1.1 server on raw asyncio streams. It keeps every byte it received (``heads``, ``bodies``) and
answers as the test's handler says. ``Site`` is a real uvicorn on loopback in front of a ``Proxy`` whose look-up is a
function of the test. ``ask`` and ``Raw`` speak HTTP as bytes, so that nothing in between tidies up what is sent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import uvicorn
from uvicorn.server import ServerState

from launcher.clusters import Cluster
from launcher.proxy.access import AccessCache, Durations
from launcher.proxy.access_types import Access, Target, Verdict
from launcher.proxy.app import Proxy
from launcher.proxy.dial import SSHDial, TCPDial
from launcher.proxy.fast.protocol import FastProtocol
from launcher.proxy.fast.socket import FastSocket
from launcher.proxy.limits import Ceilings
from launcher.proxy.sites import Site
from launcher.proxy.upstream import Dial, Limits, UpstreamPool
from launcher.ssh.pool import Pool
from tests.integration.ssh_server import cluster_of, credential, login_host, make_ca
from tests.waiting import until

LABEL = "abcdefghijklmnopqrstuvwx"
OTHER_LABEL = "xwvutsrqponmlkjihgfedcba"
PATH_ID = "abcdefghjkmn"
"""The id of the session at LABEL, where it is served below the portal's path instead."""
COOKIE = "alices-cookie"
SECRET = "upstreams-secret"
NONCE = "a-nonce-that-a-browser-got-when-it-began-01"
ENTRY = hashlib.sha256(NONCE.encode()).hexdigest()
CODE = "a-code-of-one-use-0123456789"
ENTER = f"/.footbridge/enter?code={CODE}&entry={ENTRY}"
"""How a browser comes back from the portal; with ``BEGUN`` it is the one that has begun."""
BEGUN = f"Cookie: footbridge-entry-{ENTRY[:16]}={NONCE}".encode()
CLUSTER = Cluster(
    id="demo",
    name="Demo",
    login_hosts=("127.0.0.1",),
    host_keys=("ssh-ed25519 AAAA",),
    queues=({"name": "workq"},),  # type: ignore[arg-type]  # pydantic makes the queue
)


@dataclass
class Request:
    """A request as the upstream received it."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""
    prefix: bytes = b""  # what every path of the session begins with; left out of ``line`` and ``target``

    @property
    def line(self) -> bytes:
        """The request line, from the session's own prefix on."""
        return self.head.split(b"\r\n", 1)[0].replace(b" " + self.prefix + b"/", b" /", 1)

    @property
    def target(self) -> bytes:
        """Path and query as sent."""
        return self.line.split(b" ")[1]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Header fields, in order."""
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines if line)]

    def values(self, name: bytes) -> list[bytes]:
        """All values of one field."""
        return [value for key, value in self.fields if key.lower() == name]


Handler = Callable[[Request], Awaitable[None]]


async def hello(request: Request) -> None:
    """Answers every request with five bytes and keeps the connection."""
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")


def answering(raw: bytes, *, close: bool = False) -> Handler:
    """Answers with exactly these bytes."""

    async def handler(request: Request) -> None:
        request.writer.write(raw)
        if close:
            await request.writer.drain()
            request.writer.close()

    return handler


class Pouring:
    """Answers with a long body, and counts what of it is on its way."""

    SIZE = 128 * 1024 * 1024
    """Bytes: much more than the system holds for sockets that wait."""
    _PIECE = bytes(65536)

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, request: Request) -> None:
        """The handler."""
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.SIZE)
        while self.sent < self.SIZE:
            request.writer.write(self._PIECE)
            await request.writer.drain()
            self.sent += len(self._PIECE)


class Upstream:
    """A server whose behaviour is ``handler``. It reads bodies of both framings before it calls the handler, unless
    ``reads_bodies`` is off."""

    def __init__(self, handler: Handler = hello) -> None:
        self.handler = handler
        self.reads_bodies = True
        self.prefix = b""
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.most_open = 0
        self.host = "127.0.0.1"
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, *, host: str = "127.0.0.1", path: str = "") -> None:
        """Listen on ``host``, or on a Unix socket."""
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path)
            self.host, self.port = path, 1
        else:
            self._server = await asyncio.start_server(self._serve, host, 0, limit=1024 * 1024)
            self.host, self.port = host, self._server.sockets[0].getsockname()[1]

    @asynccontextmanager
    async def running(self, *, host: str = "127.0.0.1", path: str = "") -> AsyncIterator[Upstream]:
        """Listen, and stop at the end."""
        await self.start(host=host, path=path)
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop listening and drop everything."""
        if self._server is not None:
            self._server.close()
        for writer in list(self.open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open.add(writer)
        self.most_open = max(self.most_open, len(self.open))
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                request = Request(head[:-4], reader, writer, prefix=self.prefix)
                self.requests.append(request)
                if self.reads_bodies:
                    request.body = await read_body(request)
                await self.handler(request)
                with contextlib.suppress(OSError):
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(writer)
            self._tasks.discard(task)
            writer.close()


async def read_body(request: Request) -> bytes:
    """A request's body, by its framing."""
    if request.values(b"transfer-encoding") == [b"chunked"]:
        body = b""
        while True:
            size = int(await request.reader.readuntil(b"\r\n"), 16)
            body += (await request.reader.readexactly(size + 2))[:-2]
            if size == 0:
                return body
    length = int((request.values(b"content-length") or [b"0"])[0])
    return await request.reader.readexactly(length)


@dataclass
class Answer:
    """An answer as bytes on the wire, taken apart."""

    status: int
    head: bytes
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """All values of one field."""
        lines = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [value.strip() for key, _, value in lines if key.lower() == name]


@dataclass
class Portal:
    """A proxy behind a real ASGI server, and what the test decides about access."""

    upstream: Upstream
    limits: Limits = field(default_factory=Limits)
    ceilings: Ceilings = field(default_factory=Ceilings)
    durations: Durations = field(default_factory=Durations)
    dial: Dial = field(default_factory=TCPDial)
    cluster: Cluster = CLUSTER
    flavor: str = "identity"
    secret: str = SECRET
    base_url: str = "/"
    address: Literal["host", "path"] = "host"
    uses_uvloop: bool = False
    lane: str = "fast"  # or "portable"
    trusted_proxies: frozenset[str] = frozenset()
    access: dict[tuple[str, str], Access] = field(default_factory=dict)
    lookups: int = 0
    database_is_away: bool = False
    codes: dict[str, str] = field(default_factory=dict)  # code: cookie; all are for the browser with NONCE
    denied: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    prefix: str = ""  # what ``ask`` and ``handshake`` put before a path

    def __post_init__(self) -> None:
        if self.address == "path":
            self.base_url = f"/s/{PATH_ID}/"
            self.prefix = self.base_url[:-1]
            self.upstream.prefix = self.prefix.encode()

    def open_access(self, **changes: object) -> Access:
        """What alice gets."""
        target = Target(
            cluster=self.cluster,
            username="alice",
            host=self.upstream.host,
            port=self.upstream.port,
            base_url=self.base_url,
            flavor=self.flavor,  # type: ignore[arg-type]  # a test may try another
            secret=self.secret,
        )
        access = Access(Verdict.OPEN, session_id="session-1", username="alice", user_id=1, state="ready", target=target)
        return replace(access, **changes)  # type: ignore[arg-type]  # fields by name

    async def look_up(self, *, label: str, cookie_value: str) -> Access:
        self.lookups += 1
        label = LABEL if label == PATH_ID else label
        if self.database_is_away:
            raise OSError("no database")
        known = self.access.get((label, cookie_value))
        if known is not None:
            return known
        exists = any(label == key[0] for key in self.access)
        cause = "unknown_cookie" if cookie_value else "no_cookie"
        return Access(Verdict.SIGN_IN, session_id="session-1", cause=cause) if exists else Access(Verdict.UNKNOWN)

    async def redeem(self, *, label: str, code: str, nonce: str) -> _Grant | None:
        cookie = self.codes.pop(code, None) if label in (LABEL, PATH_ID) else None
        return _Grant(cookie) if cookie and nonce == NONCE else None

    async def deny(self, **what: str) -> None:
        self.denied.append(what)

    @property
    def host(self) -> bytes:
        if self.address == "path":
            return f"localhost:{self.port}".encode()
        return f"{LABEL}.localhost:{self.port}".encode()

    @property
    def origin(self) -> bytes:
        return b"http://" + self.host

    def site(self) -> Site:
        """Where browsers find it."""
        return Site(f"http://localhost:{self.port}", "localhost", trusted_proxies=self.trusted_proxies)

    def application(self) -> Any:
        """What the web server is given."""
        return self.proxy

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Portal]:
        """Serve. When it ends, nothing may be left open."""
        # With its protocol named: asyncio turns Nagle's algorithm off only where it sees that.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections linger at a restart
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        self.access.setdefault((LABEL, COOKIE), self.open_access())
        self.proxy = Proxy(
            site=self.site(),
            access=AccessCache(self.look_up, durations=self.durations),
            upstreams=UpstreamPool(self.dial, limits=self.limits),
            redeem=self.redeem,
            denied=self.deny,
            ceilings=self.ceilings,
            uses_fast_lane=self.lane == "fast",
        )
        config = uvicorn.Config(
            self.application(),
            lifespan="off",
            log_config=None,
            access_log=False,
            http=FastProtocol,
            ws=FastSocket,
            ws_max_size=256 * 1024 * 1024,
            ws_ping_interval=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        config.load()
        self.state = state = ServerState()
        # As uvicorn.Server does it, without its loop that looks ten times a second whether it should stop.
        server = await asyncio.get_running_loop().create_server(
            lambda: self._protocol(config),
            sock=sock,
        )
        try:
            yield self
        finally:
            server.close()
            self.stop()
            await until(lambda: not state.tasks, what="requests to end")
            await self.proxy.aclose()
            await until(lambda: not self.proxy.upstreams.open_connections, what="upstream connections to end")

    def _protocol(self, config: uvicorn.Config) -> Any:
        """One browser's connection at the server's end."""
        protocol: Any = config.http_protocol_class(config=config, server_state=self.state, app_state={})  # type: ignore[call-arg]  # uvicorn's own protocols take these
        protocol.access_log = False  # as it is where pytest does not listen to that logger
        return protocol

    # Asking

    def stop(self) -> None:
        """What the web server does with its connections when it is told to stop."""
        for connection in list(self.state.connections):
            connection.shutdown()

    async def connect(self) -> Raw:
        """A browser's connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=4 * 1024 * 1024)
        return Raw(reader, writer)

    def head(self, method: str, target: str | bytes, *fields: bytes, cookie: str = COOKIE, host: bytes = b"") -> bytes:
        """A request's head; with alice's cookie and, for methods that change something, the right origin."""
        path = self.prefix.encode() + (target if isinstance(target, bytes) else target.encode())
        lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: " + (host or self.host)]
        if cookie:
            lines.append(b"Cookie: footbridge=" + cookie.encode())
        if method not in ("GET", "HEAD", "OPTIONS") and not any(f.lower().startswith(b"origin") for f in fields):
            lines.append(b"Origin: " + self.origin)
        return b"\r\n".join((*lines, *(f for f in fields if f), b"", b""))

    async def ask(
        self,
        method: str,
        target: str | bytes,
        *fields: bytes,
        body: bytes = b"",
        cookie: str = COOKIE,
        host: bytes = b"",
    ) -> Answer:
        """One request over a connection of its own."""
        if body:
            fields = (*fields, b"Content-Length: %d" % len(body))
        raw = await self.connect()
        try:
            raw.writer.write(self.head(method, target, *fields, cookie=cookie, host=host) + body)
            return await raw.answer(head_only=method == "HEAD")
        finally:
            await raw.close()

    def handshake(self, target: str = "/ws", *fields: bytes, cookie: str = COOKIE, origin: bytes | None = b"") -> bytes:
        """A WebSocket handshake with a fixed key."""
        return self.head(
            "GET",
            target,
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"" if origin is None else b"Origin: " + (origin or self.origin),
            *fields,
            cookie=cookie,
        )


@dataclass(frozen=True)
class _Grant:
    cookie_value: str


@dataclass
class Raw:
    """A browser's connection, as bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> Answer:
        """The head of an answer, without its body."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
        return Answer(int(head.split(b" ", 2)[1]), head, b"")

    async def answer(self, *, head_only: bool = False) -> Answer:
        """A whole answer. An interim one is skipped."""
        answer = await self.head()
        while answer.status == 100:
            answer = await self.head()
        async with asyncio.timeout(60):
            if head_only or answer.status in (204, 304):
                pass
            elif answer.values(b"transfer-encoding") == [b"chunked"]:
                answer.body = b"".join([piece async for piece in self.chunks()])
            elif answer.values(b"content-length"):
                answer.body = await self.reader.readexactly(int(answer.values(b"content-length")[0]))
            else:
                answer.body = await self.reader.read()
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces of a chunked body, as they come."""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if size == 0:
                return
            yield data[:-2]

    def take_little(self) -> None:
        """From now on let the system hold little of what is not read. By itself it lets a socket hold tens of
        megabytes, when its reader was quick at first.
        """
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)

    async def skip(self, size: int) -> None:
        """Read so many bytes, and keep none."""
        async with asyncio.timeout(60):
            while size:
                piece = await self.reader.read(min(size, 1 << 20))
                assert piece, f"{size} bytes are missing"
                size -= len(piece)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


# WebSockets, by hand: frames as a server in a job writes them


def accept_for(request: Request) -> bytes:
    """The right answer to a handshake's key."""
    key = request.values(b"sec-websocket-key")[0]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return base64.b64encode(digest)


def switching(request: Request, *fields: bytes) -> bytes:
    """The head that accepts a handshake."""
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_for(request),
        *fields,
    )
    return b"\r\n".join((*lines, b"", b""))


def server_frame(opcode: int, data: bytes = b"", *, final: bool = True) -> bytes:
    """An unmasked frame."""
    first = bytes([(0x80 if final else 0) | opcode])
    if len(data) < 126:
        return first + bytes([len(data)]) + data
    if len(data) < 65536:
        return first + b"\x7e" + len(data).to_bytes(2, "big") + data
    return first + b"\x7f" + len(data).to_bytes(8, "big") + data


def client_frame(opcode: int, data: bytes = b"", *, final: bool = True) -> bytes:
    """A masked frame; the mask is zero, so the bytes stay readable."""
    frame = server_frame(opcode, data, final=final)
    head = len(frame) - len(data)
    return bytes([frame[0], frame[1] | 0x80]) + frame[2:head] + bytes(4) + data


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode (with the final bit taken off) and data of the next frame, masked or not."""
    async with asyncio.timeout(60):
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        mask = await reader.readexactly(4) if second & 0x80 else b""
        data = await reader.readexactly(length)
    if mask and any(mask):
        repeated = (mask * (length // 4 + 1))[:length]
        data = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
    return first & 0x0F, data


async def echoing_socket(request: Request) -> None:
    """Accepts every handshake and sends each message back, fragments as they came."""
    request.writer.write(switching(request))
    while True:
        opcode, data = await read_frame(request.reader)
        request.writer.write(server_frame(opcode if opcode != 9 else 10, data))
        await request.writer.drain()
        if opcode == 8:
            request.writer.close()
            return


# Ways to the upstream


@dataclass
class Way:
    """How the proxy reaches the server of a test. ``options`` are fields of the Portal."""

    name: str
    cluster: Cluster = CLUSTER
    make_dial: Callable[[], Dial] = TCPDial
    options: dict[str, Any] = field(default_factory=dict)

    def portal(self, upstream: Upstream, **options: Any) -> Portal:
        """A portal that goes this way."""
        return Portal(upstream, dial=self.make_dial(), cluster=self.cluster, **{**self.options, **options})


@asynccontextmanager
async def way(name: str, folder: Path, *, lane: str = "fast") -> AsyncIterator[Way]:
    """``tcp``: straight. ``ssh``: by channels through a real SSH server. ``lane``: "fast" or "portable"."""
    if name == "tcp":
        yield Way(name, options={"lane": lane})
        return
    ca = make_ca(folder)
    async with login_host(folder, ca) as host:
        yield Way(name, cluster_of(host), lambda: SSHDial(Pool(lambda cluster: credential(ca))), {"lane": lane})


# What is left over


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """What the web server's own log says at level WARNING and above, with the last line of its traceback."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(
                f"{record.getMessage().strip()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage()
            )

    handler, log = Handler(logging.WARNING), logging.getLogger("uvicorn.error")
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def begin_counting_memory() -> float:
    """Memory of this process, MiB; from now on ``most_resident_mib`` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib()


def most_resident_mib() -> float:
    """The most memory that this process has had since ``begin_counting_memory``, MiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
