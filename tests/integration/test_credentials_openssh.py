"""What lets the portal act as a user, against OpenSSH's own sshd: what is let in, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.schedulers.base import Command
from launcher.ssh import authorized_keys
from launcher.ssh.ca import create_user_ca
from launcher.ssh.commands import run
from launcher.ssh.connect import connect
from launcher.ssh.credentials import (
    CertificateCredential,
    Credential,
    EnrolledKeyCredential,
    LentPassword,
    PasswordCredential,
    StoredPasswordCredential,
)
from launcher.ssh.errors import HostKeyChanged, LoginRefused, RemoteFileError
from launcher.ssh.files import open_files
from launcher.ssh.tunnel import open_tunnel
from tests.integration.openssh import PASSWORD, UID, OpenSSH, line_of, needs_openssh, openssh
from tests.integration.ssh_server import tcp_server

pytestmark = needs_openssh


@pytest.fixture(scope="module")
def _sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    folder = tmp_path_factory.mktemp("sshd")
    create_user_ca(folder / "ca")
    with openssh(folder / "ca") as host:
        yield host


@pytest.fixture
def sshd(_sshd: OpenSSH) -> OpenSSH:
    _sshd.mend()
    return _sshd


def certificate(sshd: OpenSSH, **options: object) -> CertificateCredential:
    return CertificateCredential(sshd.ca, portal_name="test portal", **options)  # type: ignore[arg-type]  # as given


@contextlib.asynccontextmanager
async def connected(
    sshd: OpenSSH, credential: Credential, username: str = "alice", **options: object
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    connection = await connect(sshd.cluster(**options), username, credential, reason="test")
    try:
        yield connection
    finally:
        connection.abort()
        await connection.wait_closed()


async def refused(sshd: OpenSSH, credential: Credential, username: str = "alice") -> str:
    with pytest.raises(LoginRefused) as caught:
        async with connected(sshd, credential, username):
            pass
    return caught.value.code


# certificates


async def test_a_certificate_is_let_in_and_named_in_the_log(sshd: OpenSSH) -> None:
    async with connected(sshd, certificate(sshd)) as connection:
        assert (await run(connection, Command(("id", "-un")), timeout_seconds=60)).stdout == b"alice\n"
    assert "ID footbridge:test_portal:alice:test" in sshd.log


async def test_a_certificate_for_another_account_is_refused(sshd: OpenSSH) -> None:
    class SomebodyElses:
        refused = LoginRefused

        async def options(self, cluster: object, username: str, reason: str) -> object:
            return await certificate(sshd).options(cluster, "bob", reason)  # type: ignore[arg-type]  # not looked at

    assert await refused(sshd, SomebodyElses()) == "ssh.login_refused"  # type: ignore[arg-type]  # the same shape
    assert "Certificate invalid: name is not a listed principal" in sshd.log


async def test_root_is_never_signed_for(sshd: OpenSSH) -> None:
    assert await refused(sshd, certificate(sshd), "root") == "ssh.bad_username"


async def test_a_certificate_that_ran_out_is_refused(sshd: OpenSSH) -> None:
    assert await refused(sshd, certificate(sshd, lifetime_seconds=-10)) == "ssh.login_refused"
    assert "Certificate invalid: expired" in sshd.log


async def test_a_certificate_is_good_from_the_portals_own_address(sshd: OpenSSH) -> None:
    async with connected(sshd, certificate(sshd, source_addresses=("127.0.0.0/8", "::1"))) as connection:
        assert not connection.is_closed()


async def test_a_certificate_is_worth_nothing_elsewhere(sshd: OpenSSH) -> None:
    assert await refused(sshd, certificate(sshd, source_addresses=("192.0.2.1",))) == "ssh.login_refused"


async def test_a_locked_account_is_refused(sshd: OpenSSH) -> None:
    sshd.lock()
    assert await refused(sshd, certificate(sshd)) == "ssh.login_refused"
    assert "account is locked" in sshd.log


async def test_an_account_that_ended_is_refused(sshd: OpenSSH) -> None:
    sshd.expire()
    assert await refused(sshd, certificate(sshd)) == "ssh.login_refused"
    assert "has expired" in sshd.log


# host keys


async def test_a_host_is_known_by_its_authority(sshd: OpenSSH) -> None:
    async with connected(sshd, certificate(sshd), host_keys=[], host_ca_keys=[line_of(sshd.host_ca)]) as connection:
        assert not connection.is_closed()


async def test_a_host_of_another_authority_is_refused(sshd: OpenSSH) -> None:
    other = line_of(asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(HostKeyChanged):
        await connect(sshd.cluster(host_keys=[], host_ca_keys=[other]), "alice", certificate(sshd), reason="test")


async def test_an_authority_is_no_host_key(sshd: OpenSSH) -> None:
    cluster = sshd.cluster(host_keys=[line_of(sshd.host_ca)])
    with pytest.raises(HostKeyChanged):
        await connect(cluster, "alice", certificate(sshd), reason="test")


# enrolled keys


def new_key() -> tuple[EnrolledKeyCredential, str]:
    private, public, _ = authorized_keys.new_key("test portal", "alice")

    async def find(cluster_id: str, username: str) -> str:
        return private

    return EnrolledKeyCredential(find), public


def line(public: str, *addresses: str) -> bytes:
    return authorized_keys.key_line(public, source_addresses=addresses, portal_name="test portal", username="alice")


async def add(sshd: OpenSSH, *lines: bytes, username: str = "alice") -> None:
    async with (
        connected(sshd, PasswordCredential(PASSWORD), username) as connection,
        open_files(connection, timeout_seconds=60) as files,
    ):
        await asyncio.gather(*(authorized_keys.add_line(files, each) for each in lines))


async def remove(sshd: OpenSSH, public: str) -> None:
    async with (
        connected(sshd, PasswordCredential(PASSWORD)) as connection,
        open_files(connection, timeout_seconds=60) as files,
    ):
        await authorized_keys.remove_key(files, public)


def write_keys(sshd: OpenSSH, content: bytes, mode: int = 0o600) -> None:
    sshd.keys_file().parent.mkdir(mode=0o700)
    sshd.keys_file().write_bytes(content)
    sshd.keys_file().chmod(mode)
    for path in (sshd.keys_file(), sshd.keys_file().parent):
        os.chown(path, UID["alice"], UID["alice"])


async def test_folder_and_file_are_made_for_the_user_alone(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public))
    assert sshd.keys_file().parent.stat().st_mode & 0o777 == 0o700
    assert sshd.keys_file().stat().st_mode & 0o777 == 0o600
    assert sshd.keys_file().read_bytes() == line(public) + b"\n"
    async with connected(sshd, key) as connection:
        assert not connection.is_closed()


@pytest.mark.parametrize(
    "before", [b"", b"# mine\nssh-rsa AAAAB3 me\n", b"ssh-rsa AAAAB3 me", b"\r\n\xff\xfe odd\r\n\n"]
)
async def test_the_rest_of_the_file_and_its_mode_stay(sshd: OpenSSH, before: bytes) -> None:
    _, public = new_key()
    write_keys(sshd, before, mode=0o640)
    await add(sshd, line(public))
    assert sshd.keys_file().read_bytes().startswith(before)
    assert line(public) in sshd.keys_file().read_bytes()
    await remove(sshd, public)
    assert sshd.keys_file().read_bytes() == before
    assert sshd.keys_file().stat().st_mode & 0o777 == 0o640


async def test_the_same_line_put_in_many_times_at_once_is_there_once(sshd: OpenSSH) -> None:
    _, public = new_key()
    write_keys(sshd, b"ssh-rsa AAAAB3 me\n")
    await asyncio.gather(*(add(sshd, line(public)) for _ in range(5)))
    await add(sshd, line(public))
    assert sshd.keys_file().read_bytes() == b"ssh-rsa AAAAB3 me\n" + line(public) + b"\n"


async def test_new_addresses_replace_the_old_ones(sshd: OpenSSH) -> None:
    _, public = new_key()
    await add(sshd, line(public))
    await add(sshd, line(public, "127.0.0.1"))
    assert sshd.keys_file().read_bytes() == line(public, "127.0.0.1") + b"\n"


async def test_the_key_allows_commands_files_and_forwarding(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public, "127.0.0.1"))

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    async with connected(sshd, key) as connection, tcp_server(hello) as port:
        assert (await run(connection, Command(("id", "-un")), timeout_seconds=60)).stdout == b"alice\n"
        async with open_files(connection, timeout_seconds=60) as files:
            assert await files.home() == str(sshd.home())
        reader = asyncio.StreamReader()
        transport, _ = await open_tunnel(connection, "127.0.0.1", port, lambda: asyncio.StreamReaderProtocol(reader))
        assert await reader.readexactly(5) == b"hello"
        transport.abort()


async def test_the_key_allows_no_terminal(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public))
    async with connected(sshd, key) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process("tty", term_type="xterm")


async def test_the_key_allows_no_agent(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public))
    async with connected(sshd, key) as connection:
        result = await run(connection, Command(("sh", "-c", "echo agent=$SSH_AUTH_SOCK")), timeout_seconds=60)
    assert result.stdout == b"agent=\n"


async def test_the_key_is_worth_nothing_elsewhere(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public, "192.0.2.1"))
    assert await refused(sshd, key) == "ssh.key_refused"


async def test_a_key_whose_line_is_gone_is_refused(sshd: OpenSSH) -> None:
    key, public = new_key()
    await add(sshd, line(public))
    await remove(sshd, public)
    assert await refused(sshd, key) == "ssh.key_refused"


async def test_a_link_within_the_home_is_followed_and_stays(sshd: OpenSSH) -> None:
    _, public = new_key()
    write_keys(sshd, b"mine\n")
    sshd.keys_file().rename(sshd.home() / "keys")
    sshd.keys_file().symlink_to("../keys")
    await add(sshd, line(public))
    assert sshd.keys_file().is_symlink()
    assert (sshd.home() / "keys").read_bytes() == b"mine\n" + line(public) + b"\n"


@pytest.fixture
def elsewhere(sshd: OpenSSH) -> Path:
    """A folder outside every home, in which everybody may write."""
    folder = sshd.folder / "elsewhere"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    (folder / "authorized_keys").write_bytes(b"not yours\n")
    (folder / "authorized_keys").chmod(0o666)
    return folder


@pytest.mark.parametrize("linked", ["file", "folder"])
async def test_a_link_out_of_the_home_is_not_followed(sshd: OpenSSH, elsewhere: Path, linked: str) -> None:
    if linked == "file":
        write_keys(sshd, b"")
        sshd.keys_file().unlink()
        sshd.keys_file().symlink_to(elsewhere / "authorized_keys")
    else:
        sshd.keys_file().parent.symlink_to(elsewhere)
    with pytest.raises(RemoteFileError) as caught:
        await add(sshd, line(new_key()[1]))
    assert caught.value.code == "keys.elsewhere"
    assert (elsewhere / "authorized_keys").read_bytes() == b"not yours\n"


async def test_a_full_home_is_told(sshd: OpenSSH) -> None:
    with pytest.raises(RemoteFileError) as caught:
        await add(sshd, line(new_key()[1]), username="bob")
    assert caught.value.code == "file.full"


async def test_a_read_only_home_is_told(sshd: OpenSSH) -> None:
    sshd.home().chmod(0o500)
    with pytest.raises(RemoteFileError) as caught:
        await add(sshd, line(new_key()[1]))
    assert caught.value.code == "file.denied"


# passwords


async def test_a_stored_password_is_let_in_and_given_back(sshd: OpenSSH) -> None:
    accepted: list[float] = []

    async def borrow(cluster: object, username: str) -> LentPassword:
        return LentPassword(PASSWORD, lambda: accepted.append(time.monotonic()))

    async with connected(sshd, StoredPasswordCredential(borrow)) as connection:
        assert (await run(connection, Command(("id", "-un")), timeout_seconds=60)).stdout == b"alice\n"
    assert len(accepted) == 1


async def test_a_wrong_stored_password_is_tried_once(sshd: OpenSSH) -> None:
    accepted: list[float] = []

    async def borrow(cluster: object, username: str) -> LentPassword:
        return LentPassword("wrong", lambda: accepted.append(time.monotonic()))

    before = sshd.log.count("Failed password for alice")
    assert await refused(sshd, StoredPasswordCredential(borrow)) == "ssh.password_refused"
    assert (sshd.log.count("Failed password for alice") - before, accepted) == (1, [])


async def test_a_locked_account_is_refused_with_its_right_password(sshd: OpenSSH) -> None:
    sshd.lock()
    assert await refused(sshd, PasswordCredential(PASSWORD)) == "ssh.login_refused"
