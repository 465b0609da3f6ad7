"""A web process that is told to stop: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from launcher.demo.ports import free_port
from launcher.processes import WEB_OPTIONS
from tests.waiting import until, wait_for

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).resolve().parents[2]


@contextmanager
def web_process(**environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A web process with the portal's own options, and its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.integration.draining_application:application"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *WEB_OPTIONS],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _answers(port), what="the web process")
        yield process, port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


async def ask(port: int, path: str, host: str = "portal") -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await (reader.readexactly(int(length[0][15:])) if length else reader.readuntil(b"0\r\n\r\n"))
        return int(head.split(b" ")[1]), head.lower(), body
    finally:
        writer.close()


async def ended(process: subprocess.Popen[bytes], *, seconds: float = 60) -> None:
    """Wait for the end. ``seconds``: less than the process may drain, where it is to end before that."""
    await until(lambda: process.poll() is not None, "the process to end", seconds=seconds)


async def test_a_download_ends_well_and_the_process_right_after_it() -> None:
    with web_process(TEST_DRAIN_SECONDS="120") as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow/15 HTTP/1.1\r\nHost: portal\r\n\r\n")
        await reader.readuntil(b"x\r\n")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            rest = await reader.read()
        writer.close()
        assert rest.endswith(b".\r\n0\r\n\r\n")
        await ended(process)


async def test_while_it_drains_it_is_not_ready_serves_short_requests_and_takes_no_websocket() -> None:
    with web_process(TEST_DRAIN_SECONDS="120") as (process, port):
        assert (await ask(port, "/health/"))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow/1000 HTTP/1.1\r\nHost: portal\r\n\r\n")
        await reader.readuntil(b"x\r\n")
        process.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            status, head, body = await ask(port, "/health/")
        assert (status, json.loads(body)["error"]) == (503, "restarting")
        assert b"retry-after: 3" in head
        status, head, _ = await ask(port, "/page")
        assert status == 200
        assert b"connection: close" in head
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/live")
        assert refused.value.response.status_code == 503
        writer.close()


async def test_open_websockets_are_told_of_the_restart_when_the_time_is_over() -> None:
    with web_process(TEST_DRAIN_SECONDS="4") as (process, port):
        async with connect(f"ws://127.0.0.1:{port}/live") as browser:
            process.send_signal(signal.SIGTERM)
            await browser.send("still here")
            assert await browser.recv() == "still here"
            with pytest.raises(ConnectionClosed) as closed:
                await browser.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        await ended(process)


async def test_a_download_that_takes_too_long_is_cut_off_in_time() -> None:
    with web_process(TEST_DRAIN_SECONDS="3.5") as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow/1000 HTTP/1.1\r\nHost: portal\r\n\r\n")
        await reader.readuntil(b"x\r\n")
        process.send_signal(signal.SIGTERM)
        await ended(process)
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_second_signal_ends_the_waiting() -> None:
    with web_process(TEST_DRAIN_SECONDS="120") as (process, port):
        async with connect(f"ws://127.0.0.1:{port}/live") as browser:
            process.send_signal(signal.SIGTERM)
            status = 200
            while status == 200:
                status = (await ask(port, "/health/"))[0]
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await browser.recv()
        await ended(process)


async def test_a_process_for_pages_sends_sessions_away_and_the_other_way_round() -> None:
    with web_process(TEST_SERVES="pages") as (_, port):
        assert [(await ask(port, "/", host))[0] for host in ("portal", "session.x")] == [200, 421]
    with web_process(TEST_SERVES="sessions") as (_, port):
        assert [(await ask(port, "/", host))[0] for host in ("portal", "session.x")] == [421, 200]
        assert (await ask(port, "/health/"))[0] == 200
