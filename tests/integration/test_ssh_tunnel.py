"""Tunnels: an asyncio transport over an SSH channel must behave as a TCP transport does."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncssh
import pytest

from launcher.ssh.channels import channels_of
from launcher.ssh.connect import connect
from launcher.ssh.errors import TimedOut, TunnelRefused, Unreachable
from launcher.ssh.fastpath import tune
from launcher.ssh.tunnel import open_tunnel
from tests.integration.ssh_server import (
    LoginHost,
    Talk,
    cluster_of,
    credential,
    free_port,
    login_host,
    make_ca,
    tcp_server,
)
from tests.waiting import standstill, until

pytestmark = pytest.mark.integration

MB = 1_000_000


class Recorder(asyncio.Protocol):
    """Keeps everything that a transport tells it."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = bytearray()
        self.events: list[str] = []
        self.error: Exception | None = None
        self._keep_open = keep_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def has(self, data: bytes) -> bool:
        """Whether exactly this has come."""
        return self.data == data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self._keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.events.append("lost")


@dataclass
class Setting:
    host: LoginHost
    connection: asyncssh.SSHClientConnection

    async def tunnel(self, port: int, **options: bool) -> tuple[asyncio.Transport, Recorder]:
        transport, protocol = await open_tunnel(self.connection, "127.0.0.1", port, lambda: Recorder(**options))
        assert isinstance(protocol, Recorder)
        return transport, protocol

    async def streams(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await open_tunnel(
            self.connection, "127.0.0.1", port, lambda: asyncio.StreamReaderProtocol(reader)
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@pytest.fixture(params=["fast path", "asyncssh alone"])
async def setting(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Setting]:
    ca = make_ca(tmp_path)
    async with login_host(tmp_path / "home", ca) as host:
        connection = await connect(cluster_of(host), "alice", credential(ca), reason="test")
        if request.param == "fast path":
            assert tune(connection)
        yield Setting(host, connection)
        connection.abort()
        await connection.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def count_and_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read up to the end, then say how much it was: needs a half close."""
    total = 0
    while data := await reader.read(65536):
        total += len(data)
    writer.write(str(total).encode())
    await writer.drain()


def send(total: int) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        block = bytes(range(256)) * 256
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()

    return talk


async def test_what_is_sent_comes_back(setting: Setting) -> None:
    async with tcp_server(echo) as port:
        transport, recorder = await setting.tunnel(port)
        transport.write(b"hello ")
        transport.writelines([b"wor", bytearray(b"ld"), memoryview(b"!")])
        await until(lambda: recorder.data == b"hello world!", "the echo")
        assert transport.get_extra_info("peername") == ("127.0.0.1", port)
        assert transport.get_extra_info("socket") is None
        transport.close()
        await until(lambda: "lost" in recorder.events, "the end")
        assert recorder.error is None


async def test_the_protocol_is_set_before_the_first_byte(setting: Setting) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first")
        await reader.read()

    async with tcp_server(greet) as port:
        for _ in range(20):
            transport, recorder = await setting.tunnel(port)
            assert recorder.events == ["made"]
            assert recorder.transport is transport
            await until(partial(recorder.has, b"first"), "the greeting")
            transport.close()


async def test_a_reader_paused_at_once_loses_nothing(setting: Setting) -> None:
    class Paused(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert self.transport is not None
            self.transport.pause_reading()

    sent = asyncio.Event()

    async def send_and_tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(MB)(reader, writer)
        sent.set()

    async with tcp_server(send_and_tell) as port, tcp_server(echo) as beside:
        transport, recorder = await open_tunnel(setting.connection, "127.0.0.1", port, Paused)
        assert isinstance(recorder, Recorder)
        await asyncio.wait_for(sent.wait(), 60)
        other, heard = await setting.tunnel(beside)  # what comes over it comes behind what was sent before
        other.write(b"x")
        await until(lambda: bytes(heard.data) == b"x", "the echo")
        other.abort()
        assert (bytes(recorder.data), recorder.events) == (b"", ["made"])
        assert not transport.is_reading()
        transport.resume_reading()
        await until(lambda: "lost" in recorder.events, "the end")
        assert len(recorder.data) == MB // 65536 * 65536
        assert recorder.error is None


async def test_the_far_end_closing_ends_the_tunnel(setting: Setting) -> None:
    async with tcp_server(send(65536)) as port:
        _, recorder = await setting.tunnel(port)
        await until(lambda: "lost" in recorder.events, "the end")
        assert len(recorder.data) == 65536
        assert [event for event in recorder.events if event != "pause"] == ["made", "eof", "lost"]


async def test_a_half_close_keeps_the_other_direction(setting: Setting) -> None:
    async with tcp_server(count_and_answer) as port:
        transport, recorder = await setting.tunnel(port)
        transport.write(b"x" * 3 * MB)
        assert transport.can_write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError):
            transport.write(b"more")
        await until(lambda: "lost" in recorder.events, "the answer")
        assert recorder.data == str(3 * MB).encode()


async def test_the_far_ends_half_close_keeps_ours(setting: Setting) -> None:
    received = bytearray()

    async def half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        received.extend(await reader.read())

    async with tcp_server(half_close) as port:
        transport, recorder = await setting.tunnel(port, keep_open=True)
        await until(lambda: "eof" in recorder.events, "the half close")
        transport.write(b"still here")
        transport.close()
        await until(lambda: received == b"still here", "the rest")


async def test_closing_sends_what_was_written(setting: Setting) -> None:
    received = hashlib.sha256()
    finished = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            received.update(data)
        finished.set()

    data = bytes(range(256)) * 40_000
    async with tcp_server(swallow) as port:
        transport, _ = await setting.tunnel(port)
        transport.write(data)
        transport.close()
        transport.write(b"ignored")
        assert transport.is_closing()
        await asyncio.wait_for(finished.wait(), 60)
    assert received.hexdigest() == hashlib.sha256(data).hexdigest()


async def test_aborting_ends_both_sides(setting: Setting) -> None:
    gone = asyncio.Event()

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    async with tcp_server(stay) as port:
        transport, recorder = await setting.tunnel(port)
        transport.abort()
        await until(lambda: "lost" in recorder.events, "the end")
        await asyncio.wait_for(gone.wait(), 60)
    assert recorder.events.count("lost") == 1
    await until(lambda: channels_of(setting.connection).tunnels == 0, "the channel to be counted out")


async def test_a_lost_connection_is_an_error_for_every_tunnel(setting: Setting) -> None:
    async with tcp_server(echo) as port:
        tunnels = [await setting.tunnel(port) for _ in range(3)]
        setting.host.drop_connections()
        await until(lambda: all("lost" in recorder.events for _, recorder in tunnels), "the end")
    assert all(isinstance(recorder.error, ConnectionError) for _, recorder in tunnels)
    assert channels_of(setting.connection).tunnels == 0


async def test_a_failing_protocol_ends_its_own_tunnel_only(setting: Setting) -> None:
    class Faulty(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ValueError("a mistake")

    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(str(context["exception"])))
    async with tcp_server(echo) as port:
        transport, faulty = await open_tunnel(setting.connection, "127.0.0.1", port, Faulty)
        assert isinstance(faulty, Recorder)
        transport.write(b"x")
        await until(lambda: "lost" in faulty.events, "the end")
        assert isinstance(faulty.error, ValueError)
        other, recorder = await setting.tunnel(port)
        other.write(b"fine")
        await until(lambda: recorder.data == b"fine", "the echo")
    assert reported == ["a mistake"]


async def test_nobody_listening_is_refused(setting: Setting) -> None:
    with pytest.raises(TunnelRefused) as caught:
        await setting.tunnel(free_port())
    assert caught.value.transient
    assert caught.value.code == "ssh.tunnel_refused"


async def test_forbidden_forwarding_is_told_apart(setting: Setting) -> None:
    setting.host.forwarding = False
    with pytest.raises(TunnelRefused) as caught:
        await setting.tunnel(free_port())
    assert caught.value.code == "ssh.forwarding_prohibited"


async def test_a_closed_connection_is_unreachable(setting: Setting) -> None:
    setting.connection.abort()
    await setting.connection.wait_closed()
    with pytest.raises(Unreachable):
        await setting.tunnel(1)


@pytest.mark.parametrize("way", ["timeout", "cancellation"])
async def test_a_channel_that_opens_too_late_is_closed_again(setting: Setting, way: str) -> None:
    setting.host.hold_forwarding = asyncio.Event()
    conversations: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append("begun")
        await reader.read()
        conversations.append("ended")

    recorder = Recorder()
    async with tcp_server(note) as port:
        opening = asyncio.create_task(
            open_tunnel(setting.connection, "127.0.0.1", port, lambda: recorder, timeout_seconds=0.2)
        )
        if way == "timeout":
            with pytest.raises(TimedOut):
                await opening
        else:
            await until(lambda: setting.host.held_forwarding, "the question to arrive")
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        setting.host.hold_forwarding.set()
        await until(lambda: conversations == ["begun", "ended"], "the late channel to be closed")
    assert recorder.events == []
    assert channels_of(setting.connection).tunnels == 0


async def test_a_slow_reader_holds_the_sender_back_at_constant_memory(setting: Setting) -> None:
    total = 160 * MB // 65536 * 65536
    sent = 0

    async def count_sent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(65536)
        block = b"\0" * 65536
        while sent < total:
            writer.write(block)
            await writer.drain()
            sent += len(block)

    received = 0
    most_under_way = 0
    async with tcp_server(count_sent) as port:
        reader, writer = await setting.streams(port)
        pauses = 0
        while data := await reader.read(65536):
            received += len(data)
            most_under_way = max(most_under_way, sent - received)
            if received // (40 * MB) > pauses:  # stop reading now and then, until the sender has stopped, too
                pauses += 1
                await standstill(lambda: sent)
                most_under_way = max(most_under_way, sent - received)
        writer.close()
    assert received == total
    # What this process buffers is the channel's 2 MiB. Sockets of loopback hold 6 MB, and more on a busy machine.
    assert most_under_way < 50 * MB


async def _stalled_sender(setting: Setting, port: int) -> tuple[asyncio.Transport, Callable[[], int]]:
    """A transport over which as much was written as backpressure allows."""
    transport, recorder = await setting.tunnel(port)
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await until(lambda: recorder.events.count("pause") == recorder.events.count("resume"))
            transport.write(b"\0" * 65536)
            written += 65536
            await asyncio.sleep(0)  # the loop's turn to send it

    writing = asyncio.create_task(write())
    await standstill(lambda: written)
    writing.cancel()
    return transport, lambda: written


async def test_a_writer_is_paused_while_the_far_end_does_not_read(setting: Setting) -> None:
    may_read = asyncio.Event()
    received = 0

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await may_read.wait()
        while data := await reader.read(65536):
            received += len(data)

    async with tcp_server(lazy) as port:
        transport, written = await _stalled_sender(setting, port)
        assert written() < 20 * MB  # the sockets' buffers included
        assert 0 < transport.get_write_buffer_size() < MB
        may_read.set()
        transport.write_eof()
        await until(lambda: received == written(), "everything to arrive")


async def test_write_limits_can_be_set(setting: Setting) -> None:
    async with tcp_server(echo) as port:
        transport, _ = await setting.tunnel(port)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.close()


async def test_a_hundred_tunnels_at_once(setting: Setting) -> None:
    async def talk(port: int, number: int) -> bool:
        reader, writer = await setting.streams(port)
        data = number.to_bytes(2, "big") * 50_000
        writer.write(data)
        answer = await reader.readexactly(len(data))
        writer.close()
        await writer.wait_closed()
        return answer == data

    async with tcp_server(echo) as port:
        assert all(await asyncio.gather(*(talk(port, number) for number in range(100))))
    assert channels_of(setting.connection).tunnels == 0


async def test_a_paused_tunnel_does_not_hold_up_its_neighbours(setting: Setting) -> None:
    async with tcp_server(send(50 * MB)) as busy, tcp_server(echo) as port:
        paused, _ = await setting.tunnel(busy)
        paused.pause_reading()
        transport, recorder = await setting.tunnel(port)
        for _ in range(50):
            transport.write(b"x" * 1000)
        await until(lambda: len(recorder.data) == 50_000, "the echo")
        paused.abort()
        transport.close()
