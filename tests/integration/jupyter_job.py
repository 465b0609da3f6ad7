"""Runs a rendered job script as a real process, as an execution host would, and talks to the server in it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect

from launcher.catalog import App, LaunchChoices, load_apps
from launcher.connection import CONNECTION_NAME, Connection, parse_connection, secret_headers
from launcher.jobscript import LOG_NAME, ScriptContext, render, session_files
from tests.waiting import wait_for

OTHERS = [Path(entry) for entry in os.environ.get("FOOTBRIDGE_JUPYTERS", "").split(":") if entry]
"""The bin folders of other Jupyter installations."""
APPS = load_apps([Path(__file__).parents[2] / "apps"])
JUPYTER_BIN = Path(sys.executable).parent
SESSION = "abcdefghjkmn"
BASE_URL = f"/s/{SESSION}/"

ROOT_MAY = "c.ServerApp.allow_root = True\nc.NotebookApp.allow_root = True\n"
"""What the home folder's jupyter_config.py says so that the tests can run as root."""

OLD_HABITS = """
for section in (c.ServerApp, c.NotebookApp):
    section.port = 9001
    section.ip = "192.0.2.1"
    section.base_url = "/mine/"
    section.token = "mine"
    section.password = "sha1:x"
    section.certfile = "/no/such/file"
    section.open_browser = True
    section.allow_origin = "*"
    section.disable_check_xsrf = True
c.IdentityProvider.token = "mine"
"""
"""What people once copied from a tutorial into their configuration, all at once."""


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Job:
    """A job script in its folder: written by the portal's functions, run by bash."""

    root: Path
    app: App = field(default_factory=lambda: APPS["jupyter"])
    choices: LaunchChoices = field(default_factory=lambda: LaunchChoices(1, 1024, 3600))
    path: str = f"{JUPYTER_BIN}:/usr/bin:/bin"
    environment: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    listens_on_socket: bool = False
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.folder = self.home / ".footbridge" / "sessions" / SESSION
        self.folder.mkdir(parents=True, mode=0o700)
        self.write_home(".jupyter/jupyter_config.py", ROOT_MAY)

    def write_home(self, name: str, text: str) -> Path:
        """A file in the home folder."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def start(self, idle_stop_seconds: int = 7200) -> None:
        """Do what the portal does before it submits, then what the scheduler does."""
        context = ScriptContext(
            session_id=SESSION,
            session_folder=str(self.folder),
            base_url=BASE_URL,
            listen_address="127.0.0.1",
            listen_on_socket=self.listens_on_socket,
            choices=self.choices,
            idle_stop_seconds=idle_stop_seconds,
            portal_name="Footbridge",
        )
        for file in session_files(context, self.secret):
            path = self.folder / file.relative_path
            path.write_bytes(file.data)
            path.chmod(file.mode)
        script = self.root / "script.sh"
        script.write_bytes(render(self.app, context))
        with (self.root / "job.out").open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", script],
                cwd=self.home,
                env={"HOME": str(self.home), "PATH": self.path, "USER": "alice", "LANG": "C.UTF-8", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """The session's log."""
        path = self.folder / LOG_NAME
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait(self, seconds: float = 30) -> int:
        """The exit status of the script."""
        assert self.process is not None
        return self.process.wait(seconds)

    def run(self) -> int:
        """Start, and wait for the end."""
        self.start()
        return self.wait()

    def connection(self, seconds: float = 60) -> Connection:
        """What the job says about its server, once it does."""
        assert self.process is not None
        process, path = self.process, self.folder / CONNECTION_NAME
        wait_for(
            lambda: path.exists() or process.poll() is not None,
            seconds=seconds,
            what=lambda: f"the connection file\n{self.log}",
            pause_seconds=0.01,
        )
        if not path.exists():
            pytest.fail(f"no connection file, status {process.poll()}\n{self.log}")
        return parse_connection(
            path.read_bytes(), session_id=SESSION, execution_hosts=[self.host], may_be_socket=self.listens_on_socket
        )

    @property
    def host(self) -> str:
        """The name of this computer, as the scheduler would say it."""
        return os.uname().nodename

    def get(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """An answer of the server; with the secret unless ``headers`` are given."""
        found = self.connection()
        client = http.client.HTTPConnection("127.0.0.1", found.port, timeout=60)
        with contextlib.closing(client):
            sent = dict(secret_headers(found.flavor, self.secret) if headers is None else headers)
            client.request(method, BASE_URL + path, body=body or None, headers=sent)
            answer = client.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))

    def follow(self, path: str) -> tuple[str, Answer]:
        """The page that ``path`` leads to, and where it is."""
        for _ in range(5):
            answer = self.get(path)
            if answer.status != 302:
                return path, answer
            path = urlsplit(answer.headers["Location"]).path.removeprefix(BASE_URL)
        pytest.fail("redirected again and again")

    @contextlib.contextmanager
    def kernel(self, origin: str | None = None) -> Iterator[Kernel]:
        """A running kernel, with its WebSocket; shut down afterwards."""
        found = self.connection()
        headers = secret_headers(found.flavor, self.secret)
        unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
        started = self.get("api/kernels", method="POST", headers=unsafe, body="{}")
        assert started.status == 201, started.body
        kernel_id = json.loads(started.body)["id"]
        address = f"ws://127.0.0.1:{found.port}{BASE_URL}api/kernels/{kernel_id}/channels"
        with connect(address, additional_headers=headers, origin=origin, compression=None, max_queue=None) as socket:  # type: ignore[arg-type]  # websockets wants an Origin; the test also sends odd ones
            yield Kernel(kernel_id, socket)
        if (self.folder / CONNECTION_NAME).exists():
            self.get(f"api/kernels/{kernel_id}", method="DELETE", headers=unsafe)

    @contextlib.contextmanager
    def reconnected(self, kernel: Kernel) -> Iterator[Kernel]:
        """A running kernel through a new WebSocket, as JupyterLab opens one after a restart."""
        found = self.connection()
        address = f"ws://127.0.0.1:{found.port}{BASE_URL}api/kernels/{kernel.id}/channels"
        with connect(
            address, additional_headers=secret_headers(found.flavor, self.secret), compression=None, max_queue=None
        ) as socket:
            yield Kernel(kernel.id, socket)

    def runtime_folder(self) -> Path:
        """The private folder of this job's sockets."""
        pid = json.loads((self.folder / CONNECTION_NAME).read_bytes())["pid"]
        return Path(environment_of(pid)["JUPYTER_RUNTIME_DIR"])

    def processes(self) -> dict[int, str]:
        """All processes that this job has started, by id: found by its home folder in their environment."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"HOME={self.home}\0".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def kill(self) -> None:
        """End whatever is left, when a test is over."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if runtime := environment_of(pid).get("JUPYTER_RUNTIME_DIR", ""):
                    shutil.rmtree(runtime, ignore_errors=True)
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(60)


@dataclass
class Kernel:
    """A kernel seen through its WebSocket."""

    id: str
    socket: ClientConnection

    def run(self, code: str, seconds: float = 30) -> str:
        """What a cell prints, or the name of its error."""
        self.send("execute_request", {"code": code, "silent": False})
        return self.result(seconds)

    def send(self, kind: str, content: Mapping[str, object]) -> None:
        """A message on the shell channel."""
        self.message_id = uuid.uuid4().hex
        header = {
            "msg_id": self.message_id,
            "msg_type": kind,
            "session": "s",
            "username": "alice",
            "version": "5.3",
            "date": "2025-01-01T00:00:00Z",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.socket.send(json.dumps(message))

    def result(self, seconds: float = 30) -> str:
        """What comes back until the kernel is idle again."""
        printed, deadline, is_idle, has_reply = "", time.monotonic() + seconds, False, False
        while not (is_idle and has_reply):
            message = json.loads(self.socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if message["parent_header"].get("msg_id") != self.message_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed += content["text"]
                case "error":
                    printed += content["ename"]
                case "status":
                    is_idle = is_idle or content["execution_state"] == "idle"
                case "execute_reply":
                    has_reply = True
        return printed.strip()


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def write_command(path: Path, script: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}", encoding="utf-8")
    path.chmod(0o755)
    return path
