"""Connecting with a certificate: whom the portal trusts, what it offers, and which host it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from launcher.ssh.ca import UserCA
from launcher.ssh.connect import connect, split_host
from launcher.ssh.credentials import CertificateCredential
from launcher.ssh.errors import HostKeyChanged, LoginRefused, SSHError, TimedOut, Unreachable
from tests.integration.ssh_server import (
    LoginHost,
    cluster_of,
    credential,
    free_port,
    login_host,
    make_ca,
    silent_host,
    tcp_server,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def ca(tmp_path: Path) -> UserCA:
    return make_ca(tmp_path)


@pytest.fixture
async def host(tmp_path: Path, ca: UserCA) -> AsyncIterator[LoginHost]:
    async with login_host(tmp_path / "home", ca) as server:
        yield server


async def test_a_certificate_opens_a_connection_that_uses_aes_gcm(host: LoginHost, ca: UserCA) -> None:
    connection = await connect(cluster_of(host), "alice", credential(ca), reason="test")
    try:
        assert host.usernames == ["alice"]
        assert connection.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
        assert connection.get_extra_info("recv_cipher") == "aes128-gcm@openssh.com"
    finally:
        connection.abort()


async def test_a_trivial_command_runs_after_connecting(host: LoginHost, ca: UserCA) -> None:
    connection = await connect(cluster_of(host), "alice", credential(ca), reason="test")
    connection.abort()
    assert host.commands == ["true"]


async def test_a_host_with_another_key_is_refused_and_no_other_host_is_tried(
    host: LoginHost, ca: UserCA, tmp_path: Path
) -> None:
    async with login_host(tmp_path / "other", ca) as impostor:
        cluster = cluster_of(impostor, host, host_keys=[host.key_line])
        with pytest.raises(HostKeyChanged) as caught:
            await connect(cluster, "alice", credential(ca), reason="test")
    assert not caught.value.transient
    assert host.usernames == impostor.usernames == []


async def test_a_host_with_only_another_kind_of_key_is_refused(ca: UserCA, tmp_path: Path, host: LoginHost) -> None:
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with login_host(tmp_path / "other", ca, key=key) as impostor:
        with pytest.raises(HostKeyChanged):
            await connect(cluster_of(impostor, host_keys=[host.key_line]), "alice", credential(ca), reason="test")


async def test_a_dead_login_host_is_skipped(host: LoginHost, ca: UserCA) -> None:
    connection = await connect(cluster_of(free_port(), host), "alice", credential(ca), reason="test")
    connection.abort()
    assert host.usernames == ["alice"]


async def test_a_login_host_that_says_nothing_is_skipped(host: LoginHost, ca: UserCA) -> None:
    async with silent_host() as port:
        cluster = cluster_of(port, host, connect_timeout_seconds=4)
        connection = await connect(cluster, "alice", credential(ca), reason="test")
        connection.abort()
    assert host.usernames == ["alice"]


async def test_nobody_listening_is_unreachable(ca: UserCA) -> None:
    with pytest.raises(Unreachable) as caught:
        await connect(cluster_of(free_port()), "alice", credential(ca), reason="test")
    assert caught.value.transient
    assert "refused" in caught.value.detail.lower()


async def test_an_unknown_name_is_unreachable(ca: UserCA) -> None:
    with pytest.raises(Unreachable):
        await connect(cluster_of(1, login_hosts=["no-such-host.invalid"]), "alice", credential(ca), reason="test")


async def test_a_silent_host_times_out(ca: UserCA) -> None:
    async with silent_host() as port:
        with pytest.raises(TimedOut):
            await connect(cluster_of(port, connect_timeout_seconds=0.3), "alice", credential(ca), reason="test")


async def test_a_server_that_speaks_no_ssh_is_unreachable(ca: UserCA) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with tcp_server(answer) as port:
        with pytest.raises(Unreachable):
            await connect(cluster_of(port), "alice", credential(ca), reason="test")


async def test_a_certificate_of_an_unknown_ca_is_refused(host: LoginHost, tmp_path: Path) -> None:
    stranger = make_ca(tmp_path / "stranger")
    with pytest.raises(LoginRefused):
        await connect(cluster_of(host), "alice", credential(stranger), reason="test")


async def test_an_expired_certificate_is_refused(host: LoginHost, ca: UserCA) -> None:
    expired = CertificateCredential(ca, "test portal", lifetime_seconds=-1)
    with pytest.raises(LoginRefused):
        await connect(cluster_of(host), "alice", expired, reason="test")


async def test_a_host_that_lets_everybody_in_is_not_believed(host: LoginHost, ca: UserCA) -> None:
    host.let_everybody_in = True
    with pytest.raises(LoginRefused):
        await connect(cluster_of(host), "alice", credential(ca), reason="test")


@pytest.mark.parametrize(
    "username", ["", "root", "Root", "a b", "alice\n", "-oProxyCommand=x", "a" * 65, "ålice", "1a"]
)
async def test_odd_account_names_never_reach_a_host(host: LoginHost, ca: UserCA, username: str) -> None:
    with pytest.raises(LoginRefused) as caught:
        await connect(cluster_of(host), username, credential(ca), reason="test")
    assert caught.value.code == "ssh.bad_username"
    assert host.connections == []


async def test_a_broken_line_among_the_host_keys_is_named(ca: UserCA) -> None:
    with pytest.raises(SSHError, match="entry 1"):
        await connect(cluster_of(22, host_keys=["ssh-ed25519 nonsense"]), "alice", credential(ca), reason="test")


async def test_the_certificate_names_one_principal_and_allows_forwarding_alone(ca: UserCA) -> None:
    options = await credential(ca).options(cluster_of(22), "Alice.b-2", "launch\nforged line")
    [(key, certificate)] = options["client_keys"]  # type: ignore[misc] # typed as object for asyncssh
    assert certificate.principals == ["Alice.b-2"]
    assert list(certificate.options) == ["permit-port-forwarding"]
    assert certificate.signing_key.public_data == ca.key.public_data
    assert certificate._key_id == "footbridge:test_portal:Alice.b-2:launch_forged_line"
    again = await credential(ca).options(cluster_of(22), "Alice.b-2", "")
    assert again["client_keys"][0][0].public_data != key.public_data  # type: ignore[index] # as above


async def test_packet_dumps_are_kept_out_of_the_log(
    host: LoginHost, ca: UserCA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncssh")
    asyncssh.set_debug_level(3)
    try:
        connection = await connect(cluster_of(host), "alice", credential(ca), reason="test")
        connection.abort()
    finally:
        asyncssh.set_debug_level(1)
    assert any(record.name == "asyncssh" for record in caplog.records)
    assert not any(hasattr(record, "packet") for record in caplog.records)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("login1", ("login1", 22)),
        ("login1:2222", ("login1", 2222)),
        ("[::1]", ("::1", 22)),
        ("[::1]:23", ("::1", 23)),
    ],
)
def test_login_hosts_may_name_a_port(text: str, expected: tuple[str, int]) -> None:
    assert split_host(text) == expected
