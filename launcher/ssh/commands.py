"""Run one command on a login host and bring back what it said, as bytes, within limits of time and size.

Arguments are quoted here, once, for the login shell that sshd hands the line to. The environment travels in
the line too (``env NAME=value``), because sshd refuses environment requests by default: so neither may hold a
secret. Secrets belong into ``Command.stdin`` or a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex

import asyncssh

from launcher.schedulers.base import Command, CommandResult
from launcher.ssh.channels import session_opened, session_turn
from launcher.ssh.errors import SSHError, TimedOut, Unreachable

MAX_OUTPUT_BYTES = 32 * 1024 * 1024

_LINGER_SECONDS = 2.0

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class TooMuchOutputError(SSHError):
    """The command printed more than we are ready to hold."""

    code = "ssh.too_much_output"


def command_line(command: Command) -> str:
    """``command`` as one line for a POSIX shell, every value quoted. Raises ValueError for what no shell
    can carry.
    """
    if not command.argv or not command.argv[0]:
        raise ValueError("a command needs a name")
    words = list(command.argv)
    if command.dies_after_seconds:
        words = ["timeout", "-s", "KILL", f"{command.dies_after_seconds:g}", *words]
    if command.environment:
        for name in command.environment:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name for an environment variable")
        words = ["env", *(f"{name}={value}" for name, value in command.environment.items()), *words]
    line = shlex.join(words)
    if "\0" in line:
        raise ValueError("a NUL byte cannot be passed to a command")
    return line


async def run(
    connection: asyncssh.SSHClientConnection,
    command: Command,
    *,
    timeout_seconds: float,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> CommandResult:
    """Run ``command``; any exit status is an answer. ``max_output_bytes`` counts stdout and stderr together.

    Raises TimedOut (the command is told to terminate and its channel is closed), Unreachable (the connection
    broke, or the command was killed by a signal: its outcome is not known), TooMuchOutputError, ValueError.
    """
    line = command_line(command)
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    async with session_turn(connection, timeout_seconds):
        collector = _Collector(max_output_bytes)
        channel, _ = await session_opened(
            connection,
            lambda: connection.create_session(lambda: collector, line, encoding=None),
            timeout_seconds=deadline - asyncio.get_running_loop().time(),
            give_back=lambda pair: pair[0].abort(),
            what=command.argv[0],
        )
        try:
            # The peer may already be gone, or may not care for what it is told.
            with contextlib.suppress(BrokenPipeError):
                channel.write(command.stdin)
                channel.write_eof()
            async with asyncio.timeout_at(deadline):
                await collector.finished
        except TimeoutError:
            with contextlib.suppress(asyncssh.Error, OSError):
                channel.terminate()
            raise TimedOut(f"{command.argv[0]} did not end within {timeout_seconds:g} s") from None
        finally:
            channel.abort()
    return collector.result(command.argv[0])


class _Collector(asyncssh.SSHClientSession[bytes]):
    """Gathers what a command prints and how it ends.

    It ends when the channel closes. A command that leaves a helper behind which still holds its output (qsub
    may) would keep the channel open for as long as the helper lives, so after the exit status two silent
    seconds are enough.
    """

    def __init__(self, max_output_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self._linger: asyncio.TimerHandle | None = None
        self._room_bytes = max_output_bytes
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._exit_status: int | None = None
        self._signal = ""
        self._error: Exception | None = None

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._room_bytes -= len(data)
        if self._room_bytes < 0:
            self._finish()
        elif datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._stderr += data
        else:
            self._stdout += data
        if self._linger is not None:
            self._wait_a_little()

    def exit_status_received(self, status: int) -> None:
        self._exit_status = status
        self._wait_a_little()

    def _wait_a_little(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._linger = self._loop.call_later(_LINGER_SECONDS, self._finish)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._signal = signal

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._finish()

    def _finish(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self.finished.done():
            self.finished.set_result(None)

    def result(self, name: str) -> CommandResult:
        """The answer, once ``finished`` is. Raises TooMuchOutputError or Unreachable."""
        if self._room_bytes < 0:
            raise TooMuchOutputError(f"{name} printed too much")
        if self._exit_status is None:
            reason = f"was killed by signal {self._signal}" if self._signal else "ended without an exit status"
            raise Unreachable(f"{name} {reason}" + (f": {self._error}" if self._error else ""))
        return CommandResult(self._exit_status, bytes(self._stdout), bytes(self._stderr))
