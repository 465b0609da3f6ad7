"""Checks of the way to a cluster: name, port, host key, login, shell, clock. Each needs the one before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence

import asyncssh

from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, skipped, words_of
from launcher.doctor.visit import REASON, Visit
from launcher.parts import credential_of
from launcher.ssh.ca import CAError
from launcher.ssh.connect import login_host_of, split_host
from launcher.ssh.errors import HostKeyChanged, LoginRefused, SSHError
from portal.words import Words
from portal.words import marked as _

CLOCK_SECONDS = 20
"""A certificate is valid from 30 seconds before it was made: a login host must not be further behind."""


def name(visit: Visit) -> Sequence[Said]:
    """The login hosts' names are found."""
    missing: list[tuple[str, OSError]] = []
    for entry in visit.cluster.login_hosts:
        host, port = split_host(entry)
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            missing.append((host, error))
        else:
            visit.named.append(entry)
    say = doubtful if visit.named else broken
    return [
        say(
            _("The name %(host)s was not found: %(words)s"),
            _("Correct it in login_hosts of the clusters file, or in DNS."),
            command=f"getent hosts {host}",
            host=host,
            words=error.strerror or error,
        )
        for host, error in missing
    ] or [fine(_("Found: %(hosts)s."), hosts=", ".join(visit.named))]


def port(visit: Visit) -> Sequence[Said]:
    """An SSH server answers."""
    found: list[tuple[str, str]] = []
    for entry in visit.named:
        try:
            visit.wait_for(_greeting(*split_host(entry), visit.cluster.connect_timeout_seconds))
        except (OSError, TimeoutError, SSHError, ValueError) as error:
            found.append((entry, words_of(error)))
        else:
            visit.reachable.append(entry)
    say = doubtful if visit.reachable else broken
    return [
        say(
            _("No SSH server answers at %(entry)s: %(words)s"),
            _("Correct login_hosts of the clusters file, start sshd there, or let this computer through the firewall."),
            command="nc -vz {} {}".format(*split_host(entry)),
            entry=entry,
            words=words,
        )
        for entry, words in found
    ] or [fine(_("An SSH server answers at %(hosts)s."), hosts=", ".join(visit.reachable))]


async def _greeting(host: str, port: int, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            line = await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not line.startswith(b"SSH-"):
        raise ValueError("what answers there is no SSH server")


def host_key(visit: Visit) -> Sequence[Said]:
    """Each login host shows a key of the clusters file."""
    known = {" ".join(line.split()[:2]) for line in visit.cluster.host_keys}
    for number, line in enumerate(visit.cluster.host_keys, start=1):
        try:
            asyncssh.import_public_key(line)
        except asyncssh.KeyImportError:
            return [
                broken(
                    _("Entry %(number)s of host_keys in the clusters file is no public key."),
                    _("Write it as ssh-keyscan prints it, without the host's name: ssh-ed25519 AAAA…"),
                    number=number,
                )
            ]
    if not known:  # an authority of the clusters file vouches for them, and connecting checks its signature
        return [fine(_("The clusters file names an authority for the login hosts' keys; signing in checks them."))]
    found = [_key_of(visit, entry, known) for entry in visit.reachable]
    return [said for said in found if said] or [fine(_("The login hosts show keys of the clusters file."))]


def _key_of(visit: Visit, entry: str, known: set[str]) -> Said | None:
    seconds = visit.cluster.connect_timeout_seconds
    kinds = sorted({line.split()[0] for line in known})
    shown = visit.wait_for(_shown(entry, kinds, seconds)) or visit.wait_for(_shown(entry, [], seconds))
    if shown is None:
        return doubtful(
            _("%(entry)s breaks off before it shows a host key."),
            _("Look into its log: it may refuse this computer, or be too busy (MaxStartups of sshd)."),
            entry=entry,
        )
    line = " ".join(shown.export_public_key("openssh").decode().split()[:2])
    if line in known:
        return None
    return broken(
        _("%(entry)s shows a key that is not in the clusters file; the portal stays away: %(kind)s %(fingerprint)s."),
        _(
            "Compare it with what the command prints on the login host itself. Only if it is the same, put “%(line)s” "
            "into host_keys; otherwise somebody may stand in between."
        ),
        command=f"ssh-keygen -lf /etc/ssh/ssh_host_{_short_kind(line)}_key.pub",
        entry=entry,
        kind=line.split()[0],
        fingerprint=shown.get_fingerprint(),
        line=line,
    )


def _short_kind(line: str) -> str:
    """As in the names of sshd's key files: ed25519, rsa, ecdsa."""
    kind = line.split()[0].removeprefix("sk-").removeprefix("ssh-")
    return "ecdsa" if kind.startswith("ecdsa") else kind.partition("@")[0]


async def _shown(entry: str, kinds: list[str], seconds: float) -> asyncssh.SSHKey | None:
    """The host key that a login host shows, if it has one of these kinds (empty: of any)."""
    host, number = split_host(entry)
    algorithms = [
        name for kind in kinds for name in (["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind])
    ]
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError, ValueError):
        async with asyncio.timeout(seconds):
            return await asyncssh.get_server_host_key(
                host, number, config=None, server_host_key_algs=algorithms or "default"
            )
    return None


def login(visit: Visit) -> Said:
    """The portal can act as the account."""
    if not visit.username:
        return skipped(_("No operator of the cluster and no administrator is named: say whose account to use (--as)."))
    seconds = 2 * visit.cluster.connect_timeout_seconds * len(visit.cluster.login_hosts) + 5
    try:
        credential = credential_of(visit.cluster)
        connection = visit.wait_for(
            visit.hands.pool.connection(visit.cluster, visit.username, reason=REASON), max(seconds, 10)
        )
    except CAError:
        return skipped(_("It needs “%(what)s” first."), what=Words(_("The SSH authority")))
    except LoginRefused as error:
        return broken(
            _("The login host refuses %(user)s: %(words)s"),
            credential.on_refusal,
            user=visit.username,
            words=error.detail,
        )
    except HostKeyChanged as error:
        return broken(
            _("The login host's key is not the known one: %(words)s"),
            _("See the check of the host key."),
            words=error.detail,
        )
    except SSHError as error:
        return broken(
            _("No connection as %(user)s: %(words)s"),
            _("Look into the log of sshd on the login host: it says how far the login came."),
            user=visit.username,
            words=error.detail,
        )
    return fine(_("Signed in as %(user)s at %(host)s."), user=visit.username, host=login_host_of(connection))


def shell(visit: Visit) -> Said:
    """Commands run, and the shell's start-up files print nothing of their own."""
    result = visit.run("true")
    if result.exit_status:
        return broken(
            _("%(user)s cannot run commands: %(words)s"),
            _("Give the account an ordinary shell; sshd must not force a command (ForceCommand)."),
            user=visit.username,
            words=one_line((result.stderr or result.stdout).decode(errors="replace")) or f"exit {result.exit_status}",
        )
    if result.stdout:
        return broken(
            _("The shell of %(user)s prints “%(words)s” before every command, which spoils the answers."),
            _("Take it out of .bashrc or .cshrc, or print it only for people: [[ $- == *i* ]] && echo …"),
            command="ssh LOGIN-HOST true",
            user=visit.username,
            words=one_line(result.stdout.decode(errors="replace"))[:80],
        )
    if result.stderr.strip():
        return doubtful(
            _("The shell of %(user)s complains before every command: %(words)s"),
            _("Mend its start-up files (.bashrc, /etc/bash.bashrc)."),
            command="ssh LOGIN-HOST true",
            user=visit.username,
            words=one_line(result.stderr.decode(errors="replace")),
        )
    return fine(_("Commands run, and nothing else is printed."))


def clock(visit: Visit) -> Said:
    """The cluster's clock agrees with ours: certificates are valid for minutes."""
    began_at = time.time()
    text = visit.run("date", "+%s").stdout.decode(errors="replace").strip()
    if not text.isdigit():
        return doubtful(_("The login host does not tell its time."), _("See the check of the shell."))
    difference = int(text) + 0.5 - (began_at + time.time()) / 2
    if abs(difference) > CLOCK_SECONDS:
        return doubtful(
            _("The login host's clock differs from ours by %(seconds)s s; certificates are valid for minutes only."),
            _("Let both follow a time server (chrony, systemd-timesyncd)."),
            command="timedatectl",
            seconds=f"{difference:.0f}",
        )
    return fine(_("The clocks agree to about %(seconds)s s."), seconds=f"{abs(difference):.0f}")
