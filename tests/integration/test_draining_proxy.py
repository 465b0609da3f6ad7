"""A web process with the real proxy that is told to stop while notebooks use it: nothing breaks that need not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.processes import WEB_OPTIONS
from tests.integration.proxy_peers import (
    Portal,
    Raw,
    Request,
    Upstream,
    client_frame,
    echoing_socket,
    hello,
    read_frame,
)
from tests.integration.ssh_server import cluster_of, free_port, login_host, make_ca
from tests.integration.test_draining import PROJECT, ask
from tests.waiting import until

pytestmark = pytest.mark.integration

TEXT, CLOSE = 1, 8
SLACK_SECONDS = 50
"""What a slow machine may take longer than the portal promises."""
HALF = bytes(range(256)) * 4096
AT_ONCE = 50


@dataclass
class Job:
    """A server in a job: sockets echo, a download stops half-way and a question waits until it ``may_go_on``."""

    upstream: Upstream
    may_go_on: asyncio.Event

    async def handle(self, request: Request) -> None:
        """Answer one request."""
        if request.values(b"upgrade"):
            await echoing_socket(request)
        elif request.target == b"/big":
            request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (2 * len(HALF), HALF))
            await self.may_go_on.wait()
            request.writer.write(HALF)
        elif request.target.startswith(b"/question"):
            await self.may_go_on.wait()
            number = request.target[9:]
            request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))
        else:
            await hello(request)


@dataclass
class Web:
    """The web process, and its address as ``Portal`` speaks to it."""

    process: subprocess.Popen[bytes]
    portal: Portal
    job: Job
    drain_seconds: float
    told_at: float = 0.0

    async def tell(self) -> None:
        """SIGTERM, and wait until it knows."""
        self.process.send_signal(signal.SIGTERM)
        self.told_at = time.monotonic()
        while (await ask(self.portal.port, "/health/"))[0] == 200:
            pass

    async def socket(self) -> Raw:
        """An open WebSocket that works."""
        raw = await self.portal.connect()
        raw.writer.write(self.portal.handshake())
        assert (await raw.head()).status == 101
        await echoes(raw)
        return raw

    async def ends(self) -> None:
        """It ends in its time and in order, and then nobody answers."""
        await until(lambda: self.process.poll() is not None, "the process to end")
        assert time.monotonic() - self.told_at < self.drain_seconds + SLACK_SECONDS
        assert self.process.returncode in (0, -signal.SIGTERM)  # the server ends itself by the signal it was sent
        with pytest.raises(OSError, match="Connect"):
            await self.portal.connect()
        await until(lambda: not self.job.upstream.open, "the server's connections to close")


async def echoes(raw: Raw) -> None:
    raw.writer.write(client_frame(TEXT, b"are you there"))
    assert await read_frame(raw.reader) == (TEXT, b"are you there")


@contextmanager
def web_process(port: int, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A web process with the portal's own options."""
    command = [sys.executable, "-m", "uvicorn", "tests.integration.draining_proxy:application"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *WEB_OPTIONS],
            cwd=PROJECT,
            env={name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")} | environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def web(way: str, folder: Path, *, drain_seconds: float) -> AsyncIterator[Web]:
    """A running web process in front of a server in a job. ``way``: lane and transport."""
    lane, transport = way.split("-")
    upstream = Upstream()
    job = Job(upstream, asyncio.Event())
    upstream.handler = job.handle
    await upstream.start()
    ca = make_ca(folder)
    async with login_host(folder / "home", ca) as host:
        cluster = cluster_of(host).model_dump(mode="json", exclude_unset=True)
        (folder / "ssh.json").write_text(
            json.dumps({"username": "alice", "cluster": cluster, "ca": str(folder / "user_ca")})
        )
        port = free_port()
        told = {"BENCH_PORT": str(port), "BENCH_ORIGIN": str(upstream.port), "BENCH_LANE": lane}
        told["BENCH_SSH"] = str(folder / "ssh.json") if transport == "ssh" else ""
        log = folder / "web.log"
        with web_process(port, log, TEST_DRAIN_SECONDS=str(drain_seconds), **told) as process:
            await until(lambda: b"Uvicorn running" in log.read_bytes(), "the web process")
            yield Web(process, Portal(upstream, port=port), job, drain_seconds)
    await upstream.stop()


async def questions(running: Web) -> list[Raw]:
    """As many requests as may be, each on a connection that has been used before, and none answered yet."""
    portal = running.portal
    browsers = [await portal.connect() for _ in range(AT_ONCE)]
    for raw in browsers:
        raw.writer.write(portal.head("GET", "/"))
        assert (await raw.answer()).body == b"hello"
    before = len(portal.upstream.requests)
    for number, raw in enumerate(browsers):
        raw.writer.write(portal.head("GET", f"/question{number}"))
    await until(lambda: len(portal.upstream.requests) > before, "a question")
    return browsers


async def all_answered(browsers: list[Raw]) -> None:
    answers = await asyncio.gather(*(raw.answer() for raw in browsers))
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"%d" % n) for n in range(len(browsers))]


@pytest.mark.parametrize("way", ["fast-direct", "portable-direct", "fast-ssh", "portable-ssh"])
async def test_what_is_under_way_ends_well_and_a_websocket_is_told_of_the_restart(way: str, tmp_path: Path) -> None:
    async with web(way, tmp_path, drain_seconds=10) as running:
        portal = running.portal
        idle, used = await portal.connect(), await portal.connect()
        for raw in (idle, used):
            raw.writer.write(portal.head("GET", "/"))
            assert (await raw.answer()).body == b"hello"
        websocket = await running.socket()
        download = await portal.connect()
        download.writer.write(portal.head("GET", "/big"))
        assert (await download.head()).status == 200
        assert await download.reader.readexactly(len(HALF)) == HALF
        asking = await questions(running)

        await running.tell()
        running.job.may_go_on.set()
        async with asyncio.timeout(60):
            assert await download.reader.readexactly(len(HALF)) == HALF
        await all_answered(asking)
        used.writer.write(portal.head("GET", "/"))
        answer = await used.answer()
        assert (answer.status, answer.body, answer.values(b"connection")) == (200, b"hello", [b"close"])
        late = await portal.connect()
        late.writer.write(portal.handshake())
        assert (await late.answer()).status == 503
        await echoes(websocket)

        assert await read_frame(websocket.reader) == (CLOSE, (1012).to_bytes(2, "big"))
        await running.ends()
        for raw in (idle, used, late, download, websocket, *asking):
            assert await raw.reader.read() == b""
            await raw.close()


@pytest.mark.parametrize("way", ["fast-ssh"])
async def test_the_process_ends_right_after_the_last_answer(way: str, tmp_path: Path) -> None:
    async with web(way, tmp_path, drain_seconds=600) as running:
        asking = await questions(running)
        await running.tell()
        running.job.may_go_on.set()
        await all_answered(asking)
        await running.ends()
        for raw in asking:
            assert await raw.reader.read() == b""
            await raw.close()
