"""What ``doctor`` finds on a login host with OpenSSH's own sshd, where the system decides.

The scheduler there is three lines of shell; what it says is what a healthy PBS says. Only root can invent an account.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from launcher.clusters import Cluster
from launcher.doctor import plan
from launcher.doctor.findings import Finding, Outcome
from tests.integration.ssh_server import cluster_of, free_port
from tests.integration.sshd import SSHD
from tests.integration.test_doctor_cluster import cure, only_trouble, outcomes
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not SSHD, reason="no sshd here (Debian: openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can invent an account"),
]
UID = 54323
_NAMESPACE = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
shift
exec "$@"
"""
_QSTAT = """#!/bin/sh
echo '{"pbs_server": "pbs01", "Queue": {"workq": {"enabled": "True", "started": "True"}}}'
"""
_PBSNODES = """#!/bin/sh
echo '{"pbs_server": "pbs01", "nodes": {"localhost": {"state": "free"}}}'
"""
_PYTHON = """#!/bin/sh
echo "footbridge:jupyter_server 2.21.1"
"""
_NOTHING = """#!/bin/sh
exit 0
"""


class Host:
    """A login host on which alice may do what its sshd_config says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port = free_port()
        self._key = asyncssh.generate_private_key("ssh-ed25519")

    def prepare(self, user_ca: Path, extra: str, sftp: str) -> None:
        """The files of the host and of alice's home."""
        self.folder.chmod(0o755)  # sshd, and the account it becomes, must be able to pass
        (self.folder / "host_key").touch(mode=0o600)
        (self.folder / "host_key").write_bytes(self._key.export_private_key("openssh"))
        shutil.copy(user_ca, self.folder / "ca.pub")
        (self.folder / "passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nsshd:x:54320:65534::/run/sshd:/usr/sbin/nologin\n"
            f"alice:x:{UID}:{UID}::{self.home}:/bin/bash\n"
        )
        (self.folder / "config").write_text(
            f"{extra}\nListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder}/host_key\n"
            f"TrustedUserCAKeys {self.folder}/ca.pub\nAuthorizedKeysFile none\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nSubsystem sftp {sftp}\nStrictModes no\n"
        )
        bin_folder = self.home / "bin"
        bin_folder.mkdir(parents=True)
        programs = dict.fromkeys(("qsub", "qdel", "qselect", "jupyter-lab"), _NOTHING)
        for name, text in (programs | {"qstat": _QSTAT, "pbsnodes": _PBSNODES, "python": _PYTHON}).items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        self.write(".bash_profile", f"PATH={bin_folder}:$PATH\n")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, UID, UID)
        self.home.chmod(0o700)

    def write(self, name: str, text: str) -> None:
        """One of alice's own files."""
        (self.home / name).write_text(text)
        os.chown(self.home / name, UID, UID)

    def cluster(self) -> Cluster:
        """The cluster of this login host."""
        line = self._key.export_public_key("openssh").decode().strip()
        return cluster_of(
            self.port,
            host_keys=[line],
            commands_folder=str(self.home / "bin"),
            queues=({"name": "workq"},),
            commands_per_second=100,
        )

    def look(self) -> list[Finding]:
        """All findings as alice."""
        return list(plan.check_cluster(self.cluster(), "alice"))


@contextlib.contextmanager
def running(user_ca: Path, extra: str = "", *, sftp: str = "internal-sftp") -> Iterator[Host]:
    """sshd with these further lines in its configuration."""
    # not in pytest's own folder: every other run of pytest closes that again to all accounts but its own
    with tempfile.TemporaryDirectory(prefix="fb-sshd-") as name:
        yield from _running(Path(name), user_ca, extra, sftp)


def _running(folder: Path, user_ca: Path, extra: str, sftp: str) -> Iterator[Host]:
    host = Host(folder)
    host.prepare(user_ca, extra, sftp)
    log = folder / "log"
    command = ["unshare", "--mount", "/bin/sh", "-c", _NAMESPACE, "sh", str(folder)]
    command += [str(Path(SSHD).resolve()), "-D", "-e", "-f", str(folder / "config")]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: b"Server listening" in log.read_bytes() or process.poll() is not None, what="sshd to listen")
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text('utf-8', 'replace')[-200:]}")
        yield host
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def host(user_ca: Path, valkey: None) -> Iterator[Host]:
    """A healthy login host."""
    with running(user_ca) as one:
        yield one


def test_nothing_is_wrong_with_a_healthy_login_host(host: Host) -> None:
    findings = host.look()
    assert [one.said for one in findings if one.outcome in (Outcome.DOUBTFUL, Outcome.BROKEN)] == []
    assert outcomes(findings)["cluster.forwarding"] == "ok"


def test_a_jupyter_that_is_a_link_is_found_with_its_own_python(host: Host) -> None:
    away = host.home / "venv"
    away.mkdir(mode=0o755)
    for name in ("jupyter-lab", "python"):
        (host.home / "bin" / name).rename(away / name)
    (host.home / "bin" / "jupyter-lab").symlink_to(away / "jupyter-lab")
    assert outcomes(host.look())["cluster.jupyter"] == "ok"


def test_forwarding_that_is_switched_off_is_named_with_the_line_for_sshd(user_ca: Path, valkey: None) -> None:
    with running(user_ca, "AllowTcpForwarding no") as host:
        found = only_trouble(host.look())
    assert found.id == "cluster.forwarding"
    assert "AllowTcpForwarding local" in cure(found)


def test_a_shell_that_talks_is_named_with_what_it_says(host: Host) -> None:
    host.write(".bashrc", "echo Welcome to the machine\n")
    findings = host.look()
    found = only_trouble(findings)
    assert found.id == "cluster.shell"
    assert "Welcome to the machine" in found.said.what.english()
    assert ".bashrc" in cure(found)
    assert outcomes(findings)["cluster.scheduler"] == "not checked"


def test_a_shell_that_complains_is_doubtful(host: Host) -> None:
    host.write(".bashrc", "echo no such licence server >&2\n")
    found = only_trouble(host.look())
    assert found.id == "cluster.shell"
    assert found.outcome is Outcome.DOUBTFUL


def test_a_home_that_cannot_be_written_is_named(host: Host) -> None:
    host.home.chmod(0o500)
    found = only_trouble(host.look())
    assert found.id == "cluster.home"
    assert "cannot be written" in found.said.what.english()


def test_a_host_without_sftp_is_named(user_ca: Path, valkey: None) -> None:
    with running(user_ca, sftp="/bin/false") as host:
        found = only_trouble(host.look())
    assert found.id == "cluster.sftp"
    assert "Subsystem sftp internal-sftp" in cure(found)


def test_a_forced_command_is_named(user_ca: Path, valkey: None) -> None:
    with running(user_ca, "ForceCommand /bin/false") as host:
        found = only_trouble(host.look())
    assert found.id == "cluster.shell"
    assert "ForceCommand" in cure(found)
