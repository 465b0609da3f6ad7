"""Checks of what carries the notebooks' bytes."""

from __future__ import annotations

import asyncio

from launcher.doctor.findings import Said, broken, doubtful, fine, skipped
from launcher.doctor.visit import REASON, Visit
from launcher.ssh.errors import NodeKeyUnknown, NodeRefused, SSHError, TunnelRefused
from launcher.ssh.ways import open_way
from portal.words import marked as _

PROBE_PORT = 54321
"""Nobody need listen there; a host that says so was reached."""


def fast_path(_portal: object) -> Said:
    """The fast way through SSH works with the asyncssh that is installed."""
    from django.conf import settings

    from launcher.ssh.fastpath_check import find_problem

    if not settings.CONF.ssh_fast_path:
        return skipped(_("PORTAL_SSH_FAST_PATH switches it off."))
    problem = asyncio.run(find_problem())
    if problem:
        return doubtful(
            _("Notebooks work at about half the speed, because the fast way is not used: %(words)s."),
            _("Install the packages that uv.lock names, or wait for a release of the portal that knows this asyncssh."),
            words=problem,
        )
    return fine(_("A trial of it has passed."))


def to_node(visit: Visit, host: str) -> Said:
    """The portal gets on to an execution host by SSH, as far as it lets anybody in who has no job there."""
    if not host:
        return skipped(_("No execution host is known to be up, so none was tried."))
    try:
        visit.wait_for(visit.hands.pool.connection(visit.cluster, visit.username, node=host, reason=REASON))
    except NodeKeyUnknown as error:
        return broken(
            _("%(host)s shows a host key that nobody vouches for: %(words)s"),
            _("Add its key to node_known_hosts or node_host_keys in the clusters file, once you have compared it."),
            command=f"ssh-keyscan -p {visit.cluster.node_ssh_port} {host}",
            host=host,
            words=error.detail,
        )
    except NodeRefused as error:
        return doubtful(
            _("%(host)s does not let %(user)s in: %(words)s"),
            _("Where only owners of running jobs may enter, that is right; else it must trust what login hosts do."),
            host=host,
            user=visit.username,
            words=error.detail,
        )
    except SSHError as error:
        return broken(
            _("The portal does not get to %(host)s by SSH: %(words)s"),
            _("The login host must forward to the SSH port of the execution hosts (AllowTcpForwarding, PermitOpen)."),
            command=f"ssh -W {host}:{visit.cluster.node_ssh_port}",
            host=host,
            words=error.detail,
        )
    return fine(_("%(host)s lets %(user)s in by SSH."), host=host, user=visit.username)


def by_tcp(visit: Visit, host: str) -> Said:
    """The portal's machine gets to an execution host by itself."""
    if not host:
        return skipped(_("No execution host is known to be up, so none was tried."))

    async def probe() -> None:
        transport, _protocol = await open_way(
            visit.hands.pool, visit.cluster, visit.username, host, PROBE_PORT, asyncio.Protocol
        )
        transport.abort()

    try:
        visit.wait_for(probe())
    except TunnelRefused as error:
        if "refused" in error.detail:
            return fine(_("%(host)s is reached by TCP."), host=host)
        return _not_by_tcp(host, error)
    except SSHError as error:
        return _not_by_tcp(host, error)
    return fine(_("%(host)s is reached by TCP."), host=host)


def _not_by_tcp(host: str, error: SSHError) -> Said:
    return broken(
        _("The portal's machine does not get to %(host)s by TCP: %(words)s"),
        _("Let it into the cluster's network and resolve this name, or set reach to another way."),
        command=f"nc -vz {host} {PROBE_PORT}",
        host=host,
        words=error.detail,
    )
