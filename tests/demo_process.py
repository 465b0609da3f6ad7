"""Starts the demo as ``make demo`` does, every process of it, in a folder of its own and on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.demo import ports
from launcher.demo.folder import DemoFolder, Running
from portal.conf import PROJECT
from tests.waiting import wait_for


@dataclass(frozen=True, slots=True)
class StartedDemo:
    """A demo that runs: where its files are, and where it listens."""

    folder: DemoFolder
    running: Running
    environment: dict[str, str]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``manage.py demo -- …``: a management command on this demo's data."""
        return subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), "demo", "--", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


@contextmanager
def started_demo(prefix: str) -> Iterator[StartedDemo]:
    """A demo, from its start to its end. Nothing of it is left afterwards."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")} | {
        "PORTAL_DATA_FOLDER": str(root),
        "PORTAL_PORT": str(ports.free_port()),
        "PORTAL_DEMO_CLUSTER_PORT": "0",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
    }
    with (root / "start.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "demo", "--end-with-parent"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    folder = DemoFolder(root)
    try:
        wait_for(
            lambda: folder.running() or process.poll() is not None,
            seconds=150,
            what=lambda: "the demo to start:\n" + (root / "start.log").read_text("utf-8", "replace"),
        )
        running = folder.running()
        assert running is not None, (root / "start.log").read_text("utf-8", "replace")
        yield StartedDemo(folder, running, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(root, ignore_errors=True)
