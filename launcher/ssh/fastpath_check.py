"""Whether the fast path can be trusted in this process: the version of asyncssh, then a trial with a real peer.

The trial is a conversation with asyncssh's own server over loopback, with key exchanges in the middle of it: every byte
must come back, the fast path must have carried it, and a packet that was changed must end the connection. It takes
some hundredths of a second and is done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from launcher.ssh import fastpath
from launcher.ssh.fastpath import TunedConnection

log = logging.getLogger(__name__)

_TRIAL_SECONDS = 20.0
_REKEY_BYTES = 48 * 1024
_TRIAL_BYTES = 256 * 1024
_PIECES = (1, 7, 100, 2048, 32768, 40000, 100)

_verdict: str | None = None


async def problem() -> str:
    """Why the fast path is not to be used in this process; empty when it may be. Found out once, then remembered."""
    global _verdict
    if _verdict is None:
        found = await find_problem()
        if found and _verdict is None:
            log.warning("SSH connections are used without the fast path: %s", found)
        _verdict = found
    return _verdict


def is_proven() -> bool:
    """Whether ``problem`` has been asked in this process and has found none."""
    return _verdict == ""


async def find_problem() -> str:
    """As ``problem``, found out anew. Never raises."""
    if asyncssh.__version__ not in fastpath.TESTED_VERSIONS:
        return f"asyncssh {asyncssh.__version__} is not among the versions it was tested with"
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            await _try_a_conversation()
            await _try_a_changed_packet()
    except Exception as error:  # whatever it is, the fast path is not what it should be
        return f"its trial failed: {type(error).__name__}: {error}"
    return ""


class _TrialFailed(Exception):
    """What came out was not what should."""


class _Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> asyncssh.SSHTCPSession[bytes]:
        return _Echo()


class _Echo(asyncssh.SSHTCPSession[bytes]):
    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._channel.write(data)


class _Listener(asyncssh.SSHTCPSession[bytes]):
    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._received = bytearray()
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._received += data
        if len(self._received) >= self._wanted and not self.done.done():
            self.done.set_result(bytes(self._received))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or _TrialFailed("the channel was closed"))


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on this machine; asyncssh wants sockets that have addresses."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, address = listener.accept()
    if address != ours.getsockname():
        ours.close()
        theirs.close()
        raise _TrialFailed("somebody else came first")
    return ours, theirs


@asynccontextmanager
async def _tuned() -> AsyncIterator[TunedConnection]:
    """A tuned connection to a server in this process."""
    ours, theirs = _socket_pair()
    serving = asyncio.ensure_future(
        asyncssh.run_server(
            theirs,
            config=None,
            server_factory=_Server,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            rekey_bytes=_REKEY_BYTES,
        )
    )
    connection: asyncssh.SSHClientConnection | None = None
    try:
        connection = await asyncssh.run_client(
            ours,
            config=None,
            known_hosts=None,  # the peer is this process
            username="trial",
            agent_path=None,
            client_keys=None,
            encryption_algs=["aes128-gcm@openssh.com"],
            rekey_bytes=_REKEY_BYTES,
        )
        if not fastpath.tune(connection):
            raise _TrialFailed("a connection could not be tuned")
        assert isinstance(connection, TunedConnection)
        yield connection
    finally:
        serving.add_done_callback(_end)
        if connection is None:
            serving.cancel()
            ours.close()
        else:
            connection.abort()
            with contextlib.suppress(asyncssh.Error, OSError):
                await connection.wait_closed()
        with contextlib.suppress(asyncssh.Error, OSError, asyncio.CancelledError):
            (await serving).abort()


def _end(serving: asyncio.Future[asyncssh.SSHServerConnection]) -> None:
    if not serving.cancelled() and serving.exception() is None:
        serving.result().abort()


async def _try_a_conversation() -> None:
    data = random.Random(1).randbytes(_TRIAL_BYTES)  # noqa: S311 - the same bytes every time are wanted
    async with _tuned() as connection:
        session = _Listener(len(data))
        channel, _ = await connection.create_connection(lambda: session, "trial", 1, encoding=None)
        write = fastpath.writer(channel)
        first_keys = (connection._send_encryption, connection._recv_encryption)
        at, turn = 0, 0
        while at < len(data):
            size = _PIECES[turn % len(_PIECES)]
            write(memoryview(data)[at : at + size])
            at, turn = at + size, turn + 1
            await asyncio.sleep(0)
        if await session.done != data:
            raise _TrialFailed("other bytes came back")
        if not connection.tuned_packets_sent or not connection.tuned_packets_received:
            raise _TrialFailed("nothing went the fast way")
        if connection._send_encryption is first_keys[0] or connection._recv_encryption is first_keys[1]:
            raise _TrialFailed("no keys were exchanged")


async def _try_a_changed_packet() -> None:
    async with _tuned() as connection:
        session = _Listener(1)
        await connection.create_connection(lambda: session, "trial", 1, encoding=None)
        connection.data_received(b"\0\0\0\x20" + bytes(48))
        try:
            await session.done
        except asyncssh.MACError:
            return
        raise _TrialFailed("a packet that was changed was taken")
