"""The cluster's own password, checked by an SSH login to the login host and then forgotten.

Groups are asked for as the cluster's operator, never as the person: what runs in somebody's own shell answers whatever
their start-up files make it answer, and groups decide who administers. Without an operator nobody has a group.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncssh

from launcher.clusters import Cluster
from launcher.keyring import record_host_key_rejected
from launcher.parts import hands, sign_in_cluster
from launcher.schedulers.base import Command
from launcher.ssh.errors import HostKeyChanged, LoginRefused
from launcher.ssh.loop import hands_loop
from launcher.ssh.passwords import LoginCheck, verify_password
from portal.accounts.ways.base import Identity
from portal.conf import Conf

TELL_APART = frozenset({"ssh.password_expired", "ssh.no_shell"})
"""Refusals after a right password: the person is told what to do."""


def keeper(cluster: Cluster) -> Callable[[LoginCheck, asyncssh.SSHClientConnection], None] | None:
    """What takes the connection of a sign-in over: where the portal needs it to enrol a key, or has nothing else."""
    if cluster.credential == "certificate":
        return None
    return lambda login, connection: hands().pool.adopt(cluster, login.username, connection)


class ClusterPassword:
    """See the module. A ``PasswordWay``."""

    name = "cluster"

    def __init__(self, conf: Conf) -> None:
        """Takes nothing from ``conf``: the cluster is the one that ``parts`` names."""

    def check(self, username: str, password: str) -> Identity | None:
        """See PasswordWay."""
        cluster = sign_in_cluster()
        hosts = len(cluster.login_hosts)
        timeout_seconds = 2 * cluster.connect_timeout_seconds * hosts + 2 * cluster.command_timeout_seconds + 5
        try:
            login = hands_loop().run(
                verify_password(cluster, username, password, keep=keeper(cluster)), timeout_seconds
            )
        except LoginRefused as error:
            if error.code in TELL_APART:
                raise
            return None
        except HostKeyChanged as error:
            record_host_key_rejected(cluster.id, error)
            raise
        return Identity(username=login.username, groups=hands_loop().run(_groups(cluster, login.username), 30))


async def _groups(cluster: Cluster, username: str) -> tuple[str, ...]:
    """The groups of an account, as the operator sees them. Raises SSHError where the operator cannot be asked."""
    if not cluster.operator:
        return ()
    command = Command(("id", "-Gn", "--", username))
    answer = await hands().run(cluster, cluster.operator, command, reason="sign-in")
    # A group without a name makes ``id`` fail and print its number; a talkative start-up file prints before.
    lines = answer.stdout.decode(errors="replace").strip().splitlines()
    return tuple(lines[-1].split()) if lines else ()
