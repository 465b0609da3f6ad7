"""The way from the portal to a server inside a job, by what the clusters file says of its cluster (``reach``).

``ssh``: a channel from the login host to a port of the execution host. ``ssh-node``: SSH on to the execution host, and
there a Unix socket or a port of loopback. ``direct``: plain TCP, for a portal in the cluster's own network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from launcher.clusters import Cluster
from launcher.ssh.errors import TimedOut, TunnelRefused
from launcher.ssh.pool import Pool
from launcher.ssh.sockets import bound_ahead
from launcher.ssh.tunnel import open_tunnel


async def open_way(
    pool: Pool,
    cluster: Cluster,
    username: str,
    host: str,
    port: int,
    protocol_factory: Callable[[], asyncio.Protocol],
    *,
    socket: str = "",
    reason: str = "",
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Open a transport to a port of the execution host ``host``, or to a Unix socket there, and set the protocol on it.

    Raises errors of ``launcher.ssh.errors``.
    """
    timeout_seconds = cluster.connect_timeout_seconds
    if cluster.reach == "ssh-node":
        connection = await pool.connection(cluster, username, node=host, reason=reason)
        return await open_tunnel(
            connection, socket or "127.0.0.1", port, protocol_factory, timeout_seconds=timeout_seconds
        )
    if socket:
        raise TunnelRefused(f"{host}: a socket there is reached by SSH only", params={"host": host})
    if cluster.reach == "direct":
        return await _by_tcp(host, port, protocol_factory, timeout_seconds)
    connection = await pool.connection(cluster, username, reason=reason)
    return await open_tunnel(connection, host, port, protocol_factory, timeout_seconds=timeout_seconds)


async def _by_tcp(
    host: str, port: int, protocol_factory: Callable[[], asyncio.Protocol], timeout_seconds: float
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    try:
        async with asyncio.timeout(timeout_seconds):
            transport, protocol = await asyncio.get_running_loop().create_connection(protocol_factory, host, port)
    except TimeoutError:
        raise TimedOut(f"{host}, port {port}: no answer within {timeout_seconds:g} s") from None
    except OSError as error:
        words = error.strerror or str(error)
        raise TunnelRefused(f"{host}, port {port}: {words}", params={"host": host, "port": port}) from None
    bound_ahead(transport)
    return transport, protocol
