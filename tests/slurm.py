"""A real Slurm on this machine for the tests: munge, controller, one execution host, and OpenSSH's sshd as its login
host.

All of it runs in namespaces of its own: there the execution host has a name, accounts exist whose jobs run under their
own user ids, and Slurm lies where Debian puts it, while the machine itself is left as it is. When the first process of
the namespaces ends, the kernel ends every other one, jobs included. Needs root and Debian's packages ``slurm-wlm``,
``munge`` and ``openssh-server``; ``why_not`` says what is missing.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from launcher.demo.ports import free_port
from tests.conftest import toml_value
from tests.slurm_files import HOST, PARTITION, USUAL_PATIENCE_SECONDS, SlurmFolder
from tests.waiting import wait_for

CLUSTER_ID = "slurm"

_PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "munged": "munge",
    "sshd": "openssh-server",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "perl": "perl-base",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


def why_not() -> str:
    """Why there can be no Slurm here; empty when there can."""
    if os.geteuid() != 0:
        return "a real Slurm needs root: its jobs run as their users"
    for program, package in _PROGRAMS.items():
        if not shutil.which(program, path=_SYSTEM_PATH):
            return f"no {program} here (Debian: {package})"
    tried = subprocess.run([*_NAMESPACES, "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False)
    if tried.returncode:
        return f"no namespaces here: {tried.stderr.decode(errors='replace').strip()[:200]}"
    return ""


class SlurmSite:
    """A running Slurm with its login host. ``accounts``: names with their passwords."""

    def __init__(self, root: Path, user_ca_public_key: Path, accounts: Mapping[str, str]) -> None:
        self.port = free_port()
        self._folder = SlurmFolder(root, self.port, controller_port=free_port(), daemon_port=free_port())
        self._log = root / "log"
        self._accounts = accounts
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_public_key = host_key.export_public_key("openssh").decode().strip()
        self._folder.write(
            accounts, user_ca_public_key=user_ca_public_key, host_key=host_key.export_private_key("openssh")
        )
        with (self._log / "setup.log").open("wb") as log:
            command = [*_NAMESPACES, "sh", "-c", self._folder.script(), "sh", str(root)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={"PATH": _SYSTEM_PATH}, cwd="/"
            )
        try:
            wait_for(self._has_begun, what=lambda: f"Slurm to start: {self.logs()}")
            wait_for(self._is_idle, what=lambda: f"the execution host: {self.logs()}")
        except BaseException:
            self.stop()
            raise

    def _has_begun(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Slurm does not start: {self.logs()}")
        return b"ready\n" in (self._log / "setup.log").read_bytes()

    def _is_idle(self) -> bool:
        return self.root("sinfo", "--noheader", "--format=%T", check=False).strip() == "idle"

    @functools.cached_property
    def _first_process(self) -> str:
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def root(self, *command: str, check: bool = True) -> str:
        """What a command of the cluster's administrator prints."""
        inside = ("nsenter", "--target", self._first_process, "--mount", "--uts", "--pid", "--")
        done = subprocess.run(
            [*inside, *command],
            env={"PATH": _SYSTEM_PATH},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def user(self, name: str, *command: str, check: bool = True) -> str:
        """What a command prints when an account runs it, without the portal."""
        become = ("setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--reset-env", "--")
        return self.root(*become, *command, check=check)

    def update(self, **changes: object) -> None:
        """``scontrol update``."""
        self.root("scontrol", "update", *(f"{key}={value}" for key, value in changes.items()))

    def unreadable(self, name: str) -> str:
        """Why an account cannot run this Python with its packages; empty when it can."""
        code = "import tornado.ioloop, traitlets"
        return self.user(
            name, "sh", "-c", f"{shlex.quote(sys.executable)} -c '{code}' 2>&1 || true", check=False
        ).strip()

    def stop_controller(self) -> None:
        """Nobody answers for Slurm any more; jobs run on. Commands find it out sooner than on a true site."""
        self.root("sh", "-c", "kill $(cat /run/slurmctld.pid)")
        wait_for(lambda: not self.root("pidof", "slurmctld", check=False), what="the controller to end")
        self._folder.write_slurm_conf(patience_seconds=1)

    def start_controller(self) -> None:
        """It remembers what it knew."""
        self._folder.write_slurm_conf(USUAL_PATIENCE_SECONDS)
        self.root("slurmctld")
        wait_for(lambda: self.root("scontrol", "ping", check=False).rstrip().endswith("UP"), what="the controller")

    def kill_ssh_server(self) -> None:
        """SIGKILL for sshd and for every connection's process. What they started goes on."""
        self.root("pkill", "-KILL", "-x", "sshd", check=False)
        wait_for(lambda: not self.root("pidof", "sshd", check=False), what="sshd to be gone", pause_seconds=0.01)

    def start_ssh_server(self) -> None:
        """It listens when this returns."""
        log, config = self._log / "sshd.log", self._folder.root / "etc" / "sshd_config"
        self.root("sh", "-c", f'exec "$(command -v sshd)" -f "{config}" -E "{log}"')

    def mend(self) -> None:
        """As it was in the beginning: no jobs, all up."""
        if not self.root("pidof", "slurmctld", check=False):
            self.start_controller()
        for name in self._accounts:
            self.root("scancel", "--full", f"--user={name}", check=False)
        self.update(PartitionName=PARTITION, State="UP")
        if not self._is_idle():
            self.root("scontrol", "update", f"NodeName={HOST}", "State=RESUME", check=False)
        wait_for(lambda: not self.root("squeue", "--noheader"), what="the jobs to go")
        wait_for(self._is_idle, what=lambda: self.root("sinfo"))

    def home(self, name: str) -> Path:
        """An account's home folder, which has the same path inside."""
        return self._folder.home(name)

    def toml(self, **changes: object) -> str:
        """The clusters file for this cluster."""
        values: dict[str, object] = {
            "name": "Slurm",
            "scheduler": "slurm",
            "login_hosts": [f"127.0.0.1:{self.port}"],
            "host_keys": [self.host_public_key],
            "commands_folder": "/usr/bin",
            "listen_address": "127.0.0.1",
            "poll_fast_seconds": 1,
            "poll_slow_seconds": 5,
        } | changes
        lines = [f"[clusters.{CLUSTER_ID}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
        lines += [
            "",
            f"[[clusters.{CLUSTER_ID}.queues]]",
            f'name = "{PARTITION}"',
            "max_cores = 8",
            'max_memory = "8gb"',
        ]
        return "\n".join([*lines, "max_hours = 8", ""])

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        logs = sorted(self._log.iterdir())
        return "\n".join(f"{log.name}: {log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)

    def stop(self) -> None:
        """End every process of the cluster."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def slurm_site(user_ca_public_key: Path, accounts: Mapping[str, str]) -> Iterator[SlurmSite]:
    """A Slurm for as long as the block lasts, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fb-slurm-"))
    folder.chmod(0o755)
    try:
        site = SlurmSite(folder, user_ca_public_key, accounts)
        try:
            yield site
        finally:
            site.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
