"""The pool: one connection for all, replaced when it breaks, closed when idle, and patient with dead
clusters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.schedulers.base import Command
from launcher.ssh import pool as pools
from launcher.ssh.ca import UserCA
from launcher.ssh.channels import channels_of
from launcher.ssh.errors import LoginRefused, TimedOut, Unreachable
from launcher.ssh.hands import Hands
from launcher.ssh.pool import Pool
from launcher.ssh.tunnel import open_tunnel
from tests.integration.ssh_server import LoginHost, cluster_of, credential, free_port, login_host, make_ca, tcp_server
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def ca(tmp_path: Path) -> UserCA:
    return make_ca(tmp_path)


@pytest.fixture
async def host(tmp_path: Path, ca: UserCA) -> AsyncIterator[LoginHost]:
    async with login_host(tmp_path / "home", ca) as server:
        yield server


@pytest.fixture
async def pool(ca: UserCA) -> AsyncIterator[Pool]:
    made = Pool(lambda cluster: credential(ca))
    yield made
    await made.aclose()


async def test_racing_callers_share_one_connection(pool: Pool, host: LoginHost) -> None:
    cluster = cluster_of(host)
    connections = await asyncio.gather(*(pool.connection(cluster, "alice") for _ in range(10)))
    assert len(set(connections)) == 1
    assert len(host.connections) == 1


async def test_each_user_has_a_connection_of_their_own(pool: Pool, host: LoginHost) -> None:
    cluster = cluster_of(host)
    alices, bobs = await asyncio.gather(pool.connection(cluster, "alice"), pool.connection(cluster, "bob"))
    assert alices is not bobs
    assert sorted(host.usernames) == ["alice", "bob"]


async def test_a_broken_connection_is_replaced(pool: Pool, host: LoginHost) -> None:
    cluster = cluster_of(host)
    first = await pool.connection(cluster, "alice")
    host.drop_connections()
    await until(first.is_closed, "the connection to break")
    second = await pool.connection(cluster, "alice")
    assert second is not first
    assert not second.is_closed()


async def test_a_connection_whose_host_opens_nothing_gets_no_further_tunnels_until_it_answers(
    host: LoginHost, ca: UserCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MOST_UNANSWERED", 5)
    host.hold_forwarding = asyncio.Event()
    pool, cluster = Pool(lambda cluster: credential(ca), max_connections_per_user=2), cluster_of(host)
    try:
        stalled = []
        for _ in range(2):
            connection = await pool.connection(cluster, "alice")
            stalled.append(connection)
            asked = [open_tunnel(connection, "127.0.0.1", 1, asyncio.Protocol, timeout_seconds=0.2) for _ in range(5)]
            assert {type(said) for said in await asyncio.gather(*asked, return_exceptions=True)} == {TimedOut}
        assert stalled[0] is not stalled[1]
        with pytest.raises(Unreachable) as caught:
            await pool.connection(cluster, "alice")
        assert caught.value.code == "ssh.too_many_connections"
        host.hold_forwarding.set()
        await until(lambda: not any(channels_of(each).unanswered for each in stalled), "the late answers")
        assert await pool.connection(cluster, "alice") in stalled
    finally:
        await pool.aclose()


async def test_tunnels_asked_for_at_once_are_spread_over_connections(host: LoginHost, ca: UserCA) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    pool = Pool(lambda cluster: credential(ca), max_channels_per_connection=10, max_connections_per_user=3)
    cluster = cluster_of(host)

    async def one(port: int) -> asyncio.Transport:
        connection = await pool.connection(cluster, "alice")
        transport, _ = await open_tunnel(connection, "127.0.0.1", port, asyncio.Protocol)
        return transport

    try:
        async with tcp_server(talk) as port:
            made = await asyncio.gather(*(one(port) for _ in range(30)))
            used = {transport.get_extra_info("ssh_connection") for transport in made}
            assert [channels_of(connection).tunnels for connection in used] == [10, 10, 10]
            with pytest.raises(Unreachable) as caught:
                await one(port)
            assert caught.value.code == "ssh.too_many_connections"
            made[0].abort()
            await until(lambda: sum(channels_of(connection).open for connection in used) == 29, "room")
            (await one(port)).abort()
    finally:
        await pool.aclose()


async def test_a_crowded_connection_gets_a_neighbour(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca), max_channels_per_connection=2)
    cluster = cluster_of(host)
    try:
        first = await pool.connection(cluster, "alice")
        channels_of(first).tunnel_opened()
        assert await pool.connection(cluster, "alice") is first
        channels_of(first).tunnel_opened()
        second = await pool.connection(cluster, "alice")
        assert second is not first
        assert await pool.connection(cluster, "alice") is second
    finally:
        await pool.aclose()


async def test_an_idle_connection_is_closed(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca), idle_seconds=0.1)
    try:
        connection = await pool.connection(cluster_of(host), "alice")
        await until(connection.is_closed, "the idle connection to be closed")
        assert pool.health("hpc").connections == 0
    finally:
        await pool.aclose()


async def test_a_connection_in_use_is_not_idle(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca), idle_seconds=0.05)
    try:
        result = await Hands(pool).run(cluster_of(host), "alice", Command(("sh", "-c", "sleep 0.5; echo done")))
        assert result.stdout == b"done\n"
    finally:
        await pool.aclose()


async def test_the_least_recently_used_idle_connection_makes_room(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca), max_connections=2)
    cluster = cluster_of(host)
    try:
        alices = await pool.connection(cluster, "alice")
        bobs = await pool.connection(cluster, "bob")
        await pool.connection(cluster, "alice")
        await pool.connection(cluster, "admin")
        await until(bobs.is_closed, "bob's connection to make room")
        assert not alices.is_closed()
    finally:
        await pool.aclose()


async def test_without_an_idle_connection_there_is_no_room(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca), max_connections=1)
    cluster = cluster_of(host)
    try:
        channels_of(await pool.connection(cluster, "alice")).tunnel_opened()
        with pytest.raises(Unreachable) as caught:
            await pool.connection(cluster, "bob")
        assert caught.value.code == "ssh.too_many_connections"
    finally:
        await pool.aclose()


async def test_after_a_failure_callers_fail_fast_with_the_same_error(pool: Pool) -> None:
    dialled = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1

    async with tcp_server(hang_up) as port:
        cluster = cluster_of(port)
        outcomes = await asyncio.gather(
            *(pool.connection(cluster, name) for name in ("alice", "alice", "alice")), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 3
    assert len({outcome.detail for outcome in outcomes if isinstance(outcome, Unreachable)}) == 1
    assert dialled == 1


async def test_a_dead_cluster_shows_in_its_health_and_others_do_not_dial(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_FIRST_WAIT_SECONDS", 30.0)
    dialled = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        writer.close()

    async with tcp_server(hang_up) as port:
        cluster = cluster_of(port)
        for username in ("alice", "bob"):
            with pytest.raises(Unreachable):
                await pool.connection(cluster, username)
        health = pool.health("hpc")
    assert health.failing_since is not None
    assert isinstance(health.last_error, Unreachable)
    assert 0 < health.retry_in_seconds <= 30
    assert dialled == 1


async def test_the_wait_grows_and_ends_with_a_success(pool: Pool, ca: UserCA, tmp_path: Path) -> None:
    port = free_port()
    key_holder = LoginHost(tmp_path / "home", port)
    cluster = cluster_of(key_holder)
    waits = []
    for _ in range(3):
        await until(lambda: pool.health("hpc").retry_in_seconds == 0, "the wait to end")
        with pytest.raises(Unreachable):
            await pool.connection(cluster, "alice")
        waits.append(pool.health("hpc").retry_in_seconds)
    assert waits[0] < 0.41
    assert waits[2] > waits[0]
    async with login_host(tmp_path / "home", ca, port=port, key=key_holder.key):
        await until(lambda: pool.health("hpc").retry_in_seconds == 0, "the wait to end")
        await pool.connection(cluster, "alice")
    health = pool.health("hpc")
    assert (health.failing_since, health.last_error) == (None, None)


async def test_one_users_refusal_does_not_hold_up_another(host: LoginHost, ca: UserCA, tmp_path: Path) -> None:
    stranger = make_ca(tmp_path / "stranger")
    current = stranger
    pool = Pool(lambda cluster: credential(current))
    cluster = cluster_of(host)
    try:
        with pytest.raises(LoginRefused):
            await pool.connection(cluster, "alice")
        current = ca
        await pool.connection(cluster, "bob")
        with pytest.raises(LoginRefused):
            await pool.connection(cluster, "alice")
        assert host.usernames == ["alice", "bob"]
        assert pool.health("hpc").last_error is None
    finally:
        await pool.aclose()


async def test_closing_a_user_closes_that_users_connections_only(pool: Pool, host: LoginHost) -> None:
    cluster = cluster_of(host)
    alices = await pool.connection(cluster, "alice")
    bobs = await pool.connection(cluster, "bob")
    await pool.close_user("hpc", "alice")
    assert alices.is_closed()
    assert not bobs.is_closed()


async def test_a_cancelled_caller_does_not_spoil_it_for_the_next(pool: Pool, host: LoginHost) -> None:
    cluster = cluster_of(host)
    first = asyncio.create_task(pool.connection(cluster, "alice"))
    second = asyncio.create_task(pool.connection(cluster, "alice"))
    await until(lambda: host.connections, "the first caller to dial")
    first.cancel()
    assert not (await second).is_closed()


async def test_a_closed_pool_is_closed(host: LoginHost, ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca))
    connection = await pool.connection(cluster_of(host), "alice")
    await pool.aclose()
    assert connection.is_closed()
    with pytest.raises(Unreachable):
        await pool.connection(cluster_of(host), "alice")


def test_a_pool_belongs_to_one_loop(ca: UserCA) -> None:
    pool = Pool(lambda cluster: credential(ca))
    asyncio.run(pool.close_user("hpc", "alice"))
    with pytest.raises(RuntimeError, match="one event loop"):
        asyncio.run(pool.close_user("hpc", "alice"))


async def test_hands_write_run_and_read_as_one_user(pool: Pool, host: LoginHost) -> None:
    hands, cluster = Hands(pool), cluster_of(host)
    async with hands.files(cluster, "alice") as files:
        await files.write_new("script", b"echo 42\n", 0o700)
    assert (await hands.run(cluster, "alice", Command(("sh", "script")))).stdout == b"42\n"
    assert len(host.connections) == 1
