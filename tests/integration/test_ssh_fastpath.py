"""The fast way through asyncssh: the same bytes, whatever happens to keys, packets, windows and neighbours."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.ssh import fastpath, fastpath_check
from launcher.ssh.connect import connect
from launcher.ssh.fastpath import KeyedGCM, TunedConnection, tune
from launcher.ssh.guarded import GuardedConnection
from launcher.ssh.pool import Pool
from launcher.ssh.tunnel import open_tunnel
from tests.integration.ssh_server import cluster_of, credential, login_host, make_ca, tcp_server
from tests.integration.sshd import Sshd, needs_sshd, running_sshd
from tests.waiting import standstill, until

MB = 1 << 20
BLOCK = random.Random(7).randbytes(3 * MB + 17)

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def restless_sshd() -> Iterator[Sshd]:
    """Wants new keys after every four megabytes."""
    with running_sshd("RekeyLimit 4M") as host:
        yield host


@asynccontextmanager
async def tuned(cluster: Cluster, username: str, ca: object) -> AsyncIterator[TunedConnection]:
    connection = await connect(cluster, username, credential(ca), reason="test")  # type: ignore[arg-type] # a UserCA
    assert tune(connection)
    assert isinstance(connection, TunedConnection)
    yield connection
    connection.abort()
    await connection.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(262144):
        writer.write(data)
        await writer.drain()


async def streams(
    connection: asyncssh.SSHClientConnection, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader = asyncio.StreamReader(limit=MB)
    transport, protocol = await open_tunnel(connection, "127.0.0.1", port, lambda: asyncio.StreamReaderProtocol(reader))
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


async def exchange(connection: asyncssh.SSHClientConnection, port: int, blocks: int, *, seed: int = 0) -> None:
    """Send ``blocks`` of random bytes in pieces of all sizes and compare what comes back."""
    reader, writer = await streams(connection, port)
    sizes = random.Random(seed)
    received = hashlib.sha256()
    total = blocks * len(BLOCK)

    async def send() -> None:
        for _ in range(blocks):
            at = 0
            while at < len(BLOCK):
                size = sizes.choice((1, 300, 32768, 65536, 262144))
                writer.write(BLOCK[at : at + size])
                await writer.drain()
                at += size
        writer.write_eof()

    sending = asyncio.create_task(send())
    count = 0
    while data := await reader.read(MB):
        received.update(data)
        count += len(data)
    await sending
    writer.close()
    assert count == total
    wanted = hashlib.sha256()
    for _ in range(blocks):
        wanted.update(BLOCK)
    assert received.digest() == wanted.digest()


@pytest.mark.parametrize("blocks", [66])
async def test_hundreds_of_megabytes_pass_unchanged_while_both_sides_change_keys(
    restless_sshd: Sshd, blocks: int
) -> None:
    async with (
        tcp_server(echo) as port,
        tuned(restless_sshd.cluster, restless_sshd.username, restless_sshd.ca) as connection,
    ):
        connection._rekey_bytes = 11 * MB
        keys: set[object] = set()
        take_over = connection.take_over_keys

        def count() -> None:
            take_over()
            keys.add(connection._send_encryption)  # the objects themselves: an address may come again

        connection.take_over_keys = count  # type: ignore[method-assign] # only watched
        await exchange(connection, port, blocks)
        assert connection.tuned_packets_received > 1000
        assert len(keys) > 5
        assert type(connection._send_encryption) is type(connection._recv_encryption) is KeyedGCM


async def test_many_channels_at_once_do_not_mix_their_bytes(restless_sshd: Sshd) -> None:
    async with (
        tcp_server(echo) as port,
        tuned(restless_sshd.cluster, restless_sshd.username, restless_sshd.ca) as connection,
    ):
        connection._rekey_bytes = 5 * MB
        await asyncio.gather(*(exchange(connection, port, 1, seed=seed) for seed in range(12)))


@pytest.mark.parametrize(("hold_seconds", "expected"), [(60, 2), (0, 40)])
async def test_packets_of_one_turn_are_written_together_unless_it_lasts(
    restless_sshd: Sshd, monkeypatch: pytest.MonkeyPatch, hold_seconds: float, expected: int
) -> None:
    monkeypatch.setattr(fastpath, "_HOLD_SECONDS", hold_seconds)
    async with (
        tcp_server(echo) as port,
        tuned(restless_sshd.cluster, restless_sshd.username, restless_sshd.ca) as connection,
    ):
        reader, writer = await streams(connection, port)
        for word in (b"first", b"again"):
            writer.write(word)  # asyncssh may still have had packets of its own
            assert await reader.readexactly(5) == word
        writes: list[int] = []
        write_line = connection._write_line

        def count(data: bytes) -> None:
            writes.append(len(data))
            write_line(data)

        connection._write_line = count
        before = connection.tuned_packets_sent
        for number in range(40):
            writer.write(b"%06d" % number)
        assert await reader.readexactly(240) == b"".join(b"%06d" % number for number in range(40))
        assert connection.tuned_packets_sent == before + 40
        assert len(writes) == expected  # the first at once, the rest when the turn is over
        writes.clear()
        for _ in range(40):
            writer.write(b"0" * 8000)
        assert len(writes) >= 4  # much is not held for long
        await reader.readexactly(320_000)


async def test_a_connection_that_stands_still_in_a_key_exchange_stalls_no_other(restless_sshd: Sshd) -> None:
    host = (restless_sshd.cluster, restless_sshd.username, restless_sshd.ca)
    async with tcp_server(echo) as port, tuned(*host) as frozen, tuned(*host) as other:
        reader, writer = await streams(frozen, port)
        far_end = int((await frozen.run("echo $PPID")).stdout or 0)  # the sshd of this connection
        os.kill(far_end, signal.SIGSTOP)
        try:
            usual, frozen._rekey_bytes = frozen._rekey_bytes, 1
            writer.write(BLOCK)  # asks for new keys, and nobody answers
            frozen._rekey_bytes = usual
            assert not frozen._kex_complete
            await exchange(other, port, 2, seed=1)
            assert not frozen._kex_complete
        finally:
            os.kill(far_end, signal.SIGCONT)
        assert await reader.readexactly(len(BLOCK)) == BLOCK
        assert frozen._kex_complete


async def test_commands_and_files_pass_a_tuned_connection(restless_sshd: Sshd) -> None:
    async with tuned(restless_sshd.cluster, restless_sshd.username, restless_sshd.ca) as connection:
        result = await connection.run("head -c 9000000 /dev/zero", encoding=None)
        assert result.stdout == bytes(9_000_000)
        result = await connection.run("wc -c; echo problem >&2; exit 3", input=bytes(6_000_000), encoding=None)
        assert (result.stdout.split(), result.stderr, result.exit_status) == ([b"6000000"], b"problem\n", 3)


async def test_an_asyncssh_server_gets_and_sends_the_same_bytes(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    async with (
        login_host(tmp_path / "home", ca) as host,
        tcp_server(echo) as port,
        tuned(cluster_of(host), "alice", ca) as connection,
    ):
        connection._rekey_bytes = 2 * MB
        await asyncio.gather(*(exchange(connection, port, 2, seed=seed) for seed in range(4)))


@asynccontextmanager
async def tampering_relay(port: int) -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """A way to ``port`` that changes one bit of the next piece to either side once that side's event is set."""
    to_us, to_them = asyncio.Event(), asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, changes: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if changes.is_set() and len(data) > 40:
                data = data[:30] + bytes([data[30] ^ 1]) + data[31:]
            writer.write(data)
            await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pump(reader, far_writer, to_them), pump(far_reader, writer, to_us))
        finally:
            far_writer.transport.abort()

    async with tcp_server(relay) as relay_port:
        yield relay_port, to_us, to_them


@pytest.mark.parametrize("direction", ["to us", "to them"])
async def test_a_packet_changed_on_the_way_ends_the_connection(tmp_path: Path, direction: str) -> None:
    ca = make_ca(tmp_path)
    async with (
        login_host(tmp_path / "home", ca) as host,
        tampering_relay(host.port) as (relay_port, to_us, to_them),
        tcp_server(echo) as port,
    ):
        cluster = cluster_of(relay_port, host_keys=[host.key_line])
        async with tuned(cluster, "alice", ca) as connection:
            reader, writer = await streams(connection, port)
            writer.write(b"x" * 1000)
            assert await reader.readexactly(1000) == b"x" * 1000
            (to_us if direction == "to us" else to_them).set()
            writer.write(b"y" * 1000)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)) as caught:
                await asyncio.wait_for(reader.readexactly(1000), 60)
            assert not getattr(caught.value, "partial", b"")
            await asyncio.wait_for(connection.wait_closed(), 60)


async def test_packets_cut_anywhere_on_the_way_are_put_together_again(tmp_path: Path) -> None:
    sizes = random.Random(11)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(sizes.choice((1, 3, 4, 5, 15, 16, 17, 19, 20, 21, 36, 700, 5000))):
            writer.write(data)
            await asyncio.sleep(0)
        writer.close()

    async with login_host(tmp_path / "home", ca := make_ca(tmp_path)) as host, tcp_server(echo) as port:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", host.port)
            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                far_writer.transport.abort()

        async with tcp_server(relay) as relay_port:
            async with tuned(cluster_of(relay_port, host_keys=[host.key_line]), "alice", ca) as connection:
                connection._rekey_bytes = MB
                await exchange(connection, port, 1)
                assert connection.tuned_packets_received > 10


async def test_a_host_without_aes_gcm_is_served_by_asyncssh_alone() -> None:
    with running_sshd("Ciphers chacha20-poly1305@openssh.com") as host:
        connection = await connect(host.cluster, host.username, credential(host.ca), reason="test")
        assert not tune(connection)
        async with tcp_server(echo) as port:
            await exchange(connection, port, 1)
        connection.abort()
        await connection.wait_closed()


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial was not made yet in this process."""
    monkeypatch.setattr(fastpath_check, "_verdict", None)


async def kind_of_a_pools_connection(folder: Path, **options: bool) -> type:
    ca = make_ca(folder)
    pool = Pool(lambda cluster: credential(ca), **options)
    async with login_host(folder / "home", ca) as host, tcp_server(echo) as port:
        connection = await pool.connection(cluster_of(host), "alice")
        await exchange(connection, port, 1)
        await pool.aclose()
    return type(connection)


@pytest.mark.usefixtures("forgotten")
async def test_a_pool_takes_the_fast_way_after_the_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert await kind_of_a_pools_connection(tmp_path) is TunedConnection
    assert fastpath_check.is_proven()
    assert "fast path" not in caplog.text


async def test_a_pool_that_is_told_so_leaves_all_to_asyncssh(tmp_path: Path) -> None:
    assert await kind_of_a_pools_connection(tmp_path, fast_path=False) is GuardedConnection


@pytest.mark.usefixtures("forgotten")
async def test_an_unknown_asyncssh_is_left_alone_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asyncssh, "__version__", "99.0")
    with caplog.at_level(logging.WARNING):
        assert await kind_of_a_pools_connection(tmp_path) is asyncssh.SSHClientConnection
        assert "99.0" in await fastpath_check.problem()
    assert caplog.text.count("without the fast path") == 1


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("fault", ["wrong nonces", "lost data", "a missing name", "taken whatever it is"])
async def test_a_trial_that_fails_switches_it_off(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "wrong nonces":
        monkeypatch.setattr(KeyedGCM, "_nonce", lambda self: bytes(12))
    elif fault == "lost data":
        monkeypatch.setattr(TunedConnection, "_deliver", lambda self, packet: packet[1] == 94)
        monkeypatch.setattr(fastpath_check, "_TRIAL_SECONDS", 1.0)
    elif fault == "a missing name":
        monkeypatch.delattr(asyncssh.connection.SSHConnection, "_recv_pkthdr")
    else:
        monkeypatch.setattr(KeyedGCM, "open", lambda self, header, rest: bytes([4, 2, 0, 0, 0, 0]))
        monkeypatch.setattr(fastpath_check, "_TRIAL_SECONDS", 1.0)
    assert "trial failed" in await fastpath_check.problem()
    assert not fastpath_check.is_proven()


async def test_large_windows_are_filled_and_given_back(restless_sshd: Sshd) -> None:
    data = os.urandom(24 * MB)
    given = 0

    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        for begin in range(0, len(data), MB):
            writer.write(data[begin : begin + MB])
            await writer.drain()
            given += MB

    async with (
        tcp_server(give) as port,
        tuned(restless_sshd.cluster, restless_sshd.username, restless_sshd.ca) as connection,
    ):
        reader, writer = await streams(connection, port)
        writer.transport.pause_reading()  # type: ignore[attr-defined] # the transport of a tunnel reads as well
        assert await standstill(lambda: given) < len(data)
        writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
        assert await reader.read(-1) == data
        writer.close()


async def test_a_message_waits_behind_a_share_of_an_upload_and_not_behind_its_window(restless_sshd: Sshd) -> None:
    uploaded = 0
    at_message: list[int] = []
    line_open = asyncio.Event()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal uploaded
        while data := await reader.read(262144):
            uploaded += len(data)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        at_message.append(uploaded)

    async def slow_relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await far_reader.read(65536):
                writer.write(data)

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(16384):
                far_writer.write(data)
                await far_writer.drain()
                await line_open.wait()
        finally:
            answering.cancel()
            far_writer.transport.abort()

    host = restless_sshd
    (port,) = (int(address.rpartition(":")[2]) for address in host.cluster.login_hosts)
    line_open.set()
    async with tcp_server(slow_relay) as relay_port, tcp_server(sink) as sink_port, tcp_server(listen) as listen_port:
        cluster = host.cluster.model_copy(update={"login_hosts": (f"127.0.0.1:{relay_port}",)})
        async with tuned(cluster, host.username, host.ca) as connection:
            uploads = [await streams(connection, sink_port) for _ in range(4)]
            _, messenger = await streams(connection, listen_port)
            line_open.clear()
            for _, writer in uploads:
                writer.write(bytes(2 * MB))
            transport = connection._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < MB  # of eight that the windows would let pass
            messenger.write(b"!")
            line_open.set()
            await until(lambda: bool(at_message), "the message")
            await until(lambda: uploaded == 8 * MB, "the uploads")
    assert at_message[0] < 5 * MB
