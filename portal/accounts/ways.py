"""Ways to check a password, each a class; ``PORTAL_AUTH`` names the ones a site uses, in order.

A way answers with an identity, says "not me", or cannot tell. It never keeps the password.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import asyncssh

from launcher.clusters import Cluster
from launcher.parts import hands, sign_in_cluster
from launcher.ssh.errors import LoginRefused
from launcher.ssh.loop import hands_loop
from launcher.ssh.passwords import LoginCheck, verify_password
from portal.conf import Conf


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody proved to be."""

    username: str
    groups: tuple[str, ...] = ()
    display_name: str = ""


class PasswordWay(Protocol):
    """A way to check an account's password."""

    name: str

    def check(self, username: str, password: str) -> Identity | None:
        """The identity, or ``None`` for a wrong password or an unknown account.

        Raises FootbridgeError (transient or not) when the answer cannot be known.
        """


def keeper(cluster: Cluster) -> Callable[[LoginCheck, asyncssh.SSHClientConnection], None] | None:
    """What takes the connection of a sign-in over: where the portal needs it to enrol a key, or has nothing else."""
    if cluster.credential == "certificate":
        return None
    return lambda login, connection: hands().pool.adopt(cluster, login.username, connection)


TELL_APART = frozenset({"ssh.password_expired", "ssh.no_shell"})
"""Refusals after a right password: the person is told what to do."""


class ClusterPassword:
    """The cluster's own password, checked by an SSH login to the login host and then forgotten."""

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
        return Identity(username=login.username, groups=login.groups)


WAYS = {ClusterPassword.name: ClusterPassword}
"""Every way there is, by the name used in ``PORTAL_AUTH``."""
