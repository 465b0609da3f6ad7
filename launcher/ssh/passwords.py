"""Sign-in with the cluster's own password: the login host is the judge, the portal keeps nothing.

The password lives in the caller's hands and, for one handshake, in one object that gives it away once. It is
in no log, no exception and no pool. Throttling is the caller's duty and comes before this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import asyncssh

from launcher.clusters import Cluster
from launcher.schedulers.base import Command
from launcher.ssh.commands import run
from launcher.ssh.connect import connect
from launcher.ssh.credentials import PasswordCredential
from launcher.ssh.errors import LoginRefused
from launcher.ssh.questions import MOST_ROUNDS, PATIENCE_SECONDS, Conversation

_LONGEST_NUMBER = 10
"""Digits of the largest user number, 4,294,967,295."""


@dataclass(frozen=True, slots=True)
class LoginCheck:
    """The login host took the password. What it says about the account may be incomplete, never wrong."""

    accepted: bool = True
    username: str = ""
    home: str = ""


async def verify_password(
    cluster: Cluster,
    username: str,
    password: str,
    *,
    conversation: Conversation | None = None,
    keep: Callable[[LoginCheck, asyncssh.SSHClientConnection], None] | None = None,
) -> LoginCheck:
    """Sign in once at a login host of ``cluster``, ask for the account's name, number and home folder, and leave.

    ``conversation`` hears what the host asks beyond the password; without one such a host refuses.
    ``keep`` takes the open connection over instead of its being closed: for what must be done as the user
    while their password, or a code that is valid once, has opened the door.

    Raises LoginRefused (wrong password: ``ssh.login_refused``; expired: ``ssh.password_expired``; the account
    runs no commands: ``ssh.no_shell``; its name is spelt otherwise: ``ssh.other_spelling``; it is root by another
    name: ``ssh.superuser``; and, before any connection is made, ``ssh.empty_password`` and ``ssh.bad_username``),
    Unreachable, TimedOut, HostKeyChanged.
    """
    connection = await connect(
        cluster,
        username,
        PasswordCredential(password, conversation),
        reason="sign-in",
        patience_seconds=MOST_ROUNDS * PATIENCE_SECONDS if conversation else 0,
    )
    is_kept = False
    try:
        name = await run(connection, Command(("id", "-un")), timeout_seconds=cluster.command_timeout_seconds)
        if name.exit_status != 0:
            words = (name.stderr or name.stdout).decode(errors="replace")
            # What sshd says where PAM wants a new password and there is no terminal to ask on.
            expired = "password" in words.lower() and ("expired" in words.lower() or "required" in words.lower())
            raise LoginRefused(
                " ".join(words.split())[:200], code="ssh.password_expired" if expired else "ssh.no_shell"
            )
        # A login host that ignores case must not make two people of one. The account's own shell says it, so the other
        # spelling is not believed either: with it an account “Bob” could call itself “bob”, where both are there.
        spelling = _last_line(name.stdout)
        if spelling != username and spelling.lower() == username.lower():
            raise LoginRefused("the account is spelt otherwise there", code="ssh.other_spelling")
        # The account's own word: who could forge it here has root's power already, so it keeps mistakes out.
        number = await run(connection, Command(("id", "-u")), timeout_seconds=cluster.command_timeout_seconds)
        match user_number(number.stdout):
            case None:  # whatever ran was not the command: a forced one, for instance
                raise LoginRefused("the account's number cannot be found out", code="ssh.no_shell")
            case 0:
                raise LoginRefused("the account has the user number 0", code="ssh.superuser")
        home = await run(connection, Command(("printenv", "HOME")), timeout_seconds=cluster.command_timeout_seconds)
        # A talkative shell start-up file prints before the command does: the answer is the last line.
        folder = _last_line(home.stdout)
        check = LoginCheck(username=username, home=folder if folder.startswith("/") else "")
        if keep is not None:
            keep(check, connection)
            is_kept = True
    finally:
        if not is_kept:
            connection.abort()
            with contextlib.suppress(asyncssh.Error, OSError):
                await connection.wait_closed()
    return check


def user_number(output: bytes) -> int | None:
    """What ``id -u`` printed: the last line that is a number, whatever a start-up file printed besides."""
    numbers = [
        line for line in map(bytes.strip, output.splitlines()) if line.isdigit() and len(line) <= _LONGEST_NUMBER
    ]
    return int(numbers[-1]) if numbers else None


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="surrogateescape").strip().splitlines()
    return lines[-1].strip() if lines else ""
