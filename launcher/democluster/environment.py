"""Lays out the cluster's folder: homes, login environment, PBS commands, stand-ins and images. No server.

Everything here can be made again over an older layout; users' own files are never touched.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from launcher.democluster.pbs.service import COMMANDS
from launcher.democluster.settings import Account, DemoSettings

_FILES = Path(__file__).with_name("files")
_CLIENT = Path(__file__).with_name("pbs") / "client.py"

NOTICE = (
    "This is a demonstration cluster. Its users share one account of this machine and are separated by name "
    "only: keep nothing here that matters."
)
_README = f"""{NOTICE}

Jobs submitted here run on this machine as ordinary processes. The PBS commands are in {{commands}}
(on the PATH of a login shell only, as on many clusters). Try:

    {{commands}}/qstat -Q
    echo 'sleep 30' | {{commands}}/qsub
"""
_BASH_PROFILE = """# Made for the demonstration cluster; yours to change.
if [ -r {profile} ]; then . {profile}; fi
"""
_JUPYTER_CONFIG = """# Made because this demonstration cluster runs as root, for example in a container or on a
# test machine: Jupyter then refuses to start unless it is allowed to.
c = get_config()  # noqa: F821
c.ServerApp.allow_root = True
"""
_IMAGES = {
    "jupyter-demo.sif": "JupyterLab with a scientific stack",
    "pytorch-demo.sif": "PyTorch",
    "r-demo.sif": "R and its notebook kernel",
}


def lay_out(settings: DemoSettings) -> None:
    """Make the whole folder ready."""
    root = settings.root
    root.mkdir(parents=True, exist_ok=True, mode=0o755)
    for name, mode in (("home", 0o755), ("etc", 0o755), ("spool", 0o700), ("tmp", 0o711), ("images", 0o755),
                       ("standins", 0o755), ("node-bin", 0o755), ("login-bin", 0o755), ("pbs/bin", 0o755)):  # fmt: skip
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    profile = root / "etc" / "profile.sh"
    profile.write_text(_filled("profile.sh", root))
    for account in settings.accounts:
        _home(settings, account, profile)
    _programs(settings)
    (root / "etc" / "motd").write_text(NOTICE + "\n")
    for name, title in _IMAGES.items():
        image = root / "images" / name
        if not image.exists():
            image.write_text(f"Not an image: a stand-in of the demonstration cluster for \u201c{title}\u201d.\n")


def _filled(name: str, root: Path) -> str:
    # Not resolved: the interpreter of a virtual environment is a link out of it.
    folder = str(Path(sys.executable).parent)
    text = (_FILES / name).read_text(encoding="utf-8")
    if name.endswith("apptainer.sh"):
        return text.replace("@VENV@", folder.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$"))
    return text.replace("@ROOT@", shlex.quote(str(root))).replace("@VENV@", shlex.quote(folder))


def _home(settings: DemoSettings, account: Account, profile: Path) -> None:
    home = settings.home(account.name)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    _new(home / ".bash_profile", _BASH_PROFILE.format(profile=shlex.quote(str(profile))))
    _new(home / "README-demo.txt", _README.format(commands=settings.commands_folder))
    if os.geteuid() == 0:
        (home / ".jupyter").mkdir(mode=0o700, exist_ok=True)
        _new(home / ".jupyter" / "jupyter_config.py", _JUPYTER_CONFIG)


def _new(path: Path, text: str) -> None:
    """Write a file that is not there yet. A user may have put a link there: never write through it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _programs(settings: DemoSettings) -> None:
    run = settings.root / "pbs" / "run"
    for command in COMMANDS:
        words = [sys.executable, "-I", "-S", str(_CLIENT), str(run), command]
        _program(settings.commands_folder / command, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    # As /etc/pbs.conf on a stock site, which tells where the commands are.
    conf = f"PBS_SERVER=demo-pbs\nPBS_EXEC={shlex.quote(str(settings.root / 'pbs'))}\nPBS_START_MOM=0\n"
    (settings.root / "etc" / "pbs.conf").write_text(conf)
    _program(settings.root / "node-bin" / "hostname", '#!/bin/sh\necho "${DEMO_NODE:-demo-login}"\n')
    _program(settings.login_programs / "id", _id(settings))
    _program(settings.root / "standins" / "apptainer", _filled("apptainer.sh", settings.root))
    link = settings.root / "standins" / "singularity"
    if not link.is_symlink():
        link.symlink_to("apptainer")


def _id(settings: DemoSettings) -> str:
    """A program that answers ``id`` about the demonstration's accounts, which the machine does not know."""
    numbers, answers = settings.user_ids(), []
    for account in settings.accounts:
        said = {"-u": str(numbers[account.name]), "-un": account.name, "-Gn": " ".join(account.groups)}
        for option, words in said.items():
            answers.append(f"  {shlex.quote(f'{option} {account.name}')}) echo {shlex.quote(words)} ;;\n")
    return (
        '#!/bin/sh\nwhat=$1 name=$USER\n[ "$2" = -- ] && name=$3\ncase "$what $name" in\n'
        + "".join(answers)
        + '  *) exec /usr/bin/id "$@" ;;\nesac\n'
    )


def _program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
