"""Commands on a login host: what comes back, and every way in which nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from launcher.schedulers.base import Command
from launcher.ssh.channels import MAX_SESSIONS, channels_of
from launcher.ssh.commands import TooMuchOutputError, run
from launcher.ssh.connect import connect
from launcher.ssh.errors import TimedOut, Unreachable
from tests.integration.ssh_server import LoginHost, cluster_of, credential, login_host, make_ca
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[LoginHost]:
    async with login_host(tmp_path / "home", make_ca(tmp_path)) as server:
        yield server


@pytest.fixture
async def connection(host: LoginHost, tmp_path: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    from launcher.ssh.ca import load_user_ca

    made = await connect(cluster_of(host), "alice", credential(load_user_ca(tmp_path / "user_ca")), reason="test")
    yield made
    made.abort()
    await made.wait_closed()


def shell(script: str, **options: object) -> Command:
    return Command(("sh", "-c", script), **options)  # type: ignore[arg-type] # handed through


async def test_status_and_both_outputs_come_back_as_bytes(connection: asyncssh.SSHClientConnection) -> None:
    result = await run(connection, shell("printf '\\377out'; printf err >&2; exit 7"), timeout_seconds=60)
    assert (result.exit_status, result.stdout, result.stderr) == (7, b"\xffout", b"err")


async def test_stdin_arrives_whole(connection: asyncssh.SSHClientConnection) -> None:
    script = bytes(range(256)) * 12_000  # 3 MB, more than a channel's window
    result = await run(connection, Command(("cat",), stdin=script), timeout_seconds=60)
    assert result.stdout == script


async def test_a_command_that_reads_no_stdin_is_fine(connection: asyncssh.SSHClientConnection) -> None:
    result = await run(connection, shell("exec <&-; echo done", stdin=b"x" * 3_000_000), timeout_seconds=60)
    assert (result.exit_status, result.stdout) == (0, b"done\n")


async def test_the_environment_reaches_the_command(connection: asyncssh.SSHClientConnection) -> None:
    result = await run(connection, Command(("printenv", "TZ"), environment={"TZ": "UTC 'quoted'"}), timeout_seconds=60)
    assert result.stdout == b"UTC 'quoted'\n"


async def test_a_slow_command_is_ended(connection: asyncssh.SSHClientConnection, host: LoginHost) -> None:
    pid_file = host.home / "pid"
    with pytest.raises(TimedOut):
        await run(connection, shell("echo $$ > pid; exec sleep 600"), timeout_seconds=3)
    process = Path("/proc") / pid_file.read_text().strip()
    await until(lambda: not process.exists(), "the command to end")
    assert channels_of(connection).open == 0


async def test_a_timeout_leaves_the_connection_usable(connection: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(TimedOut):
        await run(connection, Command(("sleep", "600")), timeout_seconds=0.1)
    assert (await run(connection, Command(("echo", "fine")), timeout_seconds=60)).stdout == b"fine\n"


async def test_too_much_output_is_refused(connection: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(TooMuchOutputError) as caught:
        await run(connection, Command(("yes",)), timeout_seconds=60, max_output_bytes=1_000_000)
    assert caught.value.code == "ssh.too_much_output"


async def test_a_command_killed_by_a_signal_has_no_known_outcome(
    connection: asyncssh.SSHClientConnection,
) -> None:
    with pytest.raises(Unreachable, match="KILL") as caught:
        await run(connection, shell("kill -9 0"), timeout_seconds=60)
    assert caught.value.transient


async def test_a_broken_connection_is_unreachable(connection: asyncssh.SSHClientConnection, host: LoginHost) -> None:
    running = asyncio.create_task(run(connection, Command(("sleep", "600")), timeout_seconds=30))
    await until(lambda: len(host.commands) == 2, "the command to start")
    host.drop_connections()
    with pytest.raises(Unreachable):
        await running


async def test_a_closed_connection_is_unreachable(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    await connection.wait_closed()
    with pytest.raises(Unreachable):
        await run(connection, Command(("true",)), timeout_seconds=60)


async def test_a_helper_left_behind_does_not_hold_the_answer(
    connection: asyncssh.SSHClientConnection,
) -> None:
    started = asyncio.get_running_loop().time()
    result = await run(connection, shell("sleep 30 & echo submitted"), timeout_seconds=60)
    assert (result.exit_status, result.stdout) == (0, b"submitted\n")
    assert asyncio.get_running_loop().time() - started < 28


async def test_commands_take_turns(connection: asyncssh.SSHClientConnection, host: LoginHost) -> None:
    script = "touch running.$$; ls running.* | wc -l; sleep 0.05; rm running.$$"
    results = await asyncio.gather(
        *(run(connection, shell(script), timeout_seconds=60) for _ in range(3 * MAX_SESSIONS))
    )
    seen = [int(result.stdout) for result in results]
    assert len(seen) == 3 * MAX_SESSIONS
    assert max(seen) <= MAX_SESSIONS


async def test_waiting_for_a_turn_counts_as_time(connection: asyncssh.SSHClientConnection) -> None:
    sleepers = [
        asyncio.create_task(run(connection, Command(("sleep", "600")), timeout_seconds=60)) for _ in range(MAX_SESSIONS)
    ]
    await until(channels_of(connection).turns.locked, "all turns to be taken")
    with pytest.raises(TimedOut):
        await run(connection, Command(("true",)), timeout_seconds=0.1)
    for sleeper in sleepers:
        sleeper.cancel()
    await asyncio.wait(sleepers)
    assert (await run(connection, Command(("true",)), timeout_seconds=60)).exit_status == 0
