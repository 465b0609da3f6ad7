"""Puts the demonstration cluster together and takes it apart again. The only module that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from launcher.democluster import hostkey
from launcher.democluster.control import Control
from launcher.democluster.environment import lay_out
from launcher.democluster.faults import Faults
from launcher.democluster.login import Login
from launcher.democluster.pbs.calls import find_job, full_id
from launcher.democluster.pbs.errors import PBSError
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.pbs.service import Identities, Service
from launcher.democluster.server import LoginHost
from launcher.democluster.settings import DemoSettings

_WARDEN = Path(__file__).with_name("warden.py")


class ClusterError(Exception):
    """The cluster cannot start; the message says why and what to do."""


class DemoCluster:
    """A running demonstration cluster: ``async with DemoCluster(settings) as cluster``."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.host_public_key = ""
        identities = Identities(settings)
        self._mark = identities.mark
        self.scheduler = Scheduler(settings, self.faults, identities.of)
        self._login = Login(settings, identities)
        self._service = Service(self.scheduler, identities, self._lose_connections)
        self._control = Control(settings.root, self.faults)
        self._host: LoginHost | None = None
        self._warden: asyncio.subprocess.Process | None = None
        self._lock: IO[str] | None = None
        self.faults.on_change.append(self._fault_changed)

    @property
    def port(self) -> int:
        """The port of the SSH server."""
        return self._host.port if self._host else self.settings.port

    @property
    def address(self) -> str:
        """The address of the SSH server."""
        return self.settings.address

    @property
    def commands_folder(self) -> Path:
        """Where qsub and friends live."""
        return self.settings.commands_folder

    @property
    def image_folder(self) -> Path:
        """The library of container images."""
        return self.settings.image_folder

    async def __aenter__(self) -> DemoCluster:
        """Start. Raises ClusterError."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start(self) -> None:
        settings = self.settings
        settings.root.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        lay_out(settings)
        key = hostkey.host_key(settings.root)
        self.host_public_key = hostkey.public_line(key)
        self._warden = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_WARDEN), self._mark,
            stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.scheduler.start()
        await self._service.start()
        await self._control.start()
        try:
            self._host = LoginHost(settings, self.faults, self._login, key)
            await self._host.listen()
        except OSError as error:
            self._host = None
            where = f"{settings.address}:{settings.port}"
            raise ClusterError(f"cannot listen on {where}: {error.strerror or error}; choose another port") from error

    def _take_folder(self) -> None:
        """Two clusters in one folder would hand out the same job ids."""
        self._lock = (self.settings.root / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise ClusterError(f"another demonstration cluster runs in {self.settings.root}") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; when this returns no process of the cluster is left."""
        await self._stop()

    async def _stop(self) -> None:
        if self._host:
            await self._host.stop()
        await self._login.stop()
        await self.scheduler.stop()
        await self._service.stop()
        await self._control.stop()
        if self._warden:
            if self._warden.stdin:
                self._warden.stdin.close()  # its signal to clean up
                with contextlib.suppress(OSError):
                    await self._warden.stdin.wait_closed()
            await self._warden.wait()
        if self._lock:
            self._lock.close()
            self._lock = None

    def _lose_connections(self, username: str) -> None:
        if self._host:
            self._host.drop_user(username)

    def _fault_changed(self, name: str, value: str) -> None:
        if name == "node_down":
            self.scheduler.wake()
        if name in ("kill_job", "requeue_job"):
            with contextlib.suppress(PBSError):
                job = find_job(self.scheduler.jobs, full_id(value))
                self.scheduler.kill_processes(job, requeue=name == "requeue_job")


def running_as_root() -> bool:
    """Whether every job of this cluster will run as root."""
    return os.geteuid() == 0
