"""What the proxy costs in memory: many WebSockets that say nothing, and long bodies through SSH.

The proxy is a process of its own, with the web server's options of a site. `make endurance` opens 5,000 WebSockets and
carries a gibibyte each way; `make test` does it with 1,000 and 128 MiB, and the same limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.bench import peers
from tests.bench.client import Streams, connect, head, websocket
from tests.bench.echo import ECHO, FRAME
from tests.bench.origin import PIECE
from tests.integration.proxy_peers import LABEL
from tests.integration.ssh_server import free_port
from tests.integration.sshd import needs_sshd, running_sshd
from tests.waiting import standstill

IS_FULL = os.environ.get("ENDURANCE") == "full"
SOCKETS = 5_000 if IS_FULL else 1_000
BODY_BYTES = (1024 if IS_FULL else 128) << 20
KB_PER_SOCKET = {"fast": 15, "portable": 45}
"""The portable lane keeps what an ASGI server keeps of a WebSocket."""
MOST_GROWTH_MB = 60
MOST_HELD_BYTES = {("down", "direct"): 8_000_000, ("down", "SSH"): 24_000_000, ("up", "direct"): 24_000_000}
MOST_HELD_BYTES["up", "SSH"] = MOST_HELD_BYTES["up", "direct"]
"""How far a server runs ahead of a browser that does not read, and the other way round. Through SSH the login host's
own buffers count, too; and a browser may run further ahead, so that an upload from far away is fast."""
ALLOWANCE = 1 if IS_FULL else 3
"""The short version runs beside other tests, and on a busy machine the system gives the proxy's sockets more room."""
PAUSED = 50 if IS_FULL else 20
MOST_KB_PER_PAUSED = {"fast": 1_500, "portable": 2_000}
"""What a browser that does not read costs in the proxy itself, through SSH; most of it is for the browser's socket."""
NARROW_BYTES = 64 * 1024
AT_ONCE = 50

pytestmark = [*needs_sshd, pytest.mark.endurance, pytest.mark.timeout(600)]


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[int]:
    """The port of a server that echoes, pours and swallows; on the same core as the client."""
    port = free_port()
    with peers.running(partial(peers.echo_origin, port, tmp_path)) as (_, left_out):
        assert not left_out
        yield port


@pytest.fixture(params=["fast", "portable"])
def direct(request: pytest.FixtureRequest, origin: int, tmp_path: Path) -> Iterator[peers.Peer]:
    """Our proxy in front of it, in each lane; one visitor may open as many WebSockets as the test does."""
    with peers.running(partial(peers.ours, request.param, origin, tmp_path, sockets=SOCKETS + 100)) as (ours, left_out):
        assert not left_out
        yield ours[0]


@pytest.fixture(params=["fast", "portable"])
def over_ssh(request: pytest.FixtureRequest, origin: int, tmp_path: Path) -> Iterator[peers.Peer]:
    """The same with OpenSSH's sshd between, a process of its own."""
    with through_ssh(request.param, origin, tmp_path) as proxy:
        yield proxy


@pytest.fixture(params=["fast", "portable"])
def over_ssh_to(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], peers.Peer]]:
    """The same in front of a server that the test brings."""
    with contextlib.ExitStack() as stack:
        yield lambda origin: stack.enter_context(through_ssh(request.param, origin, tmp_path))


@contextlib.contextmanager
def through_ssh(lane: str, origin: int, folder: Path) -> Iterator[peers.Peer]:
    with running_sshd() as host:
        told = peers.told_ssh(host, folder)
        with peers.running(partial(peers.ours, lane, origin, folder, told)) as (ours, left_out):
            assert not left_out
            yield ours[0]


def host_of(proxy: peers.Peer) -> str:
    return f"{LABEL}.localhost:{proxy.port}"


async def sockets(proxy: peers.Peer, count: int) -> list[Streams]:
    """That many WebSockets, a few at a time."""
    opened: list[Streams] = []
    while len(opened) < count:
        some = min(AT_ONCE, count - len(opened))
        opened += await asyncio.gather(*(websocket(proxy.port, host_of(proxy)) for _ in range(some)))
    return opened


async def echoes(streams: Streams) -> bool:
    """Whether a frame still comes back."""
    reader, writer = streams
    writer.write(FRAME)
    return await asyncio.wait_for(reader.readexactly(len(ECHO)), 60) == ECHO


def most_resident_kb(proxy: peers.Peer) -> int:
    """The most memory that the proxy has had since ``forget_the_most``."""
    return int(Path(f"/proc/{proxy.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def forget_the_most(proxy: peers.Peer) -> None:
    Path(f"/proc/{proxy.process.pid}/clear_refs").write_text("5")


async def test_a_websocket_that_says_nothing_costs_little_and_still_works(
    direct: peers.Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await sockets(direct, AT_ONCE)  # what is made once is not counted
    before = direct.resident_kb()
    more = await sockets(direct, SOCKETS)
    each_kb = (direct.resident_kb() - before) / SOCKETS
    with capsys.disabled():
        print(f"\n{direct.name}: {SOCKETS} idle WebSockets, {each_kb:.1f} kB each")  # noqa: T201  # the figure
    assert all(await asyncio.gather(*(echoes(streams) for streams in first + more)))
    for _, writer in first + more:
        writer.transport.abort()
    assert each_kb <= KB_PER_SOCKET[direct.name.removeprefix("ours, ")]


@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_long_body_through_ssh_takes_no_room(
    over_ssh: peers.Peer, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    carry = carry_down if way == "down" else carry_up
    await carry(over_ssh, 8 << 20)
    before = over_ssh.resident_kb()
    forget_the_most(over_ssh)
    await carry(over_ssh, BODY_BYTES)
    growth_mb = (most_resident_kb(over_ssh) * 1.024 - before) / 1000
    with capsys.disabled():
        print(f"\n{over_ssh.name}: {BODY_BYTES >> 20} MiB {way}, {growth_mb:.1f} MB more memory")  # noqa: T201  # the figure
    assert growth_mb < MOST_GROWTH_MB


async def carry_down(proxy: peers.Peer, size: int) -> None:
    """A download to its last byte."""
    reader, writer = await connect(proxy.port)
    writer.write(head("GET", f"/down/{size}", host_of(proxy)))
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    taken = 0
    while taken < size:
        piece = await asyncio.wait_for(reader.read(len(PIECE)), 60)
        assert piece, f"the download ended at {taken} of {size} bytes"
        assert not piece.strip(b"\0")
        taken += len(piece)
    writer.close()


async def carry_up(proxy: peers.Peer, size: int) -> None:
    """An upload and its answer."""
    reader, writer = await connect(proxy.port)
    writer.write(head("PUT", "/up", host_of(proxy), f"Content-Length: {size}"))
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await asyncio.wait_for(writer.drain(), 60)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert answer.startswith(b"HTTP/1.1 200 ")
    writer.close()


# who does not read


def narrow_socket() -> socket.socket:
    """With little room of the kernel's, so that what is counted lies between the two ends."""
    end = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, NARROW_BYTES)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return end


@dataclass
class Stubborn:
    """A server that pours without an end, or takes an upload and reads no more of it than its head."""

    port: int = 0
    poured: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
                while True:
                    writer.write(PIECE)
                    await writer.drain()
                    self.poured += len(PIECE)
            await writer.wait_closed()
        writer.transport.abort()


@pytest.fixture
async def stubborn() -> AsyncIterator[Stubborn]:
    """One that listens."""
    server, listening = Stubborn(), narrow_socket()
    listening.bind(("127.0.0.1", 0))
    server.port = listening.getsockname()[1]
    running = await asyncio.start_server(server.serve, sock=listening, limit=NARROW_BYTES)
    yield server
    running.close()
    for task in server.tasks:
        task.cancel()
    await asyncio.gather(*server.tasks, return_exceptions=True)


async def hold_back(proxy: peers.Peer, server: Stubborn, way: str) -> int:
    """What lies between a side that sends and one that does not read, bytes."""
    loop, end = asyncio.get_running_loop(), narrow_socket()
    end.setblocking(False)
    await loop.sock_connect(end, ("127.0.0.1", proxy.port))
    if way == "down":
        await loop.sock_sendall(end, head("GET", "/endless", host_of(proxy)))
        try:
            return await standstill(lambda: server.poured)
        finally:
            end.close()
    sent = 0

    async def push() -> None:
        nonlocal sent
        await loop.sock_sendall(end, head("PUT", "/endless", host_of(proxy), f"Content-Length: {1 << 40}"))
        while True:
            await loop.sock_sendall(end, PIECE)
            sent += len(PIECE)

    pushing = asyncio.create_task(push())
    try:
        return await standstill(lambda: sent)
    finally:
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        end.close()


@pytest.mark.parametrize("way", ["down", "up"])
@pytest.mark.parametrize("through", ["direct", "SSH"])
@pytest.mark.parametrize("lane", ["fast", "portable"])
async def test_who_does_not_read_holds_the_other_side_back(
    stubborn: Stubborn, tmp_path: Path, lane: str, through: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        if through == "SSH":
            proxy = stack.enter_context(through_ssh(lane, stubborn.port, tmp_path))
        else:
            (proxy,), _ = stack.enter_context(peers.running(partial(peers.ours, lane, stubborn.port, tmp_path)))
        held = await hold_back(proxy, stubborn, way)
    with capsys.disabled():
        print(f"\n{proxy.name}, {way}: {held / 1e6:.1f} MB held")  # noqa: T201  # the figure
    assert held < MOST_HELD_BYTES[way, through] * ALLOWANCE


async def test_many_who_do_not_read_cost_little_through_ssh(
    stubborn: Stubborn, tmp_path: Path, over_ssh_to: Callable[[int], peers.Peer], capsys: pytest.CaptureFixture[str]
) -> None:
    proxy, loop = over_ssh_to(stubborn.port), asyncio.get_running_loop()
    ends: list[socket.socket] = []

    async def open_more(count: int) -> None:
        for _ in range(count):
            ends.append(narrow_socket())
            ends[-1].setblocking(False)
            await loop.sock_connect(ends[-1], ("127.0.0.1", proxy.port))
            await loop.sock_sendall(ends[-1], head("GET", "/endless", host_of(proxy)))
        await standstill(lambda: stubborn.poured)

    try:
        await open_more(2)  # what is made once is not counted
        before = proxy.resident_kb()
        await open_more(PAUSED)
        each_kb = (proxy.resident_kb() - before) / PAUSED
    finally:
        for end in ends:
            end.close()
    with capsys.disabled():
        print(f"\n{proxy.name}: {PAUSED} downloads that nobody reads, {each_kb:.0f} kB each")  # noqa: T201  # the figure
    lane = proxy.name.removeprefix("ours, ").removesuffix(", SSH")
    assert each_kb < MOST_KB_PER_PAUSED[lane] * ALLOWANCE
