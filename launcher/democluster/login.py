"""Runs what a user asks for over SSH, as an sshd would: a shell in the home folder, with its pipes joined.

The shell is no login shell, so the PBS commands are not on PATH, as on a stock site. A session without a
command gets a plain login shell on pipes; there is no terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Mapping

import asyncssh

from launcher.democluster.pbs.service import Identities
from launcher.democluster.pbs.surroundings import SYSTEM_PATH
from launcher.democluster.settings import Account, DemoSettings

_CHUNK_BYTES = 64 * 1024
_UMASK = 0o077


def session_environment(settings: DemoSettings, account: Account, identity: Mapping[str, str]) -> dict[str, str]:
    """What a session finds in its environment."""
    return {
        "HOME": str(settings.home(account.name)),
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": "/bin/bash",
        "PATH": f"{settings.login_programs}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "PBS_CONF_FILE": str(settings.root / "etc" / "pbs.conf"),
        "DEMO_GROUPS": ",".join(account.groups),
    } | dict(identity)


class Login:
    """Runs the sessions of all users."""

    def __init__(self, settings: DemoSettings, identities: Identities) -> None:
        self._settings = settings
        self._identities = identities
        self._running: set[asyncio.subprocess.Process] = set()

    async def __call__(self, session: asyncssh.SSHServerProcess[bytes]) -> None:
        """One session, from its start to its exit status."""
        account = self._settings.account(str(session.get_extra_info("username")))
        if account is None:
            session.exit(255)
            return
        command = session.command
        arguments = ["-c", command] if command is not None else ["-l"]
        environment = session_environment(self._settings, account, self._identities.of(account.name))
        for name, value in session.env.items():
            if name == "LANG" or name.startswith("LC_"):  # as Debian's AcceptEnv
                environment[str(name)] = str(value)
        process = await asyncio.create_subprocess_exec(
            "/bin/bash", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=self._settings.home(account.name), env=environment, umask=_UMASK, start_new_session=True,
        )  # fmt: skip
        self._running.add(process)
        try:
            await self._join(session, process)
        except (asyncssh.Error, OSError):
            pass  # the connection has gone; the process follows below
        finally:
            self._end(process)
            await process.wait()
            self._running.discard(process)

    async def _join(self, session: asyncssh.SSHServerProcess[bytes], process: asyncio.subprocess.Process) -> None:
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise OSError("the session has no pipes")
        feeding = asyncio.ensure_future(_feed(session, stdin))
        gone = asyncio.ensure_future(session.wait_closed())
        pumping = asyncio.ensure_future(_both(_pump(stdout, session.stdout), _pump(stderr, session.stderr)))
        try:
            await asyncio.wait({pumping, gone}, return_when=asyncio.FIRST_COMPLETED)
            if pumping.done():
                status = await process.wait()
                if status < 0:
                    session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
                else:
                    session.exit(status)
        finally:
            for task in (feeding, gone, pumping):
                task.cancel()
            await asyncio.gather(feeding, gone, pumping, return_exceptions=True)
            stdin.close()
            with contextlib.suppress(OSError):
                await stdin.wait_closed()

    @staticmethod
    def _end(process: asyncio.subprocess.Process) -> None:
        """Hang up on everything that still runs in the session."""
        for number in (signal.SIGHUP, signal.SIGKILL) if process.returncode is None else (signal.SIGHUP,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    async def stop(self) -> None:
        """Kill what runs."""
        for process in list(self._running):
            self._end(process)
        await asyncio.gather(*(process.wait() for process in list(self._running)), return_exceptions=True)


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    await asyncio.gather(first, second)


async def _feed(session: asyncssh.SSHServerProcess[bytes], stdin: asyncio.StreamWriter) -> None:
    try:
        while chunk := await session.stdin.read(_CHUNK_BYTES):
            stdin.write(chunk)
            await stdin.drain()
    except (asyncssh.Error, OSError):
        pass  # the command does not want it, or the connection has gone
    finally:
        stdin.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        target.write(chunk)
        await target.drain()
