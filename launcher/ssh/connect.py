"""One authenticated connection to one of a cluster's login hosts, with nothing taken from this machine's
~/.ssh.

Called by the pool, and by the password check. Whatever goes wrong comes out as an error of
``launcher.ssh.errors``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import asyncssh

from launcher.clusters import Cluster
from launcher.ssh.credentials import Credential, PasswordClient, check_username
from launcher.ssh.errors import HostKeyChanged, Interrupted, LoginRefused, SSHError, TimedOut, Unreachable
from launcher.ssh.guarded import GuardedClient

log = logging.getLogger(__name__)

# AES-GCM first: with hardware support it moves twice as much as ChaCha20, asyncssh's own first choice. The
# rest is for old login hosts.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)

_SETTLE_SECONDS = 5.0
_LOGIN_HOST = "footbridge_login_host"

# Applied last, so that no credential can loosen them. Every None or empty list keeps asyncssh from looking
# into the service account's own ~/.ssh, its agent, or its Kerberos tickets.
_FIXED_OPTIONS: Mapping[str, object] = {
    "config": None,
    "agent_path": None,
    "agent_forwarding": False,
    "pkcs11_provider": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    "x11_forwarding": False,
    "gss_host": None,
    "gss_auth": False,
    "gss_kex": False,
    "host_based_auth": False,
    "disable_trivial_auth": True,  # a host that lets everybody in has not checked the password
    "encryption_algs": CIPHERS,
    "compression_algs": None,
    "keepalive_interval": 15,
    "keepalive_count_max": 3,
}

_NO_LOGIN: Mapping[str, object] = {
    "client_factory": GuardedClient,
    "client_keys": None,
    "public_key_auth": False,
    "password_auth": False,
    "kbdint_auth": False,
}


class _NoPacketDumps(logging.Filter):
    """Drops what asyncssh logs at its debug level 3: whole packets, with passwords and session secrets in
    clear.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not hasattr(record, "packet")


_no_packet_dumps = _NoPacketDumps()


def split_host(login_host: str) -> tuple[str, int]:
    """Host and port of an entry of ``Cluster.login_hosts``: ``name``, ``name:2222``, ``[::1]:2222``."""
    if login_host.startswith("["):
        host, _, port = login_host[1:].partition("]")
        return host, int(port.removeprefix(":") or 22)
    host, _, port = login_host.partition(":")
    return host, int(port or 22)


async def connect(
    cluster: Cluster, username: str, credential: Credential, *, reason: str, patience_seconds: float = 0
) -> asyncssh.SSHClientConnection:
    """A connection as ``username``, to the first login host that answers, in the order of the clusters file.

    The next host is tried only where the last one was not there or did not answer (a transient error). A
    refused login or a wrong host key ends the search, and so does a break after a password was handed over:
    another attempt would count at the cluster's lockout, or hide an attack. Every host gets
    ``cluster.connect_timeout_seconds``, for the TCP connection and once more for the login. While a person is
    asked on the way (``PasswordClient``) that clock stands still, for ``patience_seconds`` at most in all.

    Raises Unreachable, TimedOut, Interrupted, LoginRefused, HostKeyChanged, SSHError.
    """
    check_username(username)
    for name in ("asyncssh", "asyncssh.sftp"):
        logging.getLogger(name).addFilter(_no_packet_dumps)
    host_keys = _host_keys(cluster)
    for position, login_host in enumerate(cluster.login_hosts, start=1):
        try:
            options = await credential.options(cluster, username, reason)
            connection = await _connect_to(cluster, login_host, username, options, host_keys, patience_seconds)
        except SSHError as error:
            if error.code == LoginRefused.code:
                raise credential.refused(error.detail, params=error.params) from error
            if not error.transient or isinstance(error, Interrupted) or position == len(cluster.login_hosts):
                raise
            log.warning(
                "Login host %s of %s does not answer, trying the next: %s",
                login_host,
                cluster.id,
                error.detail,
            )
        else:
            connection.set_extra_info(**{_LOGIN_HOST: login_host})
            await settle(connection)
            return connection
    raise Unreachable(f"{cluster.id} has no login host")


def login_host_of(connection: asyncssh.SSHClientConnection) -> str:
    """The entry of ``Cluster.login_hosts`` that a connection made by ``connect`` leads to."""
    return str(connection.get_extra_info(_LOGIN_HOST, ""))


def login_options(options: Mapping[str, object], *, username: str, timeout_seconds: float) -> dict[str, object]:
    """A credential's ``options``, with those that no credential may loosen."""
    return {**_NO_LOGIN, **options, **_FIXED_OPTIONS, "username": username, "login_timeout": timeout_seconds}


async def _connect_to(
    cluster: Cluster,
    login_host: str,
    username: str,
    options: Mapping[str, object],
    host_keys: tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]],
    patience_seconds: float,
) -> asyncssh.SSHClientConnection:
    host, port = split_host(login_host)
    timeout_seconds = cluster.connect_timeout_seconds
    clients: list[asyncssh.SSHClient] = []
    make_client = cast(Callable[[], asyncssh.SSHClient], options.get("client_factory", GuardedClient))

    def client_factory() -> asyncssh.SSHClient:
        clients.append(client := make_client())
        if isinstance(client, PasswordClient):
            client.clock = clock
        return client

    sock = await _dial(host, port, cluster.connect_timeout_seconds)
    try:
        async with asyncio.timeout(timeout_seconds) as clock:
            return await asyncssh.connect(
                host,
                port,
                sock=sock,
                **{
                    **login_options(options, username=username, timeout_seconds=timeout_seconds + patience_seconds),
                    "client_factory": client_factory,
                    "known_hosts": host_keys,
                },
            )
    except TimeoutError:
        words = f"{login_host} accepted a connection and then said nothing for {timeout_seconds:g} s"
        raise (Interrupted(words) if _has_answered(clients) else TimedOut(words)) from None
    except (asyncssh.Error, OSError, ValueError) as error:
        asked = [client for client in clients if isinstance(client, PasswordClient)]
        trouble = next((client.trouble for client in asked if client.trouble), None)
        if trouble is not None:
            raise trouble from None
        expired = any(client.must_change_password for client in asked)
        outcome = translated(error, login_host, expired=expired)
        if outcome.transient and _has_answered(clients):
            raise Interrupted(outcome.detail) from None
        raise outcome from None
    finally:
        # Once a client exists the socket belongs to asyncssh's transport, which closes it; until then it is
        # ours.
        if sock.fileno() != -1 and not clients:
            sock.close()


def _has_answered(clients: Iterable[asyncssh.SSHClient]) -> bool:
    return any(isinstance(client, PasswordClient) and client.has_answered for client in clients)


async def _dial(host: str, port: int, timeout_seconds: float) -> socket.socket:
    """A TCP connection. Raises Unreachable, also where packets vanish: no host answered, so another may be
    tried.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Unreachable(f"the name {host} was not resolved within {timeout_seconds:g} s") from None
    except OSError as error:
        raise Unreachable(f"{host}: {_words(error)}") from None
    problem = "no address"
    share_seconds = timeout_seconds / max(1, len(addresses))
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(share_seconds):
                await loop.sock_connect(sock, address)
        except TimeoutError:
            sock.close()
            problem = f"no answer within {share_seconds:g} s"
        except OSError as error:
            sock.close()
            problem = _words(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise Unreachable(f"{host}, port {port}: {problem}")


async def settle(connection: asyncssh.SSHClientConnection) -> None:
    """Run one command that does nothing.

    OpenSSH's sshd switches Nagle's algorithm off only once a command has been started; a connection that does
    nothing but forward would stall for 40 ms again and again. A failure does not matter: whoever uses the
    connection will meet it.
    """
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            await connection.run("true", stdin=asyncssh.DEVNULL, stdout=asyncssh.DEVNULL, stderr=asyncssh.DEVNULL)


def _host_keys(
    cluster: Cluster,
) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """Trusted keys, trusted authorities and revoked keys (none), as asyncssh takes them for any host."""
    return (
        public_keys(cluster.id, "host_keys", cluster.host_keys),
        public_keys(cluster.id, "host_ca_keys", cluster.host_ca_keys),
        [],
    )


def public_keys(cluster_id: str, name: str, lines: Iterable[str]) -> list[asyncssh.SSHKey]:
    keys = []
    for number, line in enumerate(lines, start=1):
        try:
            keys.append(asyncssh.import_public_key(line))
        except asyncssh.KeyImportError:
            raise SSHError(
                f"clusters.{cluster_id}.{name}: entry {number} is no public key like “ssh-ed25519 AAAA…”",
                code="ssh.bad_host_keys",
            ) from None
    return keys


def translated(error: Exception, login_host: str, *, expired: bool = False) -> SSHError:
    """Our error for one of asyncssh's or the system's while connecting. The words hold no secret."""
    words = f"{login_host}: {_words(error)}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyChanged(words, params={"login_host": str(login_host)})
    if isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in str(error).lower():
        # The host has no key of a kind that the clusters file names: the same finding, met one step earlier.
        return HostKeyChanged(words, params={"login_host": str(login_host)})
    if isinstance(error, (asyncssh.PermissionDenied, asyncssh.IllegalUserName)):
        return LoginRefused(words, code="ssh.password_expired" if expired else "")
    if isinstance(error, asyncssh.DisconnectError) and "authentication failures" in str(error):
        return LoginRefused(words)  # how sshd ends a login after MaxAuthTries
    if isinstance(error, (asyncssh.Error, OSError)):
        return Unreachable(words)
    return SSHError(words)


def _words(error: Exception) -> str:
    """The short form of an error, on one line."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio puts "Connect call failed" where the reason belongs
    text = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:200]
