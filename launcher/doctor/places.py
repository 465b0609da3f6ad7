"""Checks of what a session meets on a cluster: files, the way to an execution host, modules, images, Jupyter.

What is asked on the login host about modules and programs is a hint: execution hosts may be set up otherwise.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence

from launcher.doctor import datapath
from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, skipped
from launcher.doctor.visit import REASON, Visit
from launcher.schedulers.base import SchedulerError
from launcher.ssh.errors import RemoteFileError, SSHError, TimedOut, TunnelRefused
from launcher.ssh.files import RemoteFiles
from portal.words import marked as _

FREE_MIB = 100
IMAGES = (".sif", ".simg", ".img")
MOST_NAMES = 500
PROBE_PORT = 54321
"""Among those that a session's server gets; nobody need listen there: a refusal shows that the way is open."""

# Defines the module command as job scripts do, then tries each argument. One line an argument: "ok NAME", "no NAME".
_MODULES = r"""
for file in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" \
  /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh; do
  [ "$(type -t module)" = function ] && break
  [ -r "$file" ] && . "$file"
done
if [ -z "$(type -t module)" ]; then echo "footbridge:none"; exit 0; fi
for name do
  words=$( (module load "$name") 2>&1 >/dev/null </dev/null) && status=ok || status=no
  case $words in
    *"Unable to locate a modulefile"* | *"module(s) are unknown"* | *"cannot be loaded as requested"* | *":ERROR:"*)
      status=no ;;
  esac
  echo "footbridge:$status $name"
done
"""
_JUPYTER = r"""
found=$(command -v jupyter-lab || command -v jupyter) || exit 1
for python in "$(dirname "$found")/python" "$(dirname "$(readlink -f "$found")")/python" python3 python; do
  for name in jupyter_server notebook; do
    "$python" -c "import $name; print('footbridge:$name', $name.__version__)" 2>/dev/null && exit 0
  done
done
exit 1
"""
_CONTAINERS = (
    'for c in apptainer singularity; do command -v "$c" >/dev/null && echo "footbridge:$c" && exit 0; done; exit 1'
)


def sftp(visit: Visit) -> Said:
    """Files can be written and read: SFTP is there, and shows the home folder that commands see."""

    async def look() -> str:
        async with visit.hands.files(visit.cluster, visit.username, reason=REASON) as files:
            return await files.home()

    try:
        home = visit.wait_for(look())
    except SSHError as error:
        return broken(
            _("There is no SFTP: %(words)s"),
            _("sshd needs the line “Subsystem sftp internal-sftp”; start-up files of the shell must print nothing."),
            words=error.detail,
        )
    seen = visit.run("sh", "-c", 'cd -P -- "$1" 2>/dev/null && [ -O . ] && echo ours', "sh", home)
    if b"ours" not in seen.stdout:
        return broken(
            _("SFTP begins in %(home)s, which commands do not see as the home folder of %(user)s."),
            _("Take ChrootDirectory out of sshd_config for these accounts: jobs must find what SFTP writes."),
            home=home,
            user=visit.username,
        )
    return fine(_("SFTP works; the home folder is %(home)s."), home=home)


def home(visit: Visit) -> Said:
    """The home folder can be written, and is not full."""

    async def write(files: RemoteFiles) -> None:
        path = f".footbridge-doctor-{secrets.token_hex(6)}"
        try:
            await files.write_new(path, secrets.token_bytes(65_536), 0o600)
        finally:
            await files.remove(path)

    async def look() -> None:
        async with visit.hands.files(visit.cluster, visit.username, reason=REASON) as files:
            await write(files)

    try:
        visit.wait_for(look())
    except RemoteFileError as error:
        if error.code == "file.full":
            return broken(
                _("The home folder of %(user)s is full, or its quota is used up."),
                _("Make room there: no session can start without it."),
                command="quota -s; df -h ~",
                user=visit.username,
            )
        return broken(
            _("The home folder of %(user)s cannot be written: %(words)s"),
            _("Mount it for writing, and let it belong to the account."),
            command="ls -ld ~; mount | grep home",
            user=visit.username,
            words=error.detail,
        )
    lines = visit.run("df", "-Pk", ".").stdout.decode(errors="replace").splitlines()
    free = lines[-1].split()[3:4] if len(lines) > 1 else []
    if free and free[0].isdigit() and int(free[0]) < FREE_MIB * 1024:
        return doubtful(
            _("There is little room where the home folder of %(user)s is: %(mib)s MiB."),
            _("Make room there."),
            command="quota -s; df -h ~",
            user=visit.username,
            mib=int(free[0]) // 1024,
        )
    return fine(_("The home folder of %(user)s can be written."), user=visit.username)


def sessions_folder(visit: Visit) -> Said:
    """The folder for sessions is a folder of the account, or can be made."""
    path = visit.cluster.sessions_folder

    async def look() -> str:
        async with visit.hands.files(visit.cluster, visit.username, reason=REASON) as files:
            return await files.kind(path)

    try:
        kind = visit.wait_for(look())
    except RemoteFileError as error:
        kind = error.detail
    if kind == "missing":
        return fine(_("~/%(path)s is not there yet; the first session makes it."), path=path)
    if kind != "folder":
        return broken(
            _("~/%(path)s of %(user)s is no folder that the portal can use: %(kind)s."),
            _("Move away what is there; sessions keep their files below it."),
            command=f"ls -ld ~/{path}",
            path=path,
            user=visit.username,
            kind=kind,
        )
    seen = visit.run("sh", "-c", '[ -d "$HOME/$1" ] && [ -O "$HOME/$1" ] && [ -w "$HOME/$1" ] && echo ours', "sh", path)
    if b"ours" not in seen.stdout:
        return broken(
            _("~/%(path)s does not belong to %(user)s, or cannot be written."),
            _("Give it back to the account, mode 0700."),
            command=f"ls -ld ~/{path}",
            path=path,
            user=visit.username,
        )
    return fine(_("~/%(path)s is there. That execution hosts see it, only a session shows."), path=path)


def forwarding(visit: Visit) -> Said:
    """The portal gets through the login host to an execution host."""
    host = _execution_host(visit)
    if visit.cluster.reach == "ssh-node":
        return datapath.to_node(visit, host)
    if visit.cluster.reach == "direct":
        return datapath.by_tcp(visit, host)

    async def probe() -> None:
        transport, _protocol = await visit.hands.tunnel(
            visit.cluster, visit.username, host or "127.0.0.1", PROBE_PORT, asyncio.Protocol, reason=REASON
        )
        transport.abort()

    try:
        visit.wait_for(probe())
    except TunnelRefused as error:
        if error.code == "ssh.forwarding_prohibited":
            return broken(
                _("The login host forbids the way to execution hosts: %(words)s"),
                _("Set “AllowTcpForwarding local” in sshd_config there (and no PermitOpen that leaves them out)."),
                command="sshd -T | grep -iE 'allowtcpforwarding|permitopen|disableforwarding'",
                words=error.detail,
            )
        if host and not re.search("refused|Errno 111", error.detail, re.IGNORECASE):
            return doubtful(
                _("Forwarding is allowed, but the login host does not get to %(host)s: %(words)s"),
                _("The login host must reach ports 1024 to 65535 of the execution hosts by this name."),
                command=f"nc -vz {host} {PROBE_PORT}",
                host=host,
                words=error.detail,
            )
    except TimedOut:
        return doubtful(
            _("Forwarding to %(host)s gets no answer: something on the way swallows it."),
            _("Let the firewall pass ports 1024 to 65535 from the login host to the execution hosts."),
            command=f"nc -vz {host} {PROBE_PORT}",
            host=host or "127.0.0.1",
        )
    if not host:
        return fine(_("Forwarding is allowed. No execution host is known to be up, so none was tried."))
    return fine(_("Forwarding is allowed, and %(host)s is reached."), host=host)


def _execution_host(visit: Visit) -> str:
    """An execution host that is up, or nothing: old clients cannot tell in a form that can be read."""
    try:
        nodes = visit.ask(
            lambda scheduler: scheduler.nodes_command(), lambda scheduler, result: scheduler.parse_nodes(result)
        )
    except (SchedulerError, SSHError):
        return ""
    return next((node.name for node in nodes if node.is_up), "")


def _answers(visit: Visit, script: str, *arguments: str) -> list[str]:
    """What a script in a login shell says, as jobs have one; other things it prints do not count."""
    result = visit.run("bash", "-l", "-c", script, "bash", *arguments)
    lines = result.stdout.decode(errors="replace").splitlines()
    return [line.removeprefix("footbridge:") for line in lines if line.startswith("footbridge:")]


def modules(visit: Visit) -> Said:
    """The modules of the clusters file can be loaded."""
    if not visit.cluster.modules:
        return skipped(_("The clusters file offers no modules."))
    said = _answers(visit, _MODULES, *visit.cluster.modules)
    if "none" in said:
        return broken(
            _("The clusters file offers modules, and there is no module command on the login host."),
            _("Install Environment Modules or Lmod, or take “modules” out of the clusters file."),
            command="bash -lc 'type module'",
        )
    missing = [name for name in visit.cluster.modules if f"ok {name}" not in said]
    if missing:
        return broken(
            _("These modules cannot be loaded on the login host: %(missing)s."),
            _("Correct “modules” in the clusters file; the command lists what there is."),
            command="bash -lc 'module avail'",
            missing=", ".join(missing),
        )
    return fine(_("The modules can be loaded: %(names)s."), names=", ".join(visit.cluster.modules))


def images(visit: Visit) -> Sequence[Said]:
    """The folders of container images are there and hold some."""
    if not visit.cluster.image_folders:
        return [skipped(_("The clusters file names no folders of images."))]

    async def look() -> list[Said]:
        found: list[Said] = []
        async with visit.hands.files(visit.cluster, visit.username, reason=REASON) as files:
            for folder in visit.cluster.image_folders:
                try:
                    names = await files.names(folder, MOST_NAMES)
                except RemoteFileError as error:
                    found.append(
                        broken(
                            _("The folder of images %(folder)s cannot be read: %(words)s"),
                            _("Correct image_folders in the clusters file, or let everybody read the folder."),
                            command=f"ls -ld {folder}",
                            folder=folder,
                            words=error.detail,
                        )
                    )
                    continue
                if not any(name.endswith(IMAGES) for name in names):
                    found.append(
                        doubtful(
                            _("The folder %(folder)s holds no image (.sif, .simg, .img)."),
                            _("Put images there, or take it out of the clusters file."),
                            folder=folder,
                        )
                    )
        return found

    folders = ", ".join(visit.cluster.image_folders)
    return visit.wait_for(look()) or [fine(_("There are images in %(folders)s."), folders=folders)]


def containers(visit: Visit) -> Said:
    """Apptainer or Singularity is there, where images are offered."""
    if not visit.cluster.image_folders:
        return skipped(_("The clusters file names no folders of images."))
    said = _answers(visit, _CONTAINERS)
    if not said:
        return doubtful(
            _("Neither apptainer nor singularity is on the login host."),
            _("If execution hosts have none either, install Apptainer there, or offer no images."),
            command="bash -lc 'command -v apptainer singularity'",
        )
    return fine(_("%(name)s is there."), name=said[0])


def jupyter(visit: Visit) -> Said:
    """What people get who choose no environment. Asked on the login host: a hint only."""
    said = _answers(visit, _JUPYTER)
    name, _space, version = said[0].partition(" ") if said else ("", "", "")
    if not version:
        return doubtful(
            _("The login host's default environment has no Jupyter; people must choose another one."),
            _("Install JupyterLab for everybody, or offer a module that has it. Execution hosts may differ."),
            command="bash -lc 'command -v jupyter-lab'",
        )
    major = version.split(".")[0]
    if name == "notebook" and major.isdigit() and int(major) < 5:
        return doubtful(
            _("The default environment's %(name)s %(version)s is too old."),
            _("Release 5 of notebook, or any jupyter_server, is needed."),
            name=name,
            version=version,
        )
    return fine(_("The default environment has %(name)s %(version)s."), name=name, version=one_line(version))
