"""Answers the PBS commands on a Unix socket, and misbehaves there when a fault says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from launcher.democluster.faults import QsubAnswer, SchedulerFault
from launcher.democluster.pbs.calls import Answer, Call
from launcher.democluster.pbs.jobcommands import qalter, qdel, qhold, qrls, qselect
from launcher.democluster.pbs.pbsnodes import pbsnodes
from launcher.democluster.pbs.qstat import qstat
from launcher.democluster.pbs.qsub import qsub
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.pbs.surroundings import IDENTITY_VARIABLE, MARK_VARIABLE
from launcher.democluster.settings import Account, DemoSettings

COMMANDS: Mapping[str, Callable[[Call, Scheduler], Awaitable[Answer]]] = {
    "qsub": qsub,
    "qstat": qstat,
    "qdel": qdel,
    "qselect": qselect,
    "qalter": qalter,
    "qhold": qhold,
    "qrls": qrls,
    "pbsnodes": pbsnodes,
}
_LARGEST_REQUEST_BYTES = 8 << 20
_LARGEST_STDIN_BYTES = 64 << 20


class Identities:
    """A secret per account that tells whose process a command is. All processes share one uid here."""

    def __init__(self, settings: DemoSettings) -> None:
        self._secrets = {account.name: secrets.token_hex(16) for account in settings.accounts}
        self._accounts = {self._secrets[account.name]: account for account in settings.accounts}
        self.mark = secrets.token_hex(16)

    def of(self, name: str) -> dict[str, str]:
        """The variables that every process of an account carries."""
        return {IDENTITY_VARIABLE: self._secrets.get(name, ""), MARK_VARIABLE: self.mark}

    def account(self, secret: str) -> Account | None:
        """The account of a secret."""
        return self._accounts.get(secret)


class Service:
    """The socket ``pbs/run/socket`` below the cluster's folder."""

    def __init__(self, scheduler: Scheduler, identities: Identities, lose_connections: Callable[[str], None]) -> None:
        self.scheduler = scheduler
        self.identities = identities
        self._lose_connections = lose_connections
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def folder(self) -> Path:
        """Where the socket is."""
        return self.scheduler.settings.root / "pbs" / "run"

    async def start(self) -> None:
        """Listen."""
        listener = bound_socket(self.folder)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)

    async def stop(self) -> None:
        """Drop every command that still waits."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server:
            await self._server.wait_closed()
        (self.folder / "socket").unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the command went away, or was no command of ours
        except asyncio.CancelledError:
            pass  # the cluster stops
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults = self.scheduler.faults
        request = await _read_frame(reader, _LARGEST_REQUEST_BYTES)

        async def read_stdin() -> bytes:
            writer.write(_frame(b"I", b""))
            return await _read_frame(reader, _LARGEST_STDIN_BYTES)

        if faults.scheduler is SchedulerFault.DOWN:
            writer.write(_frame(b"D", b""))
            return
        if faults.scheduler is SchedulerFault.HUNG:
            gone = asyncio.ensure_future(reader.read(1))  # a client that gives up ends the wait as well
            healed = asyncio.ensure_future(faults.until_not(SchedulerFault.HUNG))
            await asyncio.wait({gone, healed}, return_when=asyncio.FIRST_COMPLETED)
            for waiting in (gone, healed):
                waiting.cancel()
            if gone.done() and not gone.cancelled():
                return
        if faults.scheduler is SchedulerFault.SLOW:
            await asyncio.sleep(self.scheduler.settings.delays.slow_seconds)
        call = self._call(request, read_stdin)
        answer = await COMMANDS[call.command](call, self.scheduler) if call else _stranger()
        if call and call.command == "qsub" and answer.exit_code == 0:
            if faults.qsub_answer is QsubAnswer.LOST:
                writer.write(_frame(b"K", b""))
                return
            if faults.qsub_answer is QsubAnswer.LOST_CONNECTION:
                self._lose_connections(call.user.name)
                return
        stdout = garbled(answer.stdout) if faults.scheduler is SchedulerFault.GARBLED else answer.stdout
        writer.write(_frame(b"O", stdout) + _frame(b"E", answer.stderr))
        writer.write(_frame(b"X", str(answer.exit_code).encode()))
        await writer.drain()

    def _call(self, request: bytes, read_stdin: Callable[[], Awaitable[bytes]]) -> Call | None:
        """The request in our words. Raises ValueError on nonsense."""
        command, folder, count, *rest = request.decode("utf-8", "surrogateescape").split("\0")
        if command not in COMMANDS or not 0 <= int(count) <= len(rest) or not folder.startswith("/"):
            raise ValueError("not a request of our client")
        environment = dict(item.split("=", 1) for item in rest[int(count) :] if "=" in item)
        user = self.identities.account(environment.pop(IDENTITY_VARIABLE, ""))
        if user is None:
            return None
        return Call(command, tuple(rest[: int(count)]), folder, user, environment, read_stdin)


def _stranger() -> Answer:
    return Answer(
        159, stderr=b"Unauthorized Request: this process does not belong to an account of the demonstration\n"
    )


def garbled(stdout: bytes) -> bytes:
    """Half of an answer with other bytes in it, as a broken wrapper or a dying server leaves it."""
    half = stdout[: max(1, len(stdout) // 2)]
    return b"\x00\xfe<<" + half.replace(b"e", b"\xff").replace(b"1", b"l")


def _frame(kind: bytes, payload: bytes) -> bytes:
    return kind + b"%08x" % len(payload) + payload


async def _read_frame(reader: asyncio.StreamReader, limit: int) -> bytes:
    length = int(await reader.readexactly(8), 16)
    if not 0 <= length <= limit:
        raise ValueError("too long")
    return await reader.readexactly(length)


def bound_socket(folder: Path) -> socket.socket:
    """A listening socket called ``socket`` in a private folder, however long the folder's path is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "socket").unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
    finally:
        os.close(descriptor)
    (folder / "socket").chmod(0o600)
    listener.setblocking(False)
    return listener
