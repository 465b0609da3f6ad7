"""The login host: who may log in, and where tunnels may lead. One ``LoginServer`` per connection."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Coroutine
from typing import Any

import asyncssh
from asyncssh.forward import SSHForwarder

from launcher.democluster.environment import NOTICE
from launcher.democluster.faults import Faults
from launcher.democluster.faults import Login as LoginFault
from launcher.democluster.login import Login
from launcher.democluster.settings import DemoSettings
from launcher.democluster.sftp import sftp_factory

_JOB_SOCKET = re.compile(r"/[A-Za-z0-9._+=@,/-]*/fb\.[A-Za-z0-9]{8}/server\.sock")


class LoginServer(asyncssh.SSHServer):
    """Checks passwords and certificates, and opens tunnels to the nodes, all of which are this machine."""

    def __init__(self, host: LoginHost) -> None:
        self._host = host
        self._connection: asyncssh.SSHServerConnection | None = None
        self.username = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """A connection comes."""
        self._connection = conn
        self._host.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        if self._connection:
            self._host.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        """Everybody has to prove who they are. Only known accounts have a certificate rule."""
        connection = self._connection
        if connection is None:
            raise asyncssh.PermissionDenied("no connection")
        self.username = username
        connection.send_auth_banner(NOTICE + "\n")
        if self._host.settings.account(username) and self._host.user_ca:
            # The pattern is the account's name, so a certificate without principals opens nothing either,
            # as with TrustedUserCAKeys of OpenSSH.
            line = f'cert-authority,principals="{username}" {self._host.user_ca}'
            connection.set_authorized_keys(asyncssh.import_authorized_keys(line))
        return True

    def password_auth_supported(self) -> bool:
        """Yes."""
        return True

    def validate_password(self, username: str, password: str) -> bool:
        """The demonstration's own passwords."""
        account = self._host.settings.account(username)
        wanted = account.password if account else "no such account"
        same = hmac.compare_digest(wanted.encode(), password.encode("utf-8", "surrogateescape"))
        return same and account is not None

    def connection_requested(  # type: ignore[override]  # asyncssh awaits it and takes its own forwarder
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Coroutine[Any, Any, SSHForwarder]:
        """A tunnel. Names of nodes and loopback addresses lead to this machine, nothing else anywhere."""
        node = dest_host if any(node.name == dest_host for node in self._host.settings.nodes) else ""
        if not node and not _is_loopback(dest_host):
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
                "This demonstration leads nowhere but to its own nodes",
            )
        if node in self._host.faults.nodes_down:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "No route to host")
        return self._tunnel(node, "::1" if dest_host == "::1" else "127.0.0.1", dest_port)

    async def _tunnel(self, node: str, address: str, port: int) -> SSHForwarder:
        if self._connection is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "The connection has gone")
        forwarder = await self._connection.forward_connection(address, port)
        if node:
            self._host.add_tunnel(node, forwarder)
        return forwarder

    def unix_connection_requested(self, dest_path: str) -> bool:
        """A tunnel to a socket that a job has made: all nodes are this machine, and the login host plays them."""
        if not _JOB_SOCKET.fullmatch(dest_path):
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "This demonstration leads to sockets of jobs only"
            )
        return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LoginHost:
    """The listener and all connections."""

    def __init__(self, settings: DemoSettings, faults: Faults, login: Login, key: asyncssh.SSHKey) -> None:
        self.settings = settings
        self.faults = faults
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.user_ca = ""
        if settings.user_ca_public_key is not None:
            self.user_ca = settings.user_ca_public_key.read_text(encoding="utf-8").strip()
        self.port = settings.port
        self._login = login
        self._key = key
        self._listener: asyncssh.SSHAcceptor | None = None
        self._tunnels: dict[str, set[SSHForwarder]] = {}
        self._change: asyncio.Task[None] | None = None
        faults.on_change.append(self._fault_changed)

    async def listen(self) -> None:
        """Accept connections. Raises OSError when the port is taken."""
        self._listener = await asyncssh.listen(
            self.settings.address,
            self.port,
            server_factory=lambda: LoginServer(self),
            server_host_keys=[self._key],
            process_factory=self._login,
            sftp_factory=sftp_factory(self.settings, self.faults),
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            allow_pty=False,
            x11_forwarding=False,
            server_version="FootbridgeDemo",
            login_timeout=30,
            reuse_address=True,
        )
        self.port = self._listener.get_port()

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener:
            self._listener.close()
            await self._listener.wait_closed()
            self._listener = None
        connections = list(self.connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in connections), return_exceptions=True)

    async def stop(self) -> None:
        """The end."""
        if self._change:
            await asyncio.gather(self._change, return_exceptions=True)
        await self.close()

    def drop_user(self, username: str) -> None:
        """Break the connections of one user without a goodbye."""
        for connection in list(self.connections):
            if connection.get_extra_info("username") == username:
                connection.abort()

    def add_tunnel(self, node: str, forwarder: SSHForwarder) -> None:
        """Remember a tunnel, to break it when its node goes down."""
        open_now = {tunnel for tunnel in self._tunnels.get(node, ()) if tunnel.get_extra_info("peername")}
        self._tunnels[node] = {*open_now, forwarder}

    def _fault_changed(self, name: str, _value: str) -> None:
        if name == "node_down":
            for node in self.faults.nodes_down:
                for forwarder in self._tunnels.pop(node, ()):
                    forwarder.close()
        if name == "login":
            previous = self._change
            self._change = asyncio.get_running_loop().create_task(self._follow_login(previous))

    async def _follow_login(self, previous: asyncio.Task[None] | None) -> None:
        if previous:
            await asyncio.gather(previous, return_exceptions=True)
        gone = self.faults.login is LoginFault.GONE
        if gone and self._listener:
            await self.close()
        elif not gone and self._listener is None:
            await self.listen()
