"""``manage.py demo`` as a person starts it: every way of ending it leaves no process and no job."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo import ports
from launcher.demo.browser import Browser, forms_of
from launcher.demo.folder import DemoFolder, Running
from portal.conf import PROJECT
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="needs prctl(2) and /proc"),
]
START_SECONDS = 120


class Demo:
    """A demo in a folder of its own. Its processes are known by that folder's name in environment or arguments."""

    def __init__(self, root: Path) -> None:
        self.folder = DemoFolder(root)
        self.port = ports.free_port()
        self.output = root.with_suffix(".txt")
        self.process = self.start()

    def environment(self, **changes: str) -> dict[str, str]:
        """As in a fresh terminal, but for this demo's folder and port."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PORTAL_", "DJANGO_"))}
        return plain | {"PORTAL_DATA_FOLDER": str(self.folder.root), "PORTAL_PORT": str(self.port)} | changes

    def start(self) -> subprocess.Popen[bytes]:
        """Start it once more."""
        with self.output.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "manage.py", "demo"],
                cwd=PROJECT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """``manage.py demo`` with arguments, run to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", "demo", *arguments],
            cwd=PROJECT, env=self.environment(**changes), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip

    def wait_until_ready(self) -> Running:
        """Until it says where it is."""

        def look() -> Running | None:
            assert self.process.poll() is None, self.output.read_text()
            return self.folder.running()

        running = wait_for(look, seconds=START_SECONDS, what="the demo")
        assert isinstance(running, Running)
        return running

    def launch(self) -> None:
        """A session of alice, until its server runs."""
        browser = Browser("127.0.0.1")
        url = f"http://localhost:{self.port}"
        (sign_in,) = [form for form in forms_of(browser.get(f"{url}/sign-in/")) if "password" in form.values]
        assert browser.submit(sign_in, username="alice", password="alice-demo").status == 302
        (form,) = [form for form in forms_of(browser.get(f"{url}/launch/jupyter/")) if "cores" in form.values]
        assert browser.submit(form).status == 302
        wait_for(
            lambda: any("jupyter-lab" in line for line in self.left().values()), seconds=60, what="a job with a server"
        )

    def workers(self) -> set[int]:
        """The Celery worker's process, without its keeper."""
        return {pid for pid, line in self.left().items() if " worker " in line and " -IS " not in line}

    def left(self) -> dict[int, str]:
        """Everything that runs for this demo: command lines by process id."""
        mark = os.fsencode(self.folder.root)
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if line and (mark in line or mark in (entry / "environ").read_bytes()):
                    found[int(entry.name)] = line.replace(b"\0", b" ").decode("utf-8", "replace")
        return found


@pytest.fixture
def demo() -> Iterator[Demo]:
    """A demo that is starting. The path is short, as Unix sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="fbd-", ignore_cleanup_errors=True) as root:
        one = Demo(Path(root) / "var")
        yield one
        one.process.terminate()
        try:
            one.process.wait(60)
        finally:
            for pid in one.left():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_and_no_job_is_left_after(demo: Demo, number: signal.Signals) -> None:
    demo.wait_until_ready()
    demo.launch()
    demo.process.send_signal(number)
    code = demo.process.wait(60)
    if number is not signal.SIGKILL:
        assert code == 0
        assert demo.left() == {}
    wait_for(lambda: not demo.left(), what=f"the end of {demo.left()}")


def test_a_signal_while_starting_leaves_nothing(demo: Demo) -> None:
    wait_for(lambda: any("uvicorn" in line for line in demo.left().values()), seconds=START_SECONDS, what="uvicorn")
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert demo.left() == {}


def test_a_running_demo_passes_its_check_refuses_a_second_start_and_replaces_a_dead_worker(demo: Demo) -> None:
    running = demo.wait_until_ready()

    checked = demo.command("--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "gave 42" in checked.stdout

    second = demo.command()
    assert second.returncode == 1
    assert f"already runs here: {running.url} (process {running.pid})" in second.stderr

    (worker,) = demo.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: "worker ended with exit code 137; starting it again" in demo.output.read_text(), what="the news")
    wait_for(lambda: demo.workers() - {worker}, what="another worker")


def test_beat_leaves_a_file_that_tells_when_it_last_sent(demo: Demo) -> None:
    demo.wait_until_ready()
    sign = demo.folder.root / "beat-sent"
    first = wait_for(lambda: sign.exists() and sign.stat().st_mtime_ns, what="the file")
    wait_for(lambda: sign.stat().st_mtime_ns > first, what="its next touch")


def test_a_taken_port_is_named_with_its_holder_and_the_cure_and_nothing_is_started() -> None:
    with tempfile.TemporaryDirectory(prefix="fbd-") as root, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "demo"],
            cwd=PROJECT, env=os.environ | {"PORTAL_DATA_FOLDER": root, "PORTAL_PORT": str(port)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert f"Port {port} is already taken by " in done.stderr
        assert f"(process {os.getpid()})" in done.stderr
        assert f"PORTAL_PORT={port + 1 if port < 65535 else 8001} make demo" in done.stderr
        assert not (Path(root) / "log" / "valkey.log").exists()


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=PROJECT, env=os.environ | {"PORTAL_DATA_FOLDER": str(tmp_path), "PORTAL_PORT": "seventy"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "PORTAL_PORT: " in done.stderr
