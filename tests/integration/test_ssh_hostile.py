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

from launcher.ssh import fastpath
from launcher.ssh.connect import connect
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


async def test_answers_pile_up_for_no_host_that_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastpath, "MOST_UNSENT_BYTES", MIB)
    is_deaf = asyncio.Event()
    async with hostile(tmp_path, is_tuned=True, is_deaf=is_deaf) as (connection, peer, protocol):
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
