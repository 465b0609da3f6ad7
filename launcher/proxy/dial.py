"""Ways to a server inside a job, in the shape the pool of upstream connections wants.

Each is a callable that opens a transport and sets a protocol on it; the pool in ``upstream`` knows no more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from launcher.proxy.access_types import Target
from launcher.proxy.connection import Connection
from launcher.ssh.pool import Pool
from launcher.ssh.sockets import NEAR_AHEAD_BYTES, bound_ahead
from launcher.ssh.ways import open_way


class SSHDial:
    """As the target's cluster is reached, mostly by the user's own SSH. Raises errors of ``launcher.ssh.errors``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(
        self, target: Target, protocol_factory: Callable[[], Connection], /
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await open_way(
            self._pool,
            target.cluster,
            target.username,
            target.host,
            target.port,
            protocol_factory,
            socket=target.socket,
            reason="proxy",
        )

    async def aclose(self) -> None:
        """Close the SSH connections."""
        await self._pool.aclose()


class TCPDial:
    """A TCP connection, or a Unix socket where the target's host is a path. For a portal in the cluster's network."""

    async def __call__(
        self, target: Target, protocol_factory: Callable[[], Connection], /
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        loop = asyncio.get_running_loop()
        if target.host.startswith("/"):
            return await loop.create_unix_connection(protocol_factory, target.host)
        transport, protocol = await loop.create_connection(protocol_factory, target.host, target.port)
        bound_ahead(transport, NEAR_AHEAD_BYTES)
        return transport, protocol

    async def aclose(self) -> None:
        """Nothing is shared."""
