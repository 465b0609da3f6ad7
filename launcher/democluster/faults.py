"""Faults that tests and a curious visitor can switch on while the cluster runs.

In-process: ``cluster.faults.set("scheduler", "down")``. From outside:
``python -m launcher.democluster.faults --root DIR set scheduler=down home_full=alice``, ``… clear``, ``… show``.

    scheduler     ok | down | hung | slow | garbled
    qsub_answer   ok | lost (the job exists, qsub dies without a word) | lost_connection (the SSH link too)
    login         ok | gone (nothing listens, every connection is dropped)
    home_full     account names with commas; writes by SFTP and delivered job output fail there
    node_down     node names with commas; jobs stay R, tunnels fail
    kill_job      a job id, once: its processes are killed as a host short of memory does
    requeue_job   a job id, once: its processes are killed, and it runs again under the same id
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path


class FaultError(Exception):
    """No such fault, or no such value."""


class SchedulerFault(enum.StrEnum):
    """How the scheduler misbehaves."""

    OK = "ok"
    DOWN = "down"
    HUNG = "hung"
    SLOW = "slow"
    GARBLED = "garbled"


class QsubAnswer(enum.StrEnum):
    """What becomes of qsub's answer."""

    OK = "ok"
    LOST = "lost"
    LOST_CONNECTION = "lost_connection"


class Login(enum.StrEnum):
    """Whether the login host is there."""

    OK = "ok"
    GONE = "gone"


class Faults:
    """The faults of one cluster. ``on_change`` callbacks hear the name of the fault that was set."""

    def __init__(self) -> None:
        self.scheduler = SchedulerFault.OK
        self.qsub_answer = QsubAnswer.OK
        self.login = Login.OK
        self.full_homes: frozenset[str] = frozenset()
        self.nodes_down: frozenset[str] = frozenset()
        self.on_change: list[Callable[[str, str], None]] = []
        self._changed = asyncio.Event()

    def set(self, name: str, value: str) -> None:
        """Switch a fault by its name and value in text. Raises FaultError."""
        try:
            if name == "scheduler":
                self.scheduler = SchedulerFault(value)
            elif name == "qsub_answer":
                self.qsub_answer = QsubAnswer(value)
            elif name == "login":
                self.login = Login(value)
            elif name == "home_full":
                self.full_homes = _names(value)
            elif name == "node_down":
                self.nodes_down = _names(value)
            elif name not in ("kill_job", "requeue_job"):
                raise FaultError(f"no such fault: {name}")
        except ValueError as error:
            raise FaultError(f"{name}: {error}") from None
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in self.on_change:
            callback(name, value)

    def clear(self) -> None:
        """Everything works again."""
        for name in ("scheduler", "qsub_answer", "login"):
            self.set(name, "ok")
        self.set("home_full", "")
        self.set("node_down", "")

    def show(self) -> dict[str, str]:
        """What is switched on, in the words of ``set``."""
        return {
            "scheduler": self.scheduler.value,
            "qsub_answer": self.qsub_answer.value,
            "login": self.login.value,
            "home_full": ",".join(sorted(self.full_homes)),
            "node_down": ",".join(sorted(self.nodes_down)),
        }

    async def until_not(self, fault: SchedulerFault) -> None:
        """Wait until the scheduler no longer has this fault."""
        while self.scheduler is fault:
            await self._changed.wait()


def _names(value: str) -> frozenset[str]:
    return frozenset(name.strip() for name in value.split(",") if name.strip())


def ask(root: Path, orders: list[str]) -> dict[str, str]:
    """Send orders (``name=value``, or ``clear``) to the cluster that runs in ``root``; what is on afterwards.

    Raises FaultError, or OSError when no cluster runs there.
    """
    descriptor = os.open(root / "control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(10)
            link.connect(f"/proc/self/fd/{descriptor}/socket")
            link.sendall(json.dumps(orders).encode() + b"\n")
            answer = json.loads(link.makefile("rb").readline() or b'{"error": "no answer"}')
    finally:
        os.close(descriptor)
    if "error" in answer:
        raise FaultError(answer["error"])
    return {str(name): str(value) for name, value in answer.items()}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m launcher.democluster.faults",
        description="Let the demonstration cluster misbehave.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder of the running demonstration cluster")
    parser.add_argument("action", choices=("set", "clear", "show"))
    parser.add_argument("orders", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    orders = {"set": options.orders, "clear": ["clear"], "show": []}[options.action]
    try:
        shown = ask(options.root, orders)
    except (FaultError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"{name}={value}\n" for name, value in shown.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
