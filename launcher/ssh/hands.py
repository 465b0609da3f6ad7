"""The portal's hands as its services see them: do one thing as one user on one cluster.

Each method takes the user's connection from the pool, dials where there is none, and does its job once. A
repeat after a transient error is the caller's decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from launcher.clusters import Cluster
from launcher.schedulers.base import Command, CommandResult
from launcher.ssh import commands
from launcher.ssh.budget import LONGEST_WAIT_SECONDS, Budget, Turns
from launcher.ssh.connect import login_host_of
from launcher.ssh.files import RemoteFiles, open_files
from launcher.ssh.pool import Pool
from launcher.ssh.ways import open_way


def budget_host(cluster: Cluster, login_host: str) -> str:
    """The name under which commands to this login host are counted."""
    return f"{cluster.id}@{login_host}"


class Hands:
    """Commands, files and tunnels over ``pool``. All methods raise errors of ``launcher.ssh.errors``.

    ``turns``: the store by which all processes share the budget of commands; without it this process has its own.
    """

    def __init__(self, pool: Pool, turns: Turns | None = None) -> None:
        self.pool = pool
        self._budget = Budget(turns)

    async def run(
        self,
        cluster: Cluster,
        username: str,
        command: Command,
        *,
        timeout_seconds: float | None = None,
        longest_wait_seconds: float = LONGEST_WAIT_SECONDS,
        reason: str = "",
    ) -> CommandResult:
        """Run ``command`` when its turn has come (see ``Budget``).

        Without ``timeout_seconds`` the cluster's ``command_timeout_seconds`` applies. Raises TooBusy where the turn is
        further away than ``longest_wait_seconds``.
        """
        connection = await self.pool.connection(cluster, username, reason=reason)
        await self._budget.take_turn(
            budget_host(cluster, login_host_of(connection)),
            cluster.commands_per_second,
            longest_wait_seconds=longest_wait_seconds,
        )
        return await commands.run(
            connection, command, timeout_seconds=timeout_seconds or cluster.command_timeout_seconds
        )

    @asynccontextmanager
    async def files(self, cluster: Cluster, username: str, *, reason: str = "") -> AsyncIterator[RemoteFiles]:
        """The user's files, for a few operations in a row: ``async with hands.files(…) as files:``."""
        connection = await self.pool.connection(cluster, username, reason=reason)
        async with open_files(connection, timeout_seconds=cluster.command_timeout_seconds) as files:
            yield files

    async def tunnel(
        self,
        cluster: Cluster,
        username: str,
        host: str,
        port: int,
        protocol_factory: Callable[[], asyncio.Protocol],
        *,
        socket: str = "",
        reason: str = "",
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """The way to ``port`` of the execution host ``host``, or to the Unix ``socket`` there."""
        return await open_way(self.pool, cluster, username, host, port, protocol_factory, socket=socket, reason=reason)
