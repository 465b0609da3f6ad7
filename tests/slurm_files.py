"""What stands in the folder of the tests' Slurm (``tests.slurm``): its configuration, its accounts and their homes, and
the script that sets its namespaces up."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

HOST = "node1"
"""The name of the login host and of the one execution host, inside."""
PARTITION = "work"
FIRST_USER_ID = 54_321
OPERATOR = "slurmoper"
"""The account that the controller runs as: it sees all jobs and may lengthen them, as an operator of a site may."""
USUAL_PATIENCE_SECONDS = 10
"""How long a Slurm command tries to reach its controller; ten is Slurm's own value."""

_TMP = Path("/tmp")

_SLURM_CONF = """
ClusterName=footbridge
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={operator}
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0
MessageTimeout={patience_seconds}
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=65536
PartitionName={partition} Nodes={host} Default=YES MaxTime=08:00:00 State=UP
"""
# config_overrides: the host says that it is as large as written, whatever machine this is.

_SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/etc/host_key
TrustedUserCAKeys {folder}/etc/user_ca.pub
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
MaxStartups 100
PidFile none
Subsystem sftp internal-sftp
"""

_SET_UP = """
set -e
umask 022
folder=$1
chmod 755 "$folder/home" "$folder/etc/slurm"
chmod 644 "$folder/etc/slurm/slurm.conf" "$folder/etc/hosts"
hostname {host}
mount -t tmpfs -o mode=755 none /run
# A copy: where the machine's own file is replaced, as by useradd, what is mounted over it is taken away, see rename(2).
cp --archive /etc /run/etc
mount --bind /run/etc /etc
for name in passwd group shadow hosts slurm; do mount --bind "$folder/etc/$name" "/etc/$name"; done
mkdir /run/munge /run/sshd /run/kept
{mounts}
munged --force --key-file="$folder/munge/key" --seed-file="$folder/munge/seed" --pid-file=/run/munge/pid \\
  --log-file="$folder/log/munged.log"
chown -R {operator} "$folder/state" "$folder/log"
touch /run/slurmctld.pid
chown {operator} /run/slurmctld.pid
slurmctld
slurmd
"$(command -v sshd)" -f "$folder/etc/sshd_config" -E "$folder/log/sshd.log"
echo ready
# The first process inherits all orphans and waits for them. It ends with the tests, whatever ends those.
exec 3<&0
cat <&3 >/dev/null &
wait $!
"""


@dataclass(frozen=True, slots=True)
class SlurmFolder:
    """The folder. The same paths hold inside and outside of the namespaces."""

    root: Path
    sshd_port: int
    controller_port: int
    daemon_port: int

    def write(self, accounts: Mapping[str, str], *, user_ca_public_key: Path, host_key: bytes) -> None:
        """Everything that must be there before the first process starts. ``accounts``: names with their passwords."""
        for name in ("etc", "etc/slurm", "log", "state", "spool", "munge", "home"):
            (self.root / name).mkdir(mode=0o755)
        etc = self.root / "etc"
        self.write_slurm_conf(USUAL_PATIENCE_SECONDS)
        (etc / "sshd_config").write_text(_SSHD_CONFIG.format(folder=self.root, port=self.sshd_port))
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {HOST}\n")
        shutil.copyfile(user_ca_public_key, etc / "user_ca.pub")
        _private(etc / "host_key", host_key)
        _private(self.root / "munge" / "key", os.urandom(128))
        self._write_accounts(etc, accounts)

    def write_slurm_conf(self, patience_seconds: int) -> None:
        """Daemons read it when they start, commands whenever they run."""
        text = _SLURM_CONF.format(
            host=HOST,
            folder=self.root,
            operator=OPERATOR,
            partition=PARTITION,
            controller_port=self.controller_port,
            daemon_port=self.daemon_port,
            patience_seconds=patience_seconds,
        )
        (self.root / "etc" / "slurm" / "slurm.conf").write_text(text)

    def home(self, name: str) -> Path:
        """An account's home folder."""
        return self.root / "home" / name

    def _write_accounts(self, etc: Path, accounts: Mapping[str, str]) -> None:
        """The machine's accounts with ours behind them: Debian's own are needed by its programs."""
        lines = {name: _without(Path("/etc") / name, {*accounts, OPERATOR}) for name in ("passwd", "group", "shadow")}
        everybody = {**accounts, OPERATOR: secrets.token_urlsafe()}
        for number, (name, password) in enumerate(everybody.items(), FIRST_USER_ID):
            home = self.home(name)
            lines["passwd"].append(f"{name}:x:{number}:{number}:{name.title()}:{home}:/bin/bash")
            lines["group"].append(f"{name}:x:{number}:")
            lines["shadow"].append(f"{name}:{_hashed(password)}:19000:0:99999:7:::")
            home.mkdir(mode=0o700)
            profile = home / ".profile"
            profile.write_text(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n")
            for path in (home, profile):
                os.chown(path, number, number)
        for name, content in lines.items():
            _private(etc / name, ("\n".join(content) + "\n").encode())
            (etc / name).chmod(0o600 if name == "shadow" else 0o644)

    def script(self) -> str:
        """The set-up. Jobs get a /tmp of their own, and may read this Python and its packages wherever they lie."""
        hidden = {_TMP: "1777"}
        kept: list[Path] = []
        for path in sorted({self.root, Path(sys.prefix), Path(sys.base_prefix)}):
            closed = _TMP if _TMP in path.parents else _closed_above(path)
            if closed and not set(kept) & set(path.parents):
                hidden.setdefault(closed, "755")
                kept.append(path)
        mounts = []
        for number, path in enumerate(kept):
            mounts += [f"mkdir /run/kept/{number}", f"mount --bind {shlex.quote(str(path))} /run/kept/{number}"]
        mounts += [f"mount -t tmpfs -o mode={mode} none {shlex.quote(str(path))}" for path, mode in hidden.items()]
        for number, path in enumerate(kept):
            quoted = shlex.quote(str(path))
            mounts += [f"mkdir -p {quoted}", f"mount --bind /run/kept/{number} {quoted}"]
        return _SET_UP.format(host=HOST, operator=OPERATOR, mounts="\n".join(mounts))


def _private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _without(path: Path, names: Collection[str]) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.partition(":")[0] not in names]


def _hashed(password: str) -> str:
    """As in /etc/shadow. The libraries of this Python may not know how; Debian's Perl always does."""
    program = "chomp($p = <STDIN>); print crypt($p, q($6$footbridge$))"
    done = subprocess.run(["perl", "-e", program], input=password, capture_output=True, text=True, check=True)
    return done.stdout


def _closed_above(path: Path) -> Path | None:
    """The outermost folder above ``path`` that only its owner may pass."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None
