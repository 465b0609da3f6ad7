"""A login host that breaks the protocol of SSH, against connections with and without the fast path.

It may lose its own connection. It must not reach the process: no error that nobody caught, no wait without end, no
memory that grows, and the same end whether the connection was tuned or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest

from launcher.ssh import fastpath, guarded
from launcher.ssh.connect import connect
from launcher.ssh.errors import Unreachable
from launcher.ssh.fastpath import tune
from launcher.ssh.tunnel import open_tunnel
from launcher.ssh.windows import MOST_BYTES
from tests.integration.ssh_server import cluster_of, credential, login_host, make_ca, tcp_server
from tests.waiting import until

MIB = 1 << 20
DATA, EXTENDED, ADJUST, EOF, CLOSE, CONFIRM, REQUEST, GLOBAL, KEXINIT = 94, 95, 93, 96, 97, 91, 98, 80, 20

pytestmark = pytest.mark.integration


class Peer:
    """The hostile server's side of one connection with one channel."""

    def __init__(self, connection: asyncssh.SSHServerConnection, channel: int) -> None:
        self.connection = connection
        self.channel = struct.pack(">I", channel)  # as the client numbers it

    def send(self, kind: int, *parts: bytes) -> None:
        """A proper packet with any content."""
        self.connection.send_packet(kind, *parts)

    def seal(self, packet: bytes) -> None:
        """A packet with any padding, properly encrypted."""
        connection = cast(Any, self.connection)
        header = struct.pack(">I", len(packet))
        sealed, tag = connection._send_encryption.encrypt_packet(connection._send_seq, header, packet)
        connection._send_seq += 1
        self.raw(sealed + tag)

    def raw(self, data: bytes) -> None:
        """Bytes on the line."""
        cast(Any, self.connection)._transport.write(data)


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def data_of(peer: Peer, data: bytes) -> bytes:
    return bytes((4, DATA)) + peer.channel + string(data)


ENDS: dict[str, Callable[[Peer], None]] = {
    "a packet of one byte": lambda peer: peer.seal(b"\x04"),
    "an empty packet": lambda peer: peer.seal(b""),
    "no padding": lambda peer: peer.seal(b"\0" + data_of(peer, b"x" * 8)[1:]),
    "more padding than packet": lambda peer: peer.seal(b"\xff" + data_of(peer, b"x" * 8)[1:]),
    "a length of two gigabytes": lambda peer: peer.raw(b"\x7f\xff\xff\xff" + bytes(64)),
    "a length of zero": lambda peer: peer.raw(bytes(64)),
    "no packet at all": lambda peer: peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 40),
    "data for nobody": lambda peer: peer.send(DATA, struct.pack(">I", 4711), string(b"x")),
    "room for nobody": lambda peer: peer.send(ADJUST, struct.pack(">II", 4711, 1)),
    "data shorter than said": lambda peer: peer.send(DATA, peer.channel, struct.pack(">I", 100), b"x"),
    "data longer than said": lambda peer: peer.send(DATA, peer.channel, struct.pack(">I", 1), b"x" * 100),
    "data of four gigabytes": lambda peer: peer.send(DATA, peer.channel, b"\xff\xff\xff\xff", b"x"),
    "extended data": lambda peer: peer.send(EXTENDED, peer.channel, struct.pack(">I", 1), string(b"x")),
    "half a window": lambda peer: peer.send(ADJUST, peer.channel, b"\0\0"),
    "a window and more": lambda peer: peer.send(ADJUST, peer.channel, bytes(9)),
    "data after the end": lambda peer: (peer.send(EOF, peer.channel), peer.send(DATA, peer.channel, string(b"x")))[0],
    "the channel opened twice": lambda peer: peer.send(CONFIRM, peer.channel, struct.pack(">III", 0, 9, 9)),
    "a name that is no name": lambda peer: peer.send(GLOBAL, string(b"\xff" * 200_000), b"\x01"),
    "an answer to nothing": lambda peer: peer.send(81),
    "a key exchange that is none": lambda peer: peer.send(KEXINIT, bytes(16)),
    "half a packet, then nothing": lambda peer: (
        peer.raw(struct.pack(">I", 30_000) + bytes(900)),
        peer.connection.abort(),
    )[0],
}


@asynccontextmanager
async def deaf_way(port: int, is_deaf: asyncio.Event) -> AsyncIterator[int]:
    """The port of a way to ``port`` that, when told so, takes nothing more there, and never held much."""

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        backwards = asyncio.create_task(back(far_reader, writer))
        with contextlib.suppress(ConnectionError):
            while not is_deaf.is_set() and (data := await reader.read(65536)):
                far_writer.write(data)
            await backwards
        backwards.cancel()
        for end in (writer, far_writer):
            end.transport.abort()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    async with await asyncio.start_server(relay, sock=listener, limit=1024) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def hostile(
    folder: Path, *, is_tuned: bool, is_deaf: asyncio.Event | None = None
) -> AsyncIterator[tuple[asyncssh.SSHClientConnection, Peer, Any]]:
    """A connection, its peer, and a tunnel's protocol that has received its first bytes."""
    ca = make_ca(folder)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        while data := await reader.read(MIB):
            writer.write(data)

    caught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: caught.append(context))
    async with (
        login_host(folder, ca) as host,
        tcp_server(talk) as port,
        deaf_way(host.port, is_deaf or asyncio.Event()) as way,
    ):
        cluster = cluster_of(way, host_keys=[host.key_line])
        connection = await connect(cluster, "alice", credential(ca), reason="test")
        if is_tuned:
            assert tune(connection)
        protocol = Receiver()
        transport, _ = await open_tunnel(connection, "127.0.0.1", port, lambda: protocol)
        await until(lambda: protocol.received == b"hello", what="the first bytes")
        number = next(iter(cast(Any, connection)._channels))
        try:
            yield connection, Peer(host.connections[-1], number), protocol
        finally:
            transport.abort()
            connection.abort()
            await connection.wait_closed()
        assert not caught, caught


class Receiver(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


@pytest.mark.parametrize("is_tuned", [True, False], ids=["tuned", "plain"])
@pytest.mark.parametrize("what", ENDS)
async def test_what_is_no_ssh_ends_the_connection_and_nothing_else(what: str, is_tuned: bool, tmp_path: Path) -> None:
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        ENDS[what](peer)
        await until(connection.is_closed, what="the end of the connection")
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")
        assert protocol.received == b"hello"


@pytest.mark.parametrize("is_tuned", [True, False], ids=["tuned", "plain"])
async def test_more_data_than_the_window_ends_the_connection(is_tuned: bool, tmp_path: Path) -> None:
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        protocol.transport.pause_reading()
        protocol.received = b""
        for _ in range(12 * MIB // 32768):
            if connection.is_closed():
                break
            peer.send(DATA, peer.channel, string(bytes(32768)))
            await asyncio.sleep(0)
        await until(connection.is_closed, what="the end of the connection")
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")
        assert len(protocol.received) <= 2 * MOST_BYTES


async def test_a_window_beyond_all_bounds_is_only_a_number(tmp_path: Path) -> None:
    async with hostile(tmp_path, is_tuned=True) as (connection, peer, protocol):
        for _ in range(100):
            peer.send(ADJUST, peer.channel, b"\xff\xff\xff\xff")
        peer.send(DATA, peer.channel, string(b" and more"))
        await until(lambda: protocol.received == b"hello and more", what="the data behind")
        assert not connection.is_closed()


TUNED_OR_NOT = pytest.mark.parametrize("is_tuned", [True, False], ids=["tuned", "plain"])


@TUNED_OR_NOT
async def test_answers_pile_up_for_no_host_that_takes_none(
    is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastpath, "MOST_UNSENT_BYTES", MIB)
    monkeypatch.setattr(guarded, "MOST_NOISE", 10**9)
    is_deaf = asyncio.Event()
    async with hostile(tmp_path, is_tuned=is_tuned, is_deaf=is_deaf) as (connection, peer, protocol):
        is_deaf.set()
        line = cast(Any, connection)._transport
        line.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        most = 0
        async with asyncio.timeout(120):
            while not connection.is_closed():
                for _ in range(200):
                    peer.send(GLOBAL, string(b"keepalive@openssh.com"), b"\x01")
                await asyncio.sleep(0)
                most = max(most, line.get_write_buffer_size())
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")
        assert most < 2 * MIB


NOISE: dict[str, tuple[int, bytes]] = {
    "nothing": (2, string(b"")),
    "remarks": (4, b"\0" + string(b"remark") + string(b"")),
    "what was not understood": (3, bytes(4)),
    "questions": (GLOBAL, string(b"question") + b"\1"),
    "channels from there": (
        90,
        string(b"forwarded-tcpip") + struct.pack(">III", 5, MIB, 32768) + 2 * (string(b"there") + struct.pack(">I", 1)),
    ),
    "agents": (90, string(b"auth-agent@openssh.com") + struct.pack(">III", 5, MIB, 32768)),
    "screens": (90, string(b"x11") + struct.pack(">III", 5, MIB, 32768) + string(b"there") + struct.pack(">I", 1)),
}


@TUNED_OR_NOT
@pytest.mark.parametrize("what", NOISE)
async def test_noise_and_nothing_else_ends_the_connection(
    what: str, is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "MOST_NOISE", 500)
    monkeypatch.setattr(guarded, "NOISE_SECONDS", 600.0)
    kind, content = NOISE[what]
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        async with asyncio.timeout(120):
            while not connection.is_closed():
                for _ in range(100):
                    peer.send(kind, content)
                await asyncio.sleep(0.01)
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")
        assert protocol.received == b"hello"


@TUNED_OR_NOT
async def test_noise_beside_data_ends_nothing(is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "MOST_NOISE", 200)
    monkeypatch.setattr(guarded, "NOISE_SECONDS", 600.0)
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        for count in range(1, 2001):  # before each of them asyncssh's server sends a packet with nothing
            peer.send(DATA, peer.channel, string(b"x"))
            if not count % 100:
                await until(lambda sent=count: len(protocol.received) == 5 + sent, what="the data")  # type: ignore[misc]  # mypy cannot infer it
        assert not connection.is_closed()


@TUNED_OR_NOT
async def test_noise_leaves_everybody_else_a_turn(is_tuned: bool, tmp_path: Path) -> None:
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, _):
        guard = cast(guarded.GuardedConnection, connection)
        before = guard._noise
        for _ in range(2000):
            peer.send(2, string(b""))
        steps = []
        async with asyncio.timeout(60):
            while (now := guard._noise) < before + 2000:
                await asyncio.sleep(0)
                steps.append(guard._noise - now)
        assert max(steps) <= guarded.STEPS_PER_TURN
        assert not connection.is_closed()


def begin_a_key_exchange(peer: Peer) -> None:
    """And never do one's part of it."""
    server = cast(Any, peer.connection)

    class Deaf:
        def process_packet(self, *packet: object) -> bool:
            return True

        def log_received_packet(self, *packet: object) -> None:
            pass

    server._kexinit_sent = True
    server._send_kexinit()
    server._kex = Deaf()
    usual = server.process_packet
    server.process_packet = lambda kind, *packet: True if kind == KEXINIT else usual(kind, *packet)
    server._kex_complete = True


@TUNED_OR_NOT
async def test_an_exchange_of_keys_without_end_ends_the_connection(
    is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        monkeypatch.setattr(guarded, "LONGEST_KEY_EXCHANGE_SECONDS", 0.2)
        begin_a_key_exchange(peer)
        await until(connection.is_closed, what="the end of the connection")
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")


@TUNED_OR_NOT
async def test_answers_pile_up_for_no_exchange_of_keys(
    is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "MOST_NOISE", 10**9)
    monkeypatch.setattr(guarded, "MOST_ANSWERS", 300)
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        begin_a_key_exchange(peer)
        async with asyncio.timeout(120):
            while not connection.is_closed():
                for _ in range(50):
                    peer.send(GLOBAL, string(b"question"), b"\x01")
                assert len(cast(Any, connection)._deferred_packets) <= 300
                await asyncio.sleep(0.01)
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")


@TUNED_OR_NOT
async def test_new_keys_again_and_again_end_the_connection(
    is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile(tmp_path, is_tuned=is_tuned) as (connection, peer, protocol):
        monkeypatch.setattr(guarded, "MOST_KEY_EXCHANGES", 20)
        server, exchanges = cast(Any, peer.connection), 0
        async with asyncio.timeout(120):
            while not connection.is_closed():
                if server._kex_complete and not server._kex:
                    server._rekey_bytes_sent = server._rekey_bytes
                    peer.send(DATA, peer.channel, string(b"x"))
                    exchanges += 1
                await asyncio.sleep(0.005)
        await until(lambda: protocol.is_lost, what="the tunnel to hear of it")
        assert exchanges >= 10  # the ones before were done, and what was sent between them arrived
        assert len(protocol.received) > len(b"hello")


NO_GREETINGS = {
    "an empty packet": b"SSH-2.0-x\r\n" + bytes(64),
    "a packet of padding": b"SSH-2.0-x\r\n" + struct.pack(">I", 12) + b"\x0b\x14" + bytes(10),
    "more padding than packet": b"SSH-2.0-x\r\n" + struct.pack(">I", 12) + b"\xff" + bytes(60),
    "half an offer": b"SSH-2.0-x\r\n" + struct.pack(">I", 12) + b"\x04\x14" + bytes(10),
    "a name beyond ASCII": b"SSH-2.0-\xff\r\n",
    "words that paint": b"SSH-2.0-x\r\n"
    + struct.pack(">IBBI", 44, 4, 1, 2)
    + string(b"\x1b[31m\r\nportal: all is well")
    + bytes(9),
}


@pytest.mark.parametrize("what", NO_GREETINGS)
async def test_a_host_that_greets_with_nonsense_counts_as_not_there(what: str, tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(NO_GREETINGS[what])
        while await reader.read(1024):
            pass

    async with tcp_server(talk) as port:
        with pytest.raises(Unreachable) as caught:
            await connect(cluster_of(port), "alice", credential(make_ca(tmp_path)), reason="test")
    assert caught.value.detail.isprintable()
