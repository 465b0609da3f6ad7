"""On to the execution host by SSH, and to a Unix socket there: OpenSSH's own sshd plays login and execution host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.ssh.channels import channels_of
from launcher.ssh.credentials import LentPassword, StoredPasswordCredential
from launcher.ssh.errors import NodeKeyUnknown, NodeRefused, SSHError, TunnelRefused
from launcher.ssh.fastpath import TunedConnection
from launcher.ssh.pool import Pool
from launcher.ssh.ways import open_way
from tests.integration.ssh_server import PASSWORD, cluster_of, credential, free_port, login_host, make_ca, tcp_server
from tests.integration.sshd import Sshd, needs_sshd, running_sshd
from tests.waiting import until

pytestmark = needs_sshd

NODE = "localhost"
MB = 1 << 20


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as host:
        yield host


@pytest.fixture
def cluster(sshd: Sshd) -> Cluster:
    """Login host and execution host are the same machine."""
    return over(sshd)


def over(sshd: Sshd, **changes: object) -> Cluster:
    (address,) = sshd.cluster.login_hosts
    values = {
        "reach": "ssh-node",
        "node_ssh_port": int(address.rpartition(":")[2]),
        "node_host_keys": sshd.cluster.host_keys,
    }
    return Cluster.model_validate({**sshd.cluster.model_dump(by_alias=True), **values, **changes})


@pytest.fixture
async def pool(sshd: Sshd) -> AsyncIterator[Pool]:
    told.clear()
    made = Pool(lambda cluster: credential(sshd.ca), refused=note)
    yield made
    await made.aclose()


told: list[SSHError] = []


async def note(cluster: Cluster, username: str, error: SSHError) -> None:
    told.append(error)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(262144):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def socket_server() -> AsyncIterator[str]:
    """The path of a Unix socket at which everything comes back."""
    with tempfile.TemporaryDirectory(prefix="fb-test-") as name:
        os.chmod(name, 0o755)  # noqa: PTH101, S103 - the account of sshd is another one
        path = f"{name}/server.sock"
        server = await asyncio.start_unix_server(echo, path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - as above
        async with server:
            yield path


async def exchange(
    pool: Pool, cluster: Cluster, username: str, *, port: int = 0, path: str = "", megabytes: int
) -> None:
    reader = asyncio.StreamReader(limit=MB)
    transport, protocol = await open_way(
        pool, cluster, username, NODE, port, lambda: asyncio.StreamReaderProtocol(reader), socket=path
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    data = os.urandom(MB)

    async def send() -> None:
        for _ in range(megabytes):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    received, count = hashlib.sha256(), 0
    while piece := await reader.read(MB):
        received.update(piece)
        count += len(piece)
    await sending
    writer.close()
    assert count == megabytes * MB
    assert received.digest() == hashlib.sha256(data * megabytes).digest()


async def test_bytes_pass_to_a_socket_on_the_execution_host_and_back(pool: Pool, cluster: Cluster, sshd: Sshd) -> None:
    async with socket_server() as path:
        await exchange(pool, cluster, sshd.username, path=path, megabytes=20)
    connection = await pool.connection(cluster, sshd.username, node=NODE)
    assert isinstance(connection, TunedConnection)
    assert connection.tuned_packets_received


async def test_a_port_of_loopback_there_is_reached_too(pool: Pool, cluster: Cluster, sshd: Sshd) -> None:
    async with tcp_server(echo) as port:
        await exchange(pool, cluster, sshd.username, port=port, megabytes=3)


async def test_all_ways_of_a_user_to_a_host_share_one_connection(pool: Pool, cluster: Cluster, sshd: Sshd) -> None:
    first, second = await asyncio.gather(*(pool.connection(cluster, sshd.username, node=NODE) for _ in range(2)))
    assert first is second
    login = await pool.connection(cluster, sshd.username)
    assert login is not first
    assert channels_of(login).tunnels == 1
    await pool.close_user(cluster.id, sshd.username)
    assert first.is_closed()
    assert login.is_closed()


async def test_a_way_that_broke_is_made_anew(pool: Pool, cluster: Cluster, sshd: Sshd) -> None:
    first = await pool.connection(cluster, sshd.username, node=NODE)
    login = await pool.connection(cluster, sshd.username)
    login.abort()
    await until(first.is_closed, "the end of the way through it")
    async with socket_server() as path:
        await exchange(pool, cluster, sshd.username, path=path, megabytes=1)


async def test_the_way_is_closed_when_nobody_uses_it(sshd: Sshd, cluster: Cluster) -> None:
    pool = Pool(lambda cluster: credential(sshd.ca), idle_seconds=0.2)
    try:
        connection = await pool.connection(cluster, sshd.username, node=NODE)
        login = await pool.connection(cluster, sshd.username)
        await until(connection.is_closed, "the idle way to be closed")
        await until(lambda: channels_of(login).open == 0, "its channel to be counted out")
    finally:
        await pool.aclose()


async def test_an_unknown_host_key_is_refused_and_the_administrators_are_told(pool: Pool, sshd: Sshd) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().strip()
    cluster = over(sshd, node_host_keys=[other])
    with pytest.raises(NodeKeyUnknown) as caught:
        await pool.connection(cluster, sshd.username, node=NODE)
    assert caught.value.params == {"node": NODE}
    assert [error.code for error in told] == ["ssh.host_key_changed"]
    assert told[0].params == {"login_host": NODE}
    assert await pool.connection(cluster, sshd.username)  # the login host is not to blame


async def test_a_known_hosts_file_vouches_for_a_host_and_for_no_other(pool: Pool, sshd: Sshd, tmp_path: Path) -> None:
    (key,) = sshd.cluster.host_keys
    port = over(sshd).node_ssh_port
    (tmp_path / "known_hosts").write_text(f"[{NODE}]:{port} {key}\n")
    cluster = over(sshd, node_host_keys=[], node_known_hosts=str(tmp_path / "known_hosts"))
    assert await pool.connection(cluster, sshd.username, node=NODE)
    with pytest.raises(NodeKeyUnknown):
        await pool.connection(cluster, sshd.username, node="127.0.0.1")


async def test_a_host_that_does_not_let_the_account_in_stops_nothing_else(pool: Pool, sshd: Sshd) -> None:
    with running_sshd() as strange:  # it trusts another authority
        cluster = over(sshd, node_ssh_port=over(strange).node_ssh_port, node_host_keys=list(strange.cluster.host_keys))
        with pytest.raises(NodeRefused) as caught:
            await pool.connection(cluster, sshd.username, node=NODE)
        with pytest.raises(NodeRefused):
            await pool.connection(cluster, sshd.username, node=NODE)
        assert caught.value.params == {"node": NODE}
        assert await pool.connection(cluster, sshd.username)
        assert not told


async def test_a_refused_password_is_not_offered_again_soon(tmp_path: Path) -> None:
    async def borrow(cluster: Cluster, username: str) -> LentPassword:
        return LentPassword(PASSWORD, accepted=lambda: None)

    ca = make_ca(tmp_path)
    pool = Pool(lambda cluster: StoredPasswordCredential(borrow))
    async with (
        login_host(tmp_path / "login", ca) as login,
        login_host(tmp_path / "node", ca, password_expired=True) as node,
    ):
        cluster = cluster_of(
            login, credential="password", reach="ssh-node", node_ssh_port=node.port, node_host_keys=[node.key_line]
        )
        for _ in range(3):
            with pytest.raises(NodeRefused):
                await pool.connection(cluster, "alice", node=NODE)
        assert node.passwords_tried == [PASSWORD]
        assert pool._places[cluster.id, "alice", NODE].back_off.wait_seconds > 500
        await pool.aclose()


async def test_a_host_without_sshd_is_told_apart(pool: Pool, sshd: Sshd) -> None:
    with pytest.raises(TunnelRefused) as caught:
        await pool.connection(over(sshd, node_ssh_port=free_port()), sshd.username, node=NODE)
    assert caught.value.code == "ssh.node_unreachable"


async def test_nobody_at_the_socket_is_a_refused_tunnel(pool: Pool, cluster: Cluster, sshd: Sshd) -> None:
    with pytest.raises(TunnelRefused):
        await open_way(pool, cluster, sshd.username, NODE, 0, asyncio.Protocol, socket="/tmp/fb.nobody00/server.sock")


async def test_the_direct_way_is_plain_tcp(pool: Pool) -> None:
    cluster = cluster_of(free_port(), reach="direct")
    async with tcp_server(echo) as port:
        await exchange(pool, cluster, "alice", port=port, megabytes=2)
    with pytest.raises(TunnelRefused):
        await open_way(pool, cluster, "alice", NODE, free_port(), asyncio.Protocol)
    with pytest.raises(TunnelRefused):
        await open_way(pool, cluster, "alice", NODE, 0, asyncio.Protocol, socket="/tmp/fb.12345678/server.sock")
