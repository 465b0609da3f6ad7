"""A throw-away PostgreSQL for the tests: started, and pytest run on it, by

    python -m tests.postgres [--if-possible] ARGUMENTS-OF-PYTEST…

It listens on a Unix socket in a temporary folder and nowhere else, asks the disk for nothing, and sorts text as people
do, which SQLite does not. It ends with its parent, however that ends. ``initdb`` refuses root: then the server runs as
the account that Debian's package ``postgresql`` brings along.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher.demo.keeper import PR_SET_PDEATHSIG, prctl
from tests.waiting import wait_for

PROJECT = Path(__file__).resolve().parents[1]
PROGRAMS = Path("/usr/lib/postgresql")
"""Debian's: a folder for each release."""

ACCOUNT = "postgres"
ROLE = "footbridge"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",  # the threads of a test have one each
    "log_lock_waits": "on",
}


def programs() -> Path | None:
    """The folder with the newest release's programs, if there is one."""
    found = [path.parent for path in PROGRAMS.glob("*/bin/initdb") if path.parents[1].name.isdigit()]
    return max(found, key=lambda path: int(path.parent.name), default=None)


def why_not() -> str:
    """Why there can be no PostgreSQL here; empty when there can."""
    if programs() is None:
        return "no PostgreSQL here (Debian: postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(ACCOUNT)
        except KeyError:
            return f"no account {ACCOUNT} here (Debian: postgresql)"
    return ""


@contextmanager
def running() -> Iterator[tuple[str, Path]]:
    """A server with an empty database: the URL as ``PORTAL_DATABASE_URL`` wants it, and the server's log."""
    folder = Path(tempfile.mkdtemp(prefix="fb-pg-"))
    try:
        with _server(folder) as url:
            yield url, folder / "log"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    bin_folder = programs()
    assert bin_folder is not None, why_not()
    somebody: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, ACCOUNT)
        somebody = {"user": ACCOUNT, "group": pwd.getpwnam(ACCOUNT).pw_gid, "extra_groups": []}
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    initdb = [str(bin_folder / "initdb"), "-D", str(folder / "data"), "-U", ROLE, "-A", "trust", "-E", "UTF8", "-N"]
    if int(bin_folder.parent.name) >= 15:
        initdb += ["--locale-provider=icu", "--icu-locale=en"]
    made = subprocess.run(initdb, **somebody, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"initdb: {made.stderr}")
    command = [str(bin_folder / "postgres"), "-D", str(folder / "data"), "-k", str(folder)]
    for name, value in SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            **somebody,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for pytest; the server is ended afterwards
            preexec_fn=_end_with_parent,
        )
    try:
        ready = [str(bin_folder / "pg_isready"), "-q", "-h", str(folder)]
        wait_for(
            lambda: server.poll() is not None or not subprocess.run(ready, env=environment, check=False).returncode,
            what=lambda: (folder / "log").read_text("utf-8", "replace"),
        )
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text("utf-8", "replace"))
        yield f"postgresql://{ROLE}@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing in it is wanted any more
        server.wait(60)


def _end_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def deadlocks(log: Path) -> list[str]:
    """What the server says of transactions that waited for each other for ever. One that is repeated still is one."""
    return re.findall(r"^.*deadlock detected(?:\n(?!.*(?:LOG|ERROR):).*)*", log.read_text("utf-8", "replace"), re.M)


def main(arguments: list[str]) -> int:
    """Run pytest on PostgreSQL; its exit status, and not 0 when there was a deadlock.

    ``--if-possible``: where there can be no PostgreSQL, leave the tests out, say why, and return 0.
    """
    may_be_left_out = arguments[:1] == ["--if-possible"]
    if reason := why_not():
        sys.stderr.write(f"Left out, the tests on PostgreSQL: {reason}\n")
        return 0 if may_be_left_out else 1
    signal.signal(signal.SIGINT, lambda *_: None)  # pytest gets it, too, and ends by itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [sys.executable, "-m", "pytest", *arguments[may_be_left_out:]]
    with running() as (url, log):
        status = subprocess.run(
            command, cwd=PROJECT, env=os.environ | {"PORTAL_DATABASE_URL": url}, check=False
        ).returncode
        found = deadlocks(log)
    sys.stderr.writelines(f"{deadlock}\n" for deadlock in found)
    return status or int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
