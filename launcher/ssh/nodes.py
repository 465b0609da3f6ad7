"""SSH on to an execution host, through a connection to a login host.

The user's own account, a credential made for this login, and a host key that the clusters file, a known_hosts file or a
host authority vouches for: the login host in between can read nothing and pretend nothing. Called by the pool.
"""

from __future__ import annotations

import asyncio
import dataclasses

import asyncssh

from launcher.clusters import Cluster
from launcher.ssh.connect import login_options, public_keys, settle, translated
from launcher.ssh.credentials import CertificateCredential, Credential, check_username
from launcher.ssh.errors import (
    HostKeyChanged,
    LoginRefused,
    NodeKeyUnknown,
    NodeRefused,
    SSHError,
    TimedOut,
    TunnelRefused,
)


async def connect_node(
    cluster: Cluster,
    login: asyncssh.SSHClientConnection,
    username: str,
    node: str,
    credential: Credential,
    *,
    reason: str,
) -> asyncssh.SSHClientConnection:
    """A connection as ``username`` to the execution host ``node``, through ``login``.

    Raises NodeRefused, NodeKeyUnknown, TunnelRefused (``ssh.node_unreachable``), TimedOut, SSHError.
    """
    check_username(username)
    timeout_seconds = cluster.connect_timeout_seconds
    host_keys = _host_keys(cluster, node)
    options = await _credential_for_nodes(credential).options(cluster, username, reason)
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await asyncssh.connect(
                node,
                cluster.node_ssh_port,
                tunnel=login,
                **{
                    **login_options(options, username=username, timeout_seconds=timeout_seconds),
                    "known_hosts": host_keys,
                },
            )
    except TimeoutError:
        raise TimedOut(f"{node}: no SSH login within {timeout_seconds:g} s", params={"node": node}) from None
    except (asyncssh.Error, OSError, ValueError) as error:
        raise _of_node(error, node) from None
    await settle(connection)
    return connection


def _of_node(error: Exception, node: str) -> SSHError:
    """The error of a node: it must never be taken for one of the login host, which stops the whole cluster."""
    if isinstance(error, asyncssh.ChannelOpenError):
        return TunnelRefused(f"{node}: {error.reason}", code="ssh.node_unreachable", params={"node": node})
    found = translated(error, node)
    if isinstance(found, HostKeyChanged):
        return NodeKeyUnknown(found.detail, params={"node": node})
    if isinstance(found, LoginRefused):
        return NodeRefused(found.detail, params={"node": node})
    return TunnelRefused(found.detail, code="ssh.node_unreachable", params={"node": node})


def _credential_for_nodes(credential: Credential) -> Credential:
    """Execution hosts see the login host's address, not the portal's: a certificate must not be bound to that."""
    if isinstance(credential, CertificateCredential):
        return dataclasses.replace(credential, source_addresses=())
    return credential


def _host_keys(
    cluster: Cluster, node: str
) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """Trusted keys, trusted authorities, revoked keys. Raises SSHError where what the cluster names cannot be read."""
    keys = public_keys(cluster.id, "node_host_keys", cluster.node_host_keys)
    authorities = public_keys(cluster.id, "node_host_ca_keys", cluster.node_host_ca_keys)
    revoked: list[asyncssh.SSHKey] = []
    if cluster.node_known_hosts:
        try:
            known = asyncssh.read_known_hosts(cluster.node_known_hosts)
            found = known.match(node, "", cluster.node_ssh_port)
        except (OSError, ValueError) as error:
            raise SSHError(f"{cluster.node_known_hosts}: {error}", code="ssh.bad_host_keys") from None
        keys += found[0]
        authorities += found[1]
        revoked += found[2]
    return keys, authorities, revoked
