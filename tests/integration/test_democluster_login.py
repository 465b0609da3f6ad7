"""The demonstration cluster's login host: who may log in, what a shell finds, files and tunnels."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.democluster.settings import DemoSettings
from tests.integration.demo_host import QUICK, DemoHost
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[asyncssh.SSHKey, Path]:
    """A certificate authority and its public key's file."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path_factory.mktemp("ca") / "ca.pub"
    path.write_bytes(key.export_public_key("openssh"))
    return key, path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, ca: tuple[asyncssh.SSHKey, Path]) -> Iterator[DemoHost]:
    """A cluster that trusts the authority."""
    root = tmp_path_factory.mktemp("login")
    host = DemoHost(DemoSettings(root=root, port=0, user_ca_public_key=ca[1], delays=QUICK))
    yield host
    host.stop()


@pytest.fixture
def host(running: DemoHost) -> Iterator[DemoHost]:
    """The same, mended after each test."""
    yield running

    async def mend() -> None:
        running.cluster.faults.clear()

    running.call(mend)


def _login(host: DemoHost, user: str, **options: object) -> None:
    async def go() -> None:
        async with await host.connect(user, **options):
            pass

    host.call(go)


def _certificate(ca: asyncssh.SSHKey, principals: list[str], *, valid_before: int | None = None) -> dict[str, object]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    certificate = ca.generate_user_certificate(
        key, "test", principals=principals, valid_before=valid_before or int(time.time()) + 60
    )
    return {"password": None, "client_keys": [(key, certificate)]}


def test_a_password_opens_its_own_account(host: DemoHost) -> None:
    assert host.run("echo $USER", user="bob").text == "bob\n"


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "bob-demo"), ("alice", ""), ("root", "alice-demo"), ("eve", "x")]
)
def test_a_wrong_password_opens_nothing(host: DemoHost, user: str, password: str) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        _login(host, user, password=password)


def test_a_certificate_of_the_trusted_authority_opens_its_principals_account(
    host: DemoHost, ca: tuple[asyncssh.SSHKey, Path]
) -> None:
    _login(host, "alice", **_certificate(ca[0], ["alice"]))


@pytest.mark.parametrize(
    ("user", "principals"), [("alice", ["bob"]), ("alice", []), ("root", ["root"]), ("alice", ["*"]), ("eve", ["eve"])]
)
def test_a_certificate_for_somebody_else_is_refused(
    host: DemoHost, ca: tuple[asyncssh.SSHKey, Path], user: str, principals: list[str]
) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        _login(host, user, **_certificate(ca[0], principals))


def test_an_expired_certificate_is_refused(host: DemoHost, ca: tuple[asyncssh.SSHKey, Path]) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    now = int(time.time())
    old = ca[0].generate_user_certificate(key, "old", principals=["alice"], valid_after=now - 60, valid_before=now - 1)
    with pytest.raises(asyncssh.PermissionDenied):
        _login(host, "alice", password=None, client_keys=[(key, old)])


def test_a_certificate_of_another_authority_is_refused(host: DemoHost) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        _login(host, "alice", **_certificate(other, ["alice"]))


def test_the_host_key_is_kept_private_and_the_same(host: DemoHost) -> None:
    path = host.settings.root / "etc" / "ssh_host_ed25519_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name(path.name + ".pub").read_text().startswith(host.cluster.host_public_key)


def test_a_command_runs_at_home_with_a_strict_umask_and_a_stock_path(host: DemoHost) -> None:
    async def go() -> list[str]:
        async with await host.connect() as connection:
            done = await connection.run("pwd; umask; echo $PATH; command -v qsub")
            return str(done.stdout).split("\n")

    home, umask, path, *rest = host.call(go)
    assert (home, umask, rest) == (str(host.home()), "0077", [""])
    assert "pbs" not in path


def test_a_login_shell_finds_the_commands(host: DemoHost) -> None:
    assert host.run("bash -lc 'command -v qsub'").text == f"{host.cluster.commands_folder}/qsub\n"


def test_a_signal_is_reported_as_one(host: DemoHost) -> None:
    async def go() -> tuple[str, ...]:
        async with await host.connect() as connection:
            done = await connection.run("kill -TERM $$")
            return tuple(str(part) for part in (done.exit_signal or ()))[:1]

    assert host.call(go) == ("TERM",)


def test_much_output_arrives_whole(host: DemoHost) -> None:
    assert len(host.run("head -c 5000000 /dev/zero").stdout) == 5_000_000


def test_hanging_up_ends_the_command(host: DemoHost) -> None:
    marker = host.home() / "pid"

    async def go() -> None:
        async with await host.connect() as connection:
            await connection.create_process(f"echo $$ >{marker}; sleep 600; echo")
            await asyncio.to_thread(wait_for, lambda: marker.exists() and marker.read_text().strip())

    host.call(go)
    pid = int(marker.read_text())
    marker.unlink()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the command survived its connection")


def test_unknown_modules_are_refused_as_environment_modules_does(host: DemoHost) -> None:
    done = host.run("bash -lc 'module load no/such'")
    assert done.exit_status == 1
    assert done.stderr.decode() == "ERROR: Unable to locate a modulefile for 'no/such'\n"


def test_a_known_module_brings_jupyter_first(host: DemoHost) -> None:
    import sys

    found = host.run("bash -lc 'module load anaconda/5.3.0; command -v jupyter'").text
    assert found == f"{Path(sys.executable).parent}/jupyter\n"


def test_the_stand_in_for_apptainer_runs_the_command_and_says_what_it_is(host: DemoHost) -> None:
    standin = host.settings.root / "standins" / "singularity"
    image = host.cluster.image_folder / "jupyter-demo.sif"
    done = host.run(f"{standin} exec --nv --bind /tmp:/data --pwd /tmp {image} sh -c 'pwd; exit 7'")
    assert (done.exit_status, done.text) == (7, "/tmp\n")
    assert b"stand-in" in done.stderr


def test_the_stand_in_for_apptainer_wants_an_image(host: DemoHost) -> None:
    standin = host.settings.root / "standins" / "apptainer"
    done = host.run(f"{standin} exec /no/such.sif true")
    assert done.exit_status == 255
    assert b"no such file" in done.stderr


# Files


def _sftp(host: DemoHost, name: str, *arguments: object, user: str = "alice") -> object:
    async def go() -> object:
        async with await host.connect(user) as connection, connection.start_sftp_client() as sftp:
            return await getattr(sftp, name)(*arguments)

    return host.call(go)


def test_files_come_and_go_at_home(host: DemoHost) -> None:
    async def go() -> tuple[str, int, list[str]]:
        async with await host.connect() as connection, connection.start_sftp_client() as sftp:
            await sftp.mkdir("box")
            async with sftp.open("box/a", "w") as file:
                await file.write("hello")
            mode = (await sftp.stat("box/a")).permissions or 0
            await sftp.chmod("box/a", 0o640)
            await sftp.rename("box/a", "box/b")
            async with sftp.open(f"{host.home()}/box/b") as file:
                text = await file.read()
            names = [str(name) for name in await sftp.listdir("box") if str(name) not in (".", "..")]
            await sftp.rmtree("box")
            return str(text), stat.S_IMODE(mode), names

    assert host.call(go) == ("hello", 0o600, ["b"])


def test_a_missing_file_is_called_missing(host: DemoHost) -> None:
    with pytest.raises(asyncssh.SFTPNoSuchFile):
        _sftp(host, "stat", "nothing")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("listdir", ["../bob"]),
        ("stat", ["../bob/.bash_profile"]),
        ("readlink", ["../bob/x"]),
        ("mkdir", ["../bob/new"]),
        ("remove", ["../bob/.bash_profile"]),
        ("rename", ["../bob/.bash_profile", "mine"]),
        ("posix_rename", [".bash_profile", "../bob/.bash_profile"]),
        ("chmod", ["../bob", 0o777]),
        ("rmdir", ["../alice"]),
        ("open", ["../../etc/ssh_host_ed25519_key", "rb"]),
        ("listdir", ["../../spool"]),
        ("open", ["../../pbs/run/x", "wb"]),
        ("open", ["/etc/shadow", "rb"]),
        ("open", ["/etc/new", "wb"]),
        ("remove", ["/etc/hostname"]),
    ],
)
def test_what_belongs_to_others_is_denied(host: DemoHost, name: str, arguments: list[object]) -> None:
    (host.home("bob") / ".bash_profile").touch()
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        _sftp(host, name, *arguments)


def test_a_link_out_of_the_home_opens_nothing(host: DemoHost) -> None:
    secret = host.home("bob") / "secret"
    secret.write_text("bob's")
    link = host.home() / "link"
    link.symlink_to(secret)
    folder = host.home() / "linked-folder"
    folder.symlink_to(host.home("bob"))
    try:
        for path in ("link", "linked-folder/secret"):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                _sftp(host, "open", path, "rb")
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            _sftp(host, "open", "linked-folder/new", "wb")
        assert not (host.home("bob") / "new").exists()
    finally:
        link.unlink()
        folder.unlink()


def test_a_dangling_link_does_not_create_a_file_elsewhere(host: DemoHost) -> None:
    link = host.home() / "dangling"
    link.symlink_to(host.home("bob") / "planted")
    try:
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            _sftp(host, "open", "dangling", "wb")
        assert not (host.home("bob") / "planted").exists()
    finally:
        link.unlink()


def test_a_named_pipe_cannot_block_the_server(host: DemoHost) -> None:
    pipe = host.home() / "pipe"
    os.mkfifo(pipe)
    try:
        with pytest.raises(asyncssh.SFTPError):
            _sftp(host, "open", "pipe", "rb")
    finally:
        pipe.unlink()


def test_the_image_library_can_be_read_and_not_changed(host: DemoHost) -> None:
    images = host.cluster.image_folder
    assert "jupyter-demo.sif" in _sftp(host, "listdir", str(images))
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        _sftp(host, "remove", str(images / "jupyter-demo.sif"))


def test_a_full_home_takes_nothing_more(host: DemoHost) -> None:
    host.fault("home_full", "alice")
    for name, arguments in (("mkdir", ["more"]), ("open", ["more", "wb"])):
        with pytest.raises(asyncssh.SFTPFailure, match="No space left"):
            _sftp(host, name, *arguments)
    _sftp(host, "mkdir", "more", user="bob")


# Tunnels


def _echo(host: DemoHost, dest: str) -> bytes:
    async def go() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, await host.connect() as connection:
            reader, writer = await connection.open_connection(dest, port, encoding=None)
            writer.write(b"ping\n")
            line = await reader.readline()
            writer.close()
            return bytes(line)

    return host.call(go)


@pytest.mark.parametrize("dest", ["demo-node01", "demo-node02", "127.0.0.1", "localhost"])
def test_a_tunnel_reaches_a_node(host: DemoHost, dest: str) -> None:
    assert _echo(host, dest) == b"ping\n"


@pytest.mark.parametrize("dest", ["192.0.2.1", "example.org", "demo-node03", "0.0.0.0", "::"])  # noqa: S104  # asked for, not bound
def test_a_tunnel_leads_nowhere_else(host: DemoHost, dest: str) -> None:
    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        _echo(host, dest)
    assert refused.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED


def test_a_tunnel_to_a_closed_port_fails_to_connect(host: DemoHost) -> None:
    async def go() -> None:
        async with await host.connect() as connection:
            await connection.open_connection("demo-node01", 1)

    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        host.call(go)
    assert refused.value.code == asyncssh.OPEN_CONNECT_FAILED


def test_a_tunnel_to_a_node_that_is_down_fails_and_open_ones_break(host: DemoHost) -> None:
    async def go() -> bytes:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, await host.connect() as connection:
            reader, _ = await connection.open_connection("demo-node01", port, encoding=None)
            host.cluster.faults.set("node_down", "demo-node01")
            rest = bytes(await asyncio.wait_for(reader.read(), 10))
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("demo-node01", port)
            return rest

    assert host.call(go) == b""


def test_a_login_host_that_is_gone_comes_back(host: DemoHost) -> None:
    port = host.cluster.port
    host.run("true")
    host.fault("login", "gone")
    with pytest.raises((OSError, asyncssh.Error)):
        _login(host, "alice")
    host.fault("login", "ok")

    def is_back() -> bool:
        try:
            _login(host, "alice")
        except (OSError, asyncssh.Error):
            return False
        return True

    wait_for(is_back)
    assert host.cluster.port == port
