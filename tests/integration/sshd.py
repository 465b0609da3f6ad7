"""OpenSSH's own sshd on loopback with one account and the portal's authority, without touching the machine's own.

As root, sshd gets a private view of /etc/passwd in which alice exists (a mount namespace, gone with the process); as an
ordinary account it can sign in nobody but that account. ``FOOTBRIDGE_TEST_SSHD`` names an sshd that is not installed.
``openssh`` is its bigger sister, with passwords, locks and expiry.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.ssh.ca import UserCA, create_user_ca, load_user_ca
from tests.integration.ssh_server import cluster_of, free_port
from tests.waiting import wait_for

SSHD = os.environ.get("FOOTBRIDGE_TEST_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or ""
AS_ROOT = os.geteuid() == 0

needs_sshd = [
    pytest.mark.integration,
    pytest.mark.skipif(not SSHD, reason="no sshd here (Debian: openssh-server)"),
    pytest.mark.skipif(
        AS_ROOT and not shutil.which("unshare"), reason="as root, unshare is needed to invent an account"
    ),
]

# Everything that is looked up before the switch to the new passwd file happens in the namespace, and nowhere
# else.
_AS_ROOT = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
chown 54321:54321 "$1/home"
shift
exec "$@"
"""


@dataclass(frozen=True)
class Sshd:
    username: str
    cluster: Cluster
    ca: UserCA
    home: Path


@contextlib.contextmanager
def running_sshd(more: str = "") -> Iterator[Sshd]:
    """Start sshd; ``more`` are further lines of its configuration."""
    # not in pytest's own folder: every other run of pytest closes that again to all accounts but its own
    with tempfile.TemporaryDirectory(prefix="fb-sshd-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # sshd, and the account it becomes, must be able to pass
        with _running(folder, more) as host:
            yield host


@contextlib.contextmanager
def _running(folder: Path, more: str) -> Iterator[Sshd]:
    (folder / "home").mkdir(mode=0o700)
    create_user_ca(folder / "ca")
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "host_key").touch(mode=0o600)
    (folder / "host_key").write_bytes(host_key.export_private_key("openssh"))
    (folder / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "sshd:x:54320:65534::/run/sshd:/usr/sbin/nologin\n"
        f"alice:x:54321:54321::{folder}/home:/bin/sh\n"
    )
    port = free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nTrustedUserCAKeys {folder}/ca.pub\n"
        f"AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"PidFile none\nSubsystem sftp internal-sftp\nStrictModes no\n{more}\n"
    )
    command = [str(Path(SSHD).resolve()), "-D", "-e", "-f", str(folder / "config")]
    if AS_ROOT:
        command = ["unshare", "--mount", "/bin/sh", "-c", _AS_ROOT, "sh", str(folder), *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    try:
        log_file = folder / "log"
        wait_for(
            lambda: b"Server listening" in log_file.read_bytes() or process.poll() is not None,
            seconds=10,
            what="sshd to listen",
        )
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log_file.read_text('utf-8', 'replace')[-200:]}")
        line = host_key.export_public_key("openssh").decode().strip()
        yield Sshd(
            "alice" if AS_ROOT else getpass.getuser(),
            cluster_of(port, host_keys=[line]),
            load_user_ca(folder / "ca"),
            folder / "home" if AS_ROOT else Path.home(),
        )
    finally:
        process.terminate()
        process.wait(60)
