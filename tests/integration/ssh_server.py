"""A real SSH server in the test process, and other peers that misbehave: what the tests of ``launcher.ssh``
talk to.

``login_host`` runs commands with /bin/sh as the account that runs the tests, with a folder of the test as
everybody's home, and forwards TCP. ``silent_host`` accepts and says nothing. ``free_port`` is one where
nobody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from launcher.clusters import Cluster
from launcher.demo import ports
from launcher.ssh.ca import UserCA, create_user_ca, load_user_ca
from launcher.ssh.credentials import CertificateCredential

PASSWORD = "correct horse battery"
DEADLINE_SECONDS = 60.0


@dataclass
class LoginHost:
    """A running server and what it saw."""

    home: Path
    port: int = 0
    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    passwords_tried: list[str] = field(default_factory=list)
    usernames: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    forwarding: bool = True
    hold_forwarding: asyncio.Event | None = None  # a request to forward waits for it
    held_forwarding: int = 0  # how many have waited, or still do
    auth_methods: tuple[str, ...] = ("publickey", "password")
    prompts: tuple[tuple[str, bool], ...] = (("Password: ", False),)
    password_expired: bool = False
    let_everybody_in: bool = False
    commands_print: bytes = b""  # instead of running, whatever the command
    user_number: int = 1234  # of every account; the shells run as whoever runs the tests
    sftp_faults: dict[str, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def key_line(self) -> str:
        return self.key.export_public_key("openssh").decode().strip()

    def drop_connections(self) -> None:
        """Break every connection without a word."""
        for connection in self.connections:
            connection.abort()


class _Server(asyncssh.SSHServer):
    def __init__(self, host: LoginHost, ca: UserCA) -> None:
        self._host = host
        self._ca = ca
        self._asked = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._host.connections.append(conn)
        for name in ("create_tcp_channel", "create_unix_channel"):
            setattr(conn, name, partial(_bounded, getattr(conn, name)))

    def begin_auth(self, username: str) -> bool:
        self._host.usernames.append(username)
        return not self._host.let_everybody_in

    def public_key_auth_supported(self) -> bool:
        return "publickey" in self._host.auth_methods

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.public_data == self._ca.key.public_data

    def password_auth_supported(self) -> bool:
        return "password" in self._host.auth_methods

    def validate_password(self, username: str, password: str) -> bool:
        self._host.passwords_tried.append(password)
        if self._host.password_expired:
            raise asyncssh.PasswordChangeRequired("Your password has expired")
        return password == PASSWORD

    def kbdint_auth_supported(self) -> bool:
        return "keyboard-interactive" in self._host.auth_methods

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", list(self._host.prompts[:1])

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        self._host.passwords_tried += responses
        if list(responses) != [PASSWORD]:
            return False
        if len(self._host.prompts) > 1 and not self._asked:
            self._asked = True
            return "", "", "", list(self._host.prompts[1:])
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        if not self._host.forwarding:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
        if self._host.hold_forwarding is None:
            return True
        self._host.held_forwarding += 1
        return self._late(self._host.hold_forwarding, self._host.connections[-1], dest_host, dest_port)

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._host.forwarding

    @staticmethod
    async def _late(
        event: asyncio.Event, connection: asyncssh.SSHServerConnection, host: str, port: int
    ) -> asyncssh.SSHTCPSession[bytes]:
        await event.wait()
        return await connection.forward_connection(host, port)  # type: ignore[return-value] # as asyncssh does itself


def _bounded(create: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A channel that grants no more while it holds something, as sshd's. asyncssh grants a whole new window when the
    first of many held packets has gone, and so would hold most of a long upload to a slow server.
    """
    channel = create(*args, **options)
    deliver = channel._deliver_data

    def deliver_data(data: bytes, datatype: Any) -> None:
        window = channel._init_recv_window
        if channel._recv_buf:
            channel._init_recv_window = 0  # a window that is never half empty
        try:
            deliver(data, datatype)
        finally:
            channel._init_recv_window = window

    channel._deliver_data = deliver_data
    return channel


class _HomeSFTP(asyncssh.SFTPServer):
    """The real file system, relative paths below the home folder, and faults where the test wants them."""

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes], host: LoginHost) -> None:
        super().__init__(chan)
        self._host = host

    def map_path(self, path: bytes) -> bytes:
        return posixpath.join(os.fsencode(self._host.home), path)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        self._host.sftp_faults.get("write", lambda: None)()
        return super().write(file_obj, offset, data)

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self._host.sftp_faults.get("rename", lambda: None)()
        return super().rename(oldpath, newpath)

    async def stat(self, path: bytes) -> Any:
        fault = self._host.sftp_faults.get("stat_hangs")
        if fault:
            fault()
            await asyncio.Event().wait()
        return super().stat(path)


async def _handle(host: LoginHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run the command as sshd does: the status is sent when the shell ends, the channel closed when its
    output ends.

    Not asyncio's own subprocesses: they report the end only when nobody holds the output any more.
    """
    host.commands.append(process.command or "")
    command = f"echo {host.user_number}" if process.command == "id -u" else process.command or ""
    if host.commands_print:
        command = shlex.join(["echo", host.commands_print.decode()])
    shell = subprocess.Popen(  # noqa: ASYNC220 - it only starts the shell
        ["/bin/sh", "-c", command],
        cwd=host.home,
        env={"HOME": str(host.home), "PATH": os.environ["PATH"]},
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # asyncssh would hand a signal to whoever reads stdin next, and nobody does once it has ended.
    setattr(process, "signal_received", lambda name: os.killpg(shell.pid, {"TERM": 15, "KILL": 9}[name]))  # noqa: B010 - mypy allows no assignment
    transports, readers = [], []
    loop = asyncio.get_running_loop()
    for pipe in (shell.stdout, shell.stderr):
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), pipe)
        transports.append(transport)
        readers.append(reader)
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    stdin, _ = await loop.connect_write_pipe(lambda: protocol, shell.stdin)
    writer = asyncio.StreamWriter(stdin, protocol, None, loop)
    pumps = [
        asyncio.create_task(_pump(readers[0], process.stdout)),
        asyncio.create_task(_pump(readers[1], process.stderr)),
    ]
    feeding = asyncio.create_task(_pump(process.stdin, writer, close=True))
    try:
        await _ended(shell)
        status = shell.wait()
        if status < 0:
            process.exit_with_signal({-9: "KILL", -15: "TERM"}[status])
            return
        process.channel._send_request(b"exit-status", asyncssh.packet.UInt32(status))
        await asyncio.gather(*pumps)
        process.channel.close()
    finally:
        for task in (*pumps, feeding):
            task.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, 9)
        shell.wait()
        for transport in transports:
            transport.close()
        if not stdin.is_closing():
            stdin.abort()


async def _ended(shell: subprocess.Popen[bytes]) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(shell.pid)
    loop.add_reader(descriptor, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _pump(source: Any, sink: Any, *, close: bool = False) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    if close:
        sink.close()


@asynccontextmanager
async def login_host(home: Path, ca: UserCA, **options: Any) -> AsyncIterator[LoginHost]:
    """Start a server; ``options`` are fields of LoginHost."""
    host = LoginHost(home, **options)
    server = await asyncssh.create_server(
        lambda: _Server(host, ca),
        "127.0.0.1",
        host.port,
        server_host_keys=[host.key],
        process_factory=lambda process: _handle(host, process),
        sftp_factory=lambda channel: _HomeSFTP(channel, host),
        encoding=None,
        login_timeout=DEADLINE_SECONDS,
    )
    host.port = server.get_port()
    try:
        yield host
    finally:
        server.close()
        host.drop_connections()
        await server.wait_closed()
        for connection in host.connections:
            await connection.wait_closed()
        for _ in range(5):  # aborted transports close their sockets in the loop's next turns
            await asyncio.sleep(0)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def tcp_server(talk: Talk) -> AsyncIterator[int]:
    """The port of a TCP server that talks like ``talk``. At the end every conversation is cancelled and
    closed.
    """
    conversations: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            conversations.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in conversations:
            task.cancel()
        if conversations:
            await asyncio.wait(set(conversations))


@asynccontextmanager
async def silent_host() -> AsyncIterator[int]:
    """The port of something that accepts connections and never says a word."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    async with tcp_server(talk) as port:
        yield port


def free_port() -> int:
    """A port where nobody listens."""
    return ports.free_port()


def make_ca(folder: Path) -> UserCA:
    """A new CA in ``folder``."""
    create_user_ca(folder / "user_ca")
    return load_user_ca(folder / "user_ca")


def credential(ca: UserCA) -> CertificateCredential:
    """What the portal signs in with."""
    return CertificateCredential(ca, portal_name="test portal")


def cluster_of(*hosts: LoginHost | int, **options: Any) -> Cluster:
    """A cluster whose login hosts are these servers, or ports of 127.0.0.1."""
    servers = [host for host in hosts if isinstance(host, LoginHost)]
    keys = [server.key_line for server in servers] or [
        asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().strip()
    ]
    values: dict[str, Any] = {
        "id": "hpc",
        "name": "Test cluster",
        "login_hosts": [host.address if isinstance(host, LoginHost) else f"127.0.0.1:{host}" for host in hosts],
        "host_keys": keys,
        "queues": [{"name": "batch"}],
        "connect_timeout_seconds": 5,
        "command_timeout_seconds": 5,
    }
    return Cluster.model_validate({**values, **options})
