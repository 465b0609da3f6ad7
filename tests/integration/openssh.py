"""OpenSSH's own sshd with accounts of the test's making: passwords, keys and certificates, locks and expiry.

Needs root: sshd gets a private view of /etc/passwd, /etc/group and /etc/shadow (a mount namespace, gone with the
process), in which alice has a home and bob has one on a file system that is full. Where PAM shall judge, it gets a
private /etc/pam.d, too. ``FOOTBRIDGE_TEST_SSHD`` names an sshd that is not installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.ssh.ca import UserCA, load_user_ca
from tests.integration.ssh_server import cluster_of, free_port
from tests.waiting import wait_for

SSHD = os.environ.get("FOOTBRIDGE_TEST_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or ""
PASSWORD = "correct horse battery"
UID = {"alice": 54321, "bob": 54322}

needs_openssh = [
    pytest.mark.integration,
    pytest.mark.skipif(not SSHD, reason="no sshd here (Debian: openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can invent accounts"),
    pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare here (Debian: util-linux)"),
]

# What is looked up before the switch to the new files happens in the namespace, and nowhere else.
_NAMESPACE = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount --bind "$1/group" /etc/group
[ ! -d "$1/pam.d" ] || mount --bind "$1/pam.d" /etc/pam.d
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
mount -t tmpfs -o size=64k,mode=700,uid=54322,gid=54322 none "$1/bob"
mkdir -m 700 "$1/bob/.ssh"
chown 54322:54322 "$1/bob/.ssh"
cat /dev/zero >"$1/bob/data" 2>/dev/null || true
shift
exec "$@"
"""


@dataclass
class OpenSSH:
    """A running sshd. ``lock``, ``expire`` and ``mend`` change an account while it runs."""

    folder: Path
    port: int
    ca: UserCA
    host_key: asyncssh.SSHKey
    host_ca: asyncssh.SSHKey
    hash: str
    shadow: dict[str, str] = field(default_factory=dict)

    @property
    def key_line(self) -> str:
        """The host's public key."""
        return line_of(self.host_key)

    @property
    def log(self) -> str:
        """What sshd has written so far."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def home(self, username: str = "alice") -> Path:
        """The account's home folder."""
        return self.folder / username

    def keys_file(self) -> Path:
        """Alice's authorized_keys."""
        return self.home() / ".ssh" / "authorized_keys"

    def cluster(self, **options: Any) -> Cluster:
        """A cluster with this login host."""
        return cluster_of(self.port, **{"host_keys": [self.key_line], **options})

    def lock(self, username: str = "alice") -> None:
        """As ``passwd -l``."""
        self._write({username: f"{username}:!{self.hash}:19000:0:99999:7:::"})

    def expire(self, username: str = "alice") -> None:
        """As ``chage -E 1``: the account ended on the second of January 1970."""
        self._write({username: f"{username}:{self.hash}:19000:0:99999:7::1:"})

    def change_password(self, password: str, username: str = "alice") -> None:
        """Another password from now on."""
        self._write({username: f"{username}:{hash_of(password)}:19000:0:99999:7:::"})

    def change_password_first(self, username: str = "alice") -> None:
        """As ``chage -d 0``: the password is right, and another one must be chosen."""
        self._write({username: f"{username}:{self.hash}:0:0:99999:7:::"})

    def pam(self, *lines: str) -> None:
        """What PAM does from the next login on, for an sshd that asks it."""
        (self.folder / "pam.d" / "sshd").write_text("\n".join(lines) + "\n")

    def mend(self) -> None:
        """Accounts and alice's home as they were at the start."""
        self._write({})
        for entry in self.home().iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.home().chmod(0o700)

    def _write(self, changed: dict[str, str]) -> None:
        lines = {"root": "root:*:19000:0:99999:7:::", "sshd": "sshd:*:19000:0:99999:7:::"}
        lines |= {name: f"{name}:{self.hash}:19000:0:99999:7:::" for name in UID} | changed
        (self.folder / "shadow").write_text("\n".join(lines.values()) + "\n")  # in place: it is mounted


def line_of(key: asyncssh.SSHKey) -> str:
    """The public half on one line."""
    return key.export_public_key("openssh").decode().strip()


def hash_of(password: str) -> str:
    """As it stands in /etc/shadow."""
    command = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(command, input=password, text=True, stdout=subprocess.PIPE, check=True).stdout.strip()


@contextlib.contextmanager
def openssh(ca_file: Path, *, uses_pam: bool = False, more: str = "") -> Iterator[OpenSSH]:
    """Start sshd. ``ca_file``: the private key of the portal's CA, which it trusts.

    ``uses_pam``: it asks PAM (see ``OpenSSH.pam``), by keyboard-interactive, instead of for passwords itself. ``more``:
    further lines of its configuration.
    """
    # not in pytest's own folder: every other run of pytest closes that again to all accounts but its own
    with tempfile.TemporaryDirectory(prefix="fb-sshd-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # sshd, and the account it becomes, must be able to pass
        with _running(folder, ca_file, uses_pam, more) as host:
            yield host


@contextlib.contextmanager
def _running(folder: Path, ca_file: Path, uses_pam: bool, more: str) -> Iterator[OpenSSH]:
    ca = load_user_ca(ca_file)
    if uses_pam:
        (folder / "pam.d").mkdir()
    (folder / "ca.pub").write_text(ca.public_line + "\n")
    host_key, host_ca = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    (folder / "host_key").touch(mode=0o600)
    (folder / "host_key").write_bytes(host_key.export_private_key("openssh"))
    certificate = host_ca.generate_host_certificate(host_key, "login1", principals=["127.0.0.1"])
    (folder / "host_key-cert.pub").write_bytes(certificate.export_certificate())
    for name, uid in UID.items():
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, uid, uid)
    (folder / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:54320:65534::/run/sshd:/usr/sbin/nologin\n"
        + "".join(f"{name}:x:{uid}:{uid}::{folder / name}:/bin/sh\n" for name, uid in UID.items())
    )
    (folder / "group").write_text(
        "root:x:0:\nnogroup:x:65534:\n" + "".join(f"{name}:x:{uid}:\n" for name, uid in UID.items())
    )
    port = free_port()
    host = OpenSSH(folder, port, ca, host_key, host_ca, hash_of(PASSWORD))
    (folder / "shadow").touch(mode=0o600)
    host.mend()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nHostCertificate {folder}/host_key-cert.pub\n"
        f"TrustedUserCAKeys {folder}/ca.pub\nPasswordAuthentication {_yes(not uses_pam)}\n"
        f"KbdInteractiveAuthentication {_yes(uses_pam)}\nUsePAM {_yes(uses_pam)}\n"
        f"PidFile none\nSubsystem sftp internal-sftp\nStrictModes yes\nLogLevel VERBOSE\n{more}\n"
    )
    command = ["unshare", "--mount", "/bin/sh", "-c", _NAMESPACE, "sh", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(Path(SSHD).resolve()), "-D", "-e", "-f", str(folder / "config")],
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: "Server listening" in host.log or process.poll() is not None, what="sshd")
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {host.log[-200:]}")
        yield host
    finally:
        process.terminate()
        process.wait(60)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
