"""The same hands against OpenSSH's own sshd, started on loopback for this module."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.schedulers.base import Command
from launcher.ssh.ca import create_user_ca, load_user_ca
from launcher.ssh.commands import run
from launcher.ssh.connect import connect
from launcher.ssh.errors import HostKeyChanged, LoginRefused, RemoteFileError, TimedOut, TunnelRefused, Unreachable
from launcher.ssh.files import open_files
from launcher.ssh.tunnel import open_tunnel
from tests.integration.ssh_server import credential, free_port, tcp_server
from tests.integration.sshd import AS_ROOT, Sshd, needs_sshd, running_sshd
from tests.waiting import until

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as host:
        yield host


@pytest.fixture
async def connection(sshd: Sshd) -> AsyncIterator[asyncssh.SSHClientConnection]:
    made = await connect(sshd.cluster, sshd.username, credential(sshd.ca), reason="test")
    yield made
    made.abort()
    await made.wait_closed()


async def test_a_command_runs_as_the_user(connection: asyncssh.SSHClientConnection, sshd: Sshd) -> None:
    result = await run(connection, Command(("sh", "-c", "id -un; cat"), stdin=b"input"), timeout_seconds=60)
    assert result.stdout == f"{sshd.username}\ninput".encode()


async def test_a_certificate_of_another_ca_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    create_user_ca(tmp_path / "ca")
    with pytest.raises(LoginRefused):
        await connect(sshd.cluster, sshd.username, credential(load_user_ca(tmp_path / "ca")), reason="test")


async def test_a_certificate_for_somebody_else_is_refused(sshd: Sshd) -> None:
    with pytest.raises(LoginRefused):
        await connect(sshd.cluster, "sshd", credential(sshd.ca), reason="test")


async def test_another_host_key_is_refused(sshd: Sshd) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().strip()
    cluster = sshd.cluster.model_copy(update={"host_keys": (other,)})
    with pytest.raises(HostKeyChanged):
        await connect(cluster, sshd.username, credential(sshd.ca), reason="test")


async def test_a_slow_command_is_ended(connection: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(TimedOut):
        await run(connection, Command(("sleep", "600")), timeout_seconds=0.2)


async def test_a_command_that_dies_in_time_dies_also_when_its_link_broke(sshd: Sshd, tmp_path: Path) -> None:
    connection = await connect(sshd.cluster, sshd.username, credential(sshd.ca), reason="test")
    mark = f"footbridge-{os.getpid()}-{time.time_ns()}"
    # deaf to what sshd may tell it at the end of the link, as a command that hangs in the kernel is
    script = f"trap '' HUP TERM PIPE; exec python3 -c 'import time; time.sleep(600)' {mark}"
    asking = asyncio.create_task(
        run(connection, Command(("sh", "-c", script), dies_after_seconds=5), timeout_seconds=60)
    )
    await until(lambda: len(_processes(mark)) > 0, what="the command to start")
    connection.abort()
    with pytest.raises(Unreachable):
        await asking
    assert _processes(mark), "the end of the link alone must not have ended it, or this test proves nothing"
    await until(lambda: not _processes(mark), what="the end of the command")


def _processes(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if mark.encode() in line and line.startswith(b"python3"):
                found.append(path.parent.name)
    return found


async def test_a_helper_left_behind_does_not_hold_the_answer(
    connection: asyncssh.SSHClientConnection,
) -> None:
    result = await run(connection, Command(("sh", "-c", "sleep 8 & echo submitted")), timeout_seconds=60)
    assert (result.exit_status, result.stdout) == (0, b"submitted\n")


async def test_more_commands_than_sshd_allows_at_once_all_succeed(
    connection: asyncssh.SSHClientConnection,
) -> None:
    results = await asyncio.gather(
        *(run(connection, Command(("sh", "-c", "sleep 0.1; echo $PPID")), timeout_seconds=60) for _ in range(30))
    )
    assert {result.exit_status for result in results} == {0}


async def test_files_are_written_replaced_read_and_removed(connection: asyncssh.SSHClientConnection) -> None:
    async with open_files(connection, timeout_seconds=60) as files:
        root = f"{await files.home()}/footbridge-test-{os.getpid()}"
        try:
            await files.make_folders(f"{root}/abc")
            await files.write_new(f"{root}/abc/secret", b"one", 0o600)
            with pytest.raises(RemoteFileError) as caught:
                await files.write_new(f"{root}/abc/secret", b"two", 0o600)
            assert caught.value.code == "file.exists"
            await files.replace(f"{root}/abc/secret", b"two", 0o600)
            assert await files.read(f"{root}/abc/secret", 100) == b"two"
            assert await files.names(f"{root}/abc", 10) == ("secret",)
            assert await files.kind(f"{root}/abc/secret/below") == "missing"
            with pytest.raises(RemoteFileError) as caught:
                await files.make_folders(f"{root}/abc/secret")
            assert caught.value.code == "file.not_a_folder"
        finally:
            await files.remove_tree(root, root=await files.home())
        assert await files.kind(root) == "missing"


@pytest.mark.skipif(not AS_ROOT or not Path("/dev/full").exists(), reason="needs a tiny file system")
async def test_a_full_disk_is_told(connection: asyncssh.SSHClientConnection, sshd: Sshd) -> None:
    await run(connection, Command(("ln", "-s", "/dev/full", "full")), timeout_seconds=60)
    async with open_files(connection, timeout_seconds=60) as files:
        handle = await files._client.open("full", asyncssh.FXF_WRITE, encoding=None)
        with pytest.raises(RemoteFileError) as caught:
            await files._ask("full", handle.write(b"x"), writing=True)
        assert caught.value.code == "file.full"
        await handle.close()


async def test_a_tunnel_carries_bytes_both_ways(connection: asyncssh.SSHClientConnection) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async with tcp_server(echo) as port:
        reader = asyncio.StreamReader()
        transport, protocol = await open_tunnel(
            connection, "127.0.0.1", port, lambda: asyncio.StreamReaderProtocol(reader)
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        data = os.urandom(5_000_000)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == data
        await sending
        writer.close()


async def test_small_messages_do_not_stall(connection: asyncssh.SSHClientConnection) -> None:
    async def answer_in_two_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(await reader.read(100)) == 100:
            writer.write(b"head")
            await asyncio.sleep(0.003)  # a packet of its own
            writer.write(b"body")  # Nagle's algorithm would hold this back until the first was acknowledged

    async with tcp_server(answer_in_two_pieces) as port:
        reader = asyncio.StreamReader()
        transport, _ = await open_tunnel(connection, "127.0.0.1", port, lambda: asyncio.StreamReaderProtocol(reader))
        round_trips = []
        for _ in range(100):
            started = time.perf_counter()
            transport.write(b"x" * 100)
            await reader.readexactly(8)
            round_trips.append(time.perf_counter() - started)
        transport.close()
    assert statistics.median(round_trips) < 0.035  # without the cure nearly all of them are slower


async def test_nobody_listening_is_refused(connection: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(TunnelRefused):
        await open_tunnel(connection, "127.0.0.1", free_port(), asyncio.Protocol)
