"""A demonstration cluster with settings of the test's own, on a thread, and logins to it over real SSH."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncssh

from launcher.democluster.cluster import DemoCluster
from launcher.democluster.pbs.job import Job
from launcher.democluster.settings import Delays, DemoSettings
from tests.waiting import wait_for

T = TypeVar("T")
SECONDS = 60

QUICK = Delays(
    schedule_seconds=0.02,
    start_seconds=0.05,
    exit_seconds=0.1,
    terminate_seconds=0.8,
    walltime_grace_seconds=0.2,
    slow_seconds=0.6,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command over SSH gave."""

    exit_status: int | None
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode("utf-8", "surrogateescape")


class DemoHost:
    """A running cluster and one open connection per user."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.cluster = DemoCluster(settings)
        self._connections: dict[str, asyncssh.SSHClientConnection] = {}
        self.call(self.cluster.__aenter__)

    def call(self, function: Callable[[], Awaitable[T]], *, seconds: float = SECONDS) -> T:
        """Await something on the cluster's loop."""

        async def run() -> T:
            return await function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(seconds)

    def fault(self, name: str, value: str) -> None:
        """Switch a fault."""

        async def switch() -> None:
            self.cluster.faults.set(name, value)

        self.call(switch)

    async def connect(self, user: str = "alice", **options: object) -> asyncssh.SSHClientConnection:
        """A new connection, by password unless told otherwise. For use on the cluster's loop."""
        host, _, key = f"[127.0.0.1]:{self.cluster.port}", "", self.cluster.host_public_key
        values: dict[str, object] = {
            "username": user,
            "password": f"{user}-demo",
            "known_hosts": asyncssh.import_known_hosts(f"{host} {key}"),
            "config": None,
            "agent_path": None,
            "client_keys": None,
        } | options
        return await asyncssh.connect("127.0.0.1", self.cluster.port, **values)

    def run(self, command: str, *, user: str = "alice", stdin: bytes = b"") -> Result:
        """Run a command in a shell, with the PBS commands on PATH."""

        async def go() -> Result:
            connection = self._connections.get(user)
            if connection is None or connection.is_closed():
                connection = self._connections[user] = await self.connect(user)
            line = f"PATH={self.cluster.commands_folder}:$PATH\n{command}"
            # asyncssh leaves stdin open when there is no input at all.
            given = {"input": stdin} if stdin else {"stdin": asyncssh.DEVNULL}
            done = await connection.run(line, encoding=None, **given)
            return Result(done.exit_status, bytes(done.stdout or b""), bytes(done.stderr or b""))

        return self.call(go)

    def submit(self, options: str = "", script: str = "sleep 60\n", *, user: str = "alice") -> str:
        """Submit a job; its id."""
        result = self.run(f"qsub {options}", user=user, stdin=script.encode())
        assert result.exit_status == 0, result.stderr
        return result.text.strip()

    def job(self, job_id: str) -> Job:
        """The cluster's own record of a job."""
        return self.cluster.scheduler.jobs[int(job_id.partition(".")[0])]

    def wait(self, job_id: str, state: str, *, substate: int | None = None) -> Job:
        """Wait until a job is in a state."""
        job = self.job(job_id)
        wait_for(
            lambda: job.state.value == state and substate in (None, job.substate),
            what=f"{job_id} never became {state}, it is {job.state.value} ({job.substate}): {job.comment}",
        )
        return job

    def home(self, user: str = "alice") -> Path:
        """A user's home folder."""
        return self.settings.home(user)

    def stop(self) -> None:
        """End everything."""

        async def end() -> None:
            for connection in self._connections.values():
                connection.abort()
                await connection.wait_closed()
            await self.cluster.__aexit__(None, None, None)

        self.call(end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
