"""``make bench``: runs every proxy in turn against the same server with the same client; prints medians and targets.

``python -m tests.bench.run [WHAT …] [--rounds N] [--seconds S] [--budget S] [--write]``. WHAT is one of requests,
latency, down, up, ws, messages, beside; all when none is named. ``--write`` puts the table into docs/performance.md.
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
from functools import partial
from pathlib import Path

from tests.bench import peers as proxies
from tests.bench.peers import OTHER_CORE, ROOT, Peer
from tests.bench.report import page
from tests.integration.proxy_peers import LABEL
from tests.integration.ssh_server import free_port
from tests.integration.sshd import running_sshd

WHAT = ("requests", "latency", "down", "up", "ws", "messages", "beside")
Figures = dict[tuple[str, str], list[float]]  # (proxy, column): one for each round


def requests(peer: Peer, host: str, seconds: float) -> dict[str, float]:
    """200 bytes over 64 connections, by wrk."""
    fields = ["-H", f"Host: {host}", "-H", "Cookie: footbridge=alices-cookie"]
    command = ["wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}s", *fields, f"http://127.0.0.1:{peer.port}/small"]
    before = peer.cpu_seconds()
    done = subprocess.run(["taskset", "-c", OTHER_CORE, *command], capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if rate is None or count is None or "Non-2xx" in done.stdout or int(count[1]) == 0:
        raise RuntimeError(done.stdout)
    return {"requests/s": float(rate[1]), "CPU µs": (peer.cpu_seconds() - before) / int(count[1]) * 1e6}


def measure(what: str, peer: Peer, seconds: float) -> dict[str, float]:
    """One measurement of one proxy; the names are the table's columns."""
    host = f"{LABEL}.localhost:{peer.port}"
    if what == "requests":
        return requests(peer, host, seconds)
    command = [sys.executable, "-m", "tests.bench.client", what, str(peer.port), host, str(seconds)]
    done = subprocess.run(
        ["taskset", "-c", OTHER_CORE, *command], capture_output=True, text=True, cwd=ROOT, timeout=12, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout)
    names = {"p50": f"{what} p50 µs", "p99": f"{what} p99 µs", "MB/s": f"{what} MB/s", "msgs/s": "msgs/s"}
    return {names[key]: value for key, value in found.items() if key in names}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", metavar="WHAT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--budget", type=float, default=1500, help="seconds after which no measurement begins")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the proxies are ended, too
    end = time.monotonic() + asked.budget
    figures: Figures = defaultdict(list)
    failures: dict[str, str] = {}
    loads = [os.getloadavg()[0]]
    origin = free_port()
    with tempfile.TemporaryDirectory(prefix="fb-bench-") as name, running_sshd() as host:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.bench.origin", str(origin)]
        started = partial(proxies.start, command, origin, "origin", folder / "origin.log", OTHER_CORE)
        told = proxies.told_ssh(host, folder)
        starters = (
            partial(proxies.nginx, origin, folder),
            partial(proxies.apache, origin, folder),
            partial(proxies.chp, origin, folder),
            partial(proxies.ours, "fast", origin, folder),
            partial(proxies.ours, "portable", origin, folder),
            partial(proxies.ssh_forward, host, origin, folder),
            partial(proxies.ours, "fast", origin, folder, told),
        )
        with proxies.running(started), proxies.running(*starters) as (running, left_out):
            for _ in range(asked.rounds):
                for what in asked.what or WHAT:
                    for peer in running:
                        if time.monotonic() > end:
                            break
                        sys.stderr.write(f"{what}: {peer.name}\n")
                        try:
                            found = measure(what, peer, asked.seconds)
                        except (RuntimeError, subprocess.SubprocessError) as error:
                            failures[f"{peer.name}, {what}"] = str(error)[:200]
                            continue
                        for column, value in found.items():
                            figures[peer.name, column].append(value)
                loads.append(os.getloadavg()[0])
    medians = {key: statistics.median(values) for key, values in figures.items()}
    least = min((len(values) for values in figures.values()), default=0)
    text = page(medians, left_out, failures, rounds=least, seconds=asked.seconds, load=statistics.median(loads))
    sys.stdout.write(text)
    if asked.write:
        (ROOT / "docs/performance.md").write_text(text)


if __name__ == "__main__":
    main()
