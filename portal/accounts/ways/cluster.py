"""The cluster's own password, checked by an SSH login to the login host and then forgotten.

Groups are asked for as the cluster's operator, never as the person: what runs in somebody's own shell answers whatever
their start-up files make it answer, and groups decide who administers. Without an operator nobody has a group. The
operator is asked for the account's number, too: root is refused under any name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncssh

from launcher.clusters import Cluster
from launcher.keyring import record_host_key_rejected
from launcher.parts import hands, sign_in_cluster
from launcher.schedulers.base import Command
from launcher.ssh.errors import HostKeyChanged, Interrupted, LoginRefused
from launcher.ssh.loop import hands_loop
from launcher.ssh.passwords import LoginCheck, user_number, verify_password
from launcher.ssh.questions import Conversation, Round
from portal.accounts.ways.base import Identity, MoreAsked, Superuser
from portal.conf import Conf

TELL_APART = frozenset({"ssh.password_expired", "ssh.no_shell", "ssh.other_spelling"})
"""Refusals after a right password: the person is told what to do."""


def keeper(cluster: Cluster) -> Callable[[LoginCheck, asyncssh.SSHClientConnection], None] | None:
    """What takes the connection of a sign-in over: where the portal needs it to enrol a key, or has nothing else."""
    if cluster.credential == "certificate":
        return None
    return lambda login, connection: hands().pool.adopt(cluster, login.username, connection)


class ClusterPassword:
    """See the module. A ``PasswordWay``."""

    name = "cluster"

    def __init__(self, conf: Conf, connects_to: Cluster | None = None) -> None:
        """Takes nothing from ``conf``: people sign in at the cluster that ``parts`` names.

        ``connects_to``: they are signed in, and show this one who they are. Its operator is not asked about them then.
        """
        self._connects_to = connects_to

    def check(self, username: str, password: str) -> Identity | None:
        """See PasswordWay."""
        cluster = self._connects_to or sign_in_cluster()
        return _Handshake(cluster, username, password, asks_operator=self._connects_to is None).go_on()


class _Handshake:
    """A sign-in at the login host, which may stop to ask. A ``Waiting`` while it does."""

    def __init__(self, cluster: Cluster, username: str, password: str, *, asks_operator: bool) -> None:
        self._cluster = cluster
        self._conversation = Conversation()
        self._task: asyncio.Task[Identity] | None = None
        self._first: Coroutine[Any, Any, Identity] | None = _identity(
            cluster, username, password, self._conversation, asks_operator=asks_operator
        )
        self.round = Round("", ())

    @property
    def is_over(self) -> bool:
        """See Waiting."""
        return self._task is None or self._task.done()

    def answer(self, answers: Sequence[str]) -> Identity | None:
        """See Waiting."""
        hands_loop().start().call_soon_threadsafe(self._conversation.answer, answers)
        return self.go_on()

    def give_up(self) -> None:
        """See Waiting."""
        if self._task is not None:
            hands_loop().start().call_soon_threadsafe(self._task.cancel)

    def go_on(self) -> Identity | None:
        """To the end, or to the next question. Raises MoreAsked, and what ``PasswordWay.check`` raises."""
        cluster = self._cluster
        hosts = len(cluster.login_hosts)
        timeout_seconds = 2 * cluster.connect_timeout_seconds * hosts + 3 * cluster.command_timeout_seconds + 5
        try:
            identity = hands_loop().run(self._step(timeout_seconds), timeout_seconds + 5)
        except LoginRefused as error:
            if error.code in TELL_APART:
                raise
            if error.code == "ssh.superuser":
                raise Superuser(error.detail) from error
            return None
        except HostKeyChanged as error:
            record_host_key_rejected(cluster.id, error)
            raise
        if identity is None:
            raise MoreAsked(self)
        return identity

    async def _step(self, timeout_seconds: float) -> Identity | None:
        """The identity, or nothing where something is asked. Raises Interrupted when neither comes in time."""
        if self._task is None:
            assert self._first is not None
            self._task, self._first = asyncio.create_task(self._first), None
        asked = asyncio.create_task(self._conversation.asked())
        try:
            waited_for = (self._task, asked)
            done, _ = await asyncio.wait(waited_for, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                return self._task.result()
            if not done:
                self._task.cancel()
                raise Interrupted(f"no answer to the sign-in within {timeout_seconds:g} s")
            self.round = asked.result()
            return None
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            asked.cancel()


async def _identity(
    cluster: Cluster, username: str, password: str, conversation: Conversation, *, asks_operator: bool
) -> Identity:
    login = await verify_password(cluster, username, password, conversation=conversation, keep=keeper(cluster))
    if not (cluster.operator and asks_operator):
        return Identity(username=login.username)
    if user_number(await _ask_operator(cluster, "id", "-u", "--", login.username)) == 0:
        await hands().pool.close_user(cluster.id, login.username)  # the keeper has taken it over
        raise Superuser("the operator says that the account has the user number 0")
    # A group without a name makes ``id`` fail and print its number; a talkative start-up file prints before.
    names = await _ask_operator(cluster, "id", "-Gn", "--", login.username)
    lines = names.decode(errors="replace").strip().splitlines()
    return Identity(username=login.username, groups=tuple(lines[-1].split()) if lines else ())


async def _ask_operator(cluster: Cluster, *words: str) -> bytes:
    """What a command prints for the operator. Raises SSHError where the operator cannot be asked."""
    return (await hands().run(cluster, cluster.operator, Command(words), reason="sign-in")).stdout
