"""The cluster's own password, checked by an SSH login to the login host and then forgotten."""

from __future__ import annotations

from collections.abc import Callable

import asyncssh

from launcher.clusters import Cluster
from launcher.keyring import record_host_key_rejected
from launcher.parts import hands, sign_in_cluster
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
        return Identity(username=login.username, groups=login.groups)
