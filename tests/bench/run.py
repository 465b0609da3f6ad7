"""``make bench``: runs every proxy in turn against the same server with the same client; prints medians and targets.

``python -m tests.bench.run [WHAT …] [--rounds N] [--seconds S] [--budget S] [--write]``. WHAT is one of requests,
latency, apart, down, up, ws, messages, beside, cell, authorise; all when none is named. ``--write`` puts the table into
docs/performance.md, between its marks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench import peers as proxies
from tests.bench.cell import jupyter_of_a_job, plain_jupyter
from tests.bench.peers import OTHER_CORE, ROOT, Peer
from tests.bench.report import page, put
from tests.integration.proxy_peers import LABEL
from tests.integration.ssh_server import free_port
from tests.integration.sshd import Sshd, running_sshd

SHORT = ("requests", "latency")
"""What nginx answers at the other end; the rest goes to our own server."""
LONG = ("apart", "down", "up", "ws", "messages", "beside")
WHAT = (*SHORT, *LONG, "cell", "authorise")
AUTHORISING = "ours, fast"
BODIES = ("down", "up", "beside")
"""What a proxy that holds whole bodies in memory is not asked for."""
Figures = dict[tuple[str, str], list[float]]  # (proxy, column): one for each round


def requests(peer: Peer, host: str, seconds: float) -> dict[str, float]:
    """200 bytes over 64 connections, by wrk."""
    fields = ["-H", f"Host: {host}", "-H", "Cookie: footbridge=alices-cookie"]
    command = [
        "wrk",
        "-t1",
        "-c64",
        f"-d{max(1, round(seconds))}s",
        *fields,
        f"http://127.0.0.1:{peer.port}{peer.prefix}/small",
    ]
    before = peer.cpu_seconds()
    done = subprocess.run(["taskset", "-c", OTHER_CORE, *command], capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if rate is None or count is None or re.search("Non-2xx|Socket errors", done.stdout) or int(count[1]) == 0:
        raise RuntimeError(done.stdout)
    return {"requests/s": float(rate[1]), "CPU µs": (peer.cpu_seconds() - before) / int(count[1]) * 1e6}


def measure(what: str, peer: Peer, seconds: float) -> dict[str, float]:
    """One measurement of one proxy; the names are the table's columns."""
    host = f"{LABEL}.localhost:{peer.port}"
    if what == "requests":
        return requests(peer, host, seconds)
    module = "tests.bench.cell" if what == "cell" else "tests.bench.client"
    command = [sys.executable, "-m", module, what, str(peer.port), host, str(seconds), peer.prefix]
    done = subprocess.run(
        ["taskset", "-c", OTHER_CORE, *command], capture_output=True, text=True, cwd=ROOT, timeout=20, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout)
    names = {"p50": f"{what} p50 µs", "p99": f"{what} p99 µs", "MB/s": f"{what} MB/s", "msgs/s": "msgs/s"}
    return {names[key]: value for key, value in found.items() if key in names}


def starters(host: Sshd, origin: int, folder: Path) -> list[Callable[[], Peer]]:
    """All proxies, in front of one server."""
    told = proxies.told_ssh(host, folder)
    return [
        partial(proxies.nginx, origin, folder),
        partial(proxies.apache, origin, folder),
        partial(proxies.chp, origin, folder),
        partial(proxies.jupyter_server_proxy, origin, folder),
        partial(proxies.ours, "fast", origin, folder),
        partial(proxies.ours, "portable", origin, folder),
        partial(proxies.ssh_forward, host, origin, folder),
        partial(proxies.ours, "fast", origin, folder, told),
    ]


@dataclass(slots=True)
class Run:
    """What the command line asked for, and what was found."""

    rounds: int
    seconds: float
    end: float
    figures: Figures = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    loads: list[float] = field(default_factory=lambda: [os.getloadavg()[0]])

    def take(self, asked: list[str], origin: Peer, host: Sshd, folder: Path) -> None:
        """Measure some things in turn, with each proxy in each round."""
        with proxies.running(*starters(host, origin.port, folder)) as (running, left_out):
            self.left_out.update(left_out)
            for _ in range(self.rounds):
                for what in asked:
                    for peer in [origin, *running]:
                        if time.monotonic() < self.end and not (peer.holds_bodies and what in BODIES):
                            self.take_one(what, peer)
                self.loads.append(os.getloadavg()[0])

    def cells(self, host: Sshd, folder: Path) -> None:
        """Cells in Jupyter as a job starts it, through us, and in plain Jupyter as the tutorials have it."""
        with plain_jupyter(folder) as plain, jupyter_of_a_job(folder) as job:
            told = proxies.told_ssh(host, folder)
            tunnels = [partial(proxies.ssh_forward, host, plain.port, folder)]
            ours = [partial(proxies.ours, "fast", job.port, folder, way) for way in (None, told)]
            with proxies.running(*tunnels) as (theirs, missing), proxies.running(*ours) as (mine, also_missing):
                self.left_out.update(missing + also_missing)
                for peer, server in [*((peer, plain) for peer in theirs), *((peer, job) for peer in mine)]:
                    peer.prefix = server.prefix
                for _ in range(self.rounds):
                    for peer in [plain, job, *theirs, *mine]:
                        if time.monotonic() < self.end:
                            self.take_one("cell", peer)
                    self.loads.append(os.getloadavg()[0])

    def authorise(self) -> None:
        """The decision alone, in a process of its own on the proxies' core."""
        for _ in range(self.rounds):
            command = [sys.executable, "-m", "tests.bench.authorise", str(self.seconds)]
            command = ["taskset", "-c", proxies.PROXY_CORE, *command]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
            if done.returncode:
                self.failures[AUTHORISING] = done.stderr.strip().splitlines()[-1][:200]
                return
            self.figures[AUTHORISING, "authorisation µs"].append(json.loads(done.stdout)["authorisation µs"])

    def take_one(self, what: str, peer: Peer) -> None:
        """One measurement; a failure is kept beside the figures."""
        sys.stderr.write(f"{what}: {peer.name}\n")
        try:
            found = measure(what, peer, self.seconds)
        except (RuntimeError, subprocess.SubprocessError) as error:
            self.failures[f"{peer.name}, {what}"] = str(error)[:200]
            return
        for column, value in found.items():
            self.figures[peer.name, column].append(value)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", metavar="WHAT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--budget", type=float, default=1500, help="seconds after which no measurement begins")
    parser.add_argument("--keep", type=Path, help="a file of JSON to which the figures are added, for runs in slices")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the proxies are ended, too
    os.sched_setaffinity(0, {int(OTHER_CORE)})  # sshd inherits it; the proxies are bound to the first core
    run = Run(asked.rounds, asked.seconds, time.monotonic() + asked.budget)
    if asked.keep and asked.keep.exists():
        kept = json.loads(asked.keep.read_text())
        run.loads, run.failures = kept["loads"], kept["failures"]
        run.figures.update({(name, column): values for name, column, values in kept["figures"]})
    wanted = asked.what or list(WHAT)
    with tempfile.TemporaryDirectory(prefix="fb-bench-") as name, running_sshd() as host:
        for kind, start, of_kind in (
            ("short", proxies.plain_origin, [what for what in wanted if what in SHORT]),
            ("long", proxies.echo_origin, [what for what in wanted if what in LONG]),
        ):
            folder = Path(name) / kind
            folder.mkdir()
            if of_kind:
                with proxies.running(partial(start, free_port(), folder)) as (origins, left_out):
                    run.left_out.update(left_out)
                    for origin in origins:
                        run.take(of_kind, origin, host, folder)
        if "cell" in wanted:
            run.cells(host, Path(name))
    if "authorise" in wanted:
        run.authorise()
    if asked.keep:
        rows = [[*key, values] for key, values in run.figures.items()]
        asked.keep.write_text(json.dumps({"loads": run.loads, "failures": run.failures, "figures": rows}))
    medians = {key: statistics.median(values) for key, values in run.figures.items()}
    rounds: dict[str, int] = {}
    for (_, column), values in run.figures.items():
        rounds[column] = min(rounds.get(column, len(values)), len(values))
    text = page(
        medians,
        sorted(run.left_out),
        run.failures,
        rounds=rounds,
        seconds=asked.seconds,
        loads=run.loads,
        versions=proxies.versions(),
    )
    sys.stdout.write(text)
    if asked.write:
        path = ROOT / "docs/performance.md"
        path.write_text(put(path.read_text() if path.exists() else "", text))


if __name__ == "__main__":
    main()
