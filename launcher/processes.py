"""The command lines of the portal's processes, in one place for the demo, ``manage.py run`` and the containers."""

from __future__ import annotations

import sys
from pathlib import Path

WEB_OPTIONS = (
    # uvicorn's own protocol class behind a strict gate: limits, time limits, nothing ambiguous
    *("--loop", "uvloop", "--http", "launcher.proxy.fast.protocol:FastProtocol"),
    # the fastest of uvicorn's WebSocket implementations, with tunnels for notebooks; without them, notebooks send whole
    # outputs in one message, already compressed where that pays, and a browser in the background answers pings late.
    # The size is for what a browser sends to a notebook by the portable lane; Jupyter takes 10 MiB. Pages get less.
    *("--ws", "launcher.proxy.fast.socket:FastSocket", "--ws-max-size", str(1 << 26)),
    *("--ws-per-message-deflate", "false", "--ws-ping-interval", "30", "--ws-ping-timeout", "120"),
    *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "2"),
    # the portal decides itself whose X-Forwarded-For it believes (PORTAL_TRUSTED_PROXIES)
    *("--no-access-log", "--no-server-header", "--no-proxy-headers"),
)
# quiet: without the banner, which would be no JSON in a log of JSON
CELERY = (sys.executable, "-m", "celery", "--quiet", "--app", "portal")
WORKER_OPTIONS = (
    # threads share one pool of SSH connections; processes would have one each
    *("--pool", "threads", "--concurrency", "8", "--loglevel", "INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


def web_command(*, host: str, port: int) -> list[str]:
    """One web process. Any number of them may run; they keep nothing that another would need."""
    listen = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", "portal.asgi:application", *listen, *WEB_OPTIONS]


def worker_command() -> list[str]:
    """One worker: submits, polls, cancels. Any number of them may run."""
    return [*CELERY, "worker", *WORKER_OPTIONS]


def beat_command(*, schedule: Path) -> list[str]:
    """Celery's beat, which makes the workers look at the clusters. One of them; ``schedule`` is its own file."""
    options = ["--loglevel", "INFO", "--schedule", str(schedule), "--pidfile="]
    return [*CELERY, "beat", *options]
