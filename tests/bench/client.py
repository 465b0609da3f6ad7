"""The client of all measurements but the requests, which are wrk's: latency, transfers, WebSockets.

``python -m tests.bench.client WHAT PORT HOST SECONDS PREFIX`` prints one object of JSON. HOST and the cookie are what
our own side wants to see; peers ignore them. PREFIX comes before every path, as one of the peers has it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

from tests.bench import echo, pour
from tests.bench.echo import ECHO, FRAME
from tests.bench.origin import PROMPT_ECHO

COOKIE = "alices-cookie"
SECRET = "the-upstreams-secret-of-forty-three-characters"
LEAST_DOWN = 64 * 1024
"""A download that brings less than this many bytes is a failure of the proxy, not a low figure."""
UP_PIECE = bytes(256 * 1024)


def head(method: str, path: str, host: str, *fields: str) -> bytes:
    """A request's head."""
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", f"Cookie: footbridge={COOKIE}")
    return "\r\n".join((*lines, *fields, "", "")).encode()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int) -> Streams:
    """A connection with room for a good deal."""
    return await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)


async def websocket(port: int, host: str, path: str = "/ws") -> Streams:
    """An open WebSocket."""
    streams = await connect(port)
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    streams[1].write(head("GET", path, host, *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    answer = await streams[0].readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.split(b"\r\n")[0] + b" ":
        raise RuntimeError(answer.decode("latin-1"))
    return streams


def percentiles(took: list[float]) -> dict[str, float]:
    """In µs. A peer that let nothing pass is an error, not a figure."""
    if not took:
        raise RuntimeError("nothing came back")
    took = sorted(took)
    return {"p50": took[len(took) // 2] * 1e6, "p99": took[int(len(took) * 0.99)] * 1e6, "count": len(took)}


async def latency(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """10 kB over one connection, again and again."""
    return await _latency(port, head("GET", f"{prefix}/middle", host), seconds)


async def apart(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """The same from a server that writes the head, and a millisecond later the body."""
    return await _latency(port, head("GET", f"{prefix}/apart", host), seconds)


async def _latency(port: int, ask: bytes, seconds: float) -> dict[str, float]:
    reader, writer = await connect(port)
    took, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        writer.write(ask)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer.decode("latin-1"))
        await reader.readexactly(10_000)
        took.append(time.perf_counter() - begin)
    return percentiles(took)


async def round_trips(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """A small frame there and back over one WebSocket."""
    return await _round_trips(await websocket(port, host, f"{prefix}/ws"), seconds)


async def _round_trips(streams: Streams, seconds: float) -> dict[str, float]:
    reader, writer = streams
    took, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        writer.write(FRAME)
        await reader.readexactly(len(ECHO))
        took.append(time.perf_counter() - begin)
    return percentiles(took)


class _Sink(asyncio.Protocol):
    """Takes a download and counts it; reads no head but by its size."""

    def __init__(self, ask: bytes) -> None:
        self.ask, self.taken, self.gone = ask, 0, asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.transport.write(self.ask)

    def data_received(self, data: bytes) -> None:
        if not self.taken and not data.startswith(b"HTTP/1.1 200 "):
            self.transport.abort()  # taken stays 0: an error below
            return
        self.taken += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


async def down(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """What arrives of a long download, MB/s."""
    ask, begin = head("GET", f"{prefix}/down/{1 << 36}", host), time.perf_counter()
    loop = asyncio.get_running_loop()
    transport, sink = await loop.create_connection(lambda: _Sink(ask), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    rate = sink.taken / (time.perf_counter() - begin) / 1e6
    if sink.taken < LEAST_DOWN or sink.gone.done():
        raise RuntimeError(f"the download ended or stood still at {sink.taken} bytes")
    transport.abort()
    return {"MB/s": rate}


async def up(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """An upload until its answer, MB/s."""
    reader, writer = await connect(port)
    size = 256 * 1024 * 1024
    begin = time.perf_counter()
    writer.write(head("PUT", f"{prefix}/up", host, f"Content-Length: {size}"))
    for _ in range(size // len(UP_PIECE)):
        writer.write(UP_PIECE)
        await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in answer:
        raise RuntimeError(answer.decode("latin-1"))
    return {"MB/s": size / (time.perf_counter() - begin) / 1e6}


async def beside(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """Round trips over a WebSocket while a download runs at full speed; see ``pour``."""
    command = [sys.executable, "-m", "tests.bench.client", "drink", str(port), host, str(seconds + 0.5), prefix]
    pipe = asyncio.subprocess.PIPE
    drinker = await asyncio.create_subprocess_exec(*command, stdout=pipe)
    assert drinker.stdout is not None
    await drinker.stdout.readline()
    pour.schedule(is_prompt=True)
    found = await _round_trips(await websocket(port, host, prefix + PROMPT_ECHO.decode()), seconds)
    pour.schedule(is_prompt=False)
    rate, _ = await drinker.communicate()
    if drinker.returncode:
        raise RuntimeError("the download beside it failed")
    return {**found, **json.loads(rate)}


async def drink(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """The download's end of ``beside``, a process of its own."""
    ask = head("GET", f"{prefix}/pour/{1 << 40}", host)
    return {"MB/s": await asyncio.to_thread(pour.drink, ask, port, seconds)}


async def messages(port: int, host: str, seconds: float, prefix: str) -> dict[str, float]:
    """200 WebSockets, each with a frame under way, echoes a second."""
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    ask = head("GET", f"{prefix}/ws", host, *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    return {"msgs/s": await asyncio.to_thread(echo.rate, ask, port, 200, seconds)}


WHAT = {"latency": latency, "apart": apart, "ws": round_trips, "down": down, "up": up, "beside": beside}
WHAT |= {"messages": messages, "drink": drink}


async def main(what: str, port: str, host: str, seconds: str, prefix: str = "") -> None:
    """Measure one thing."""
    async with asyncio.timeout(float(seconds) + 12):
        sys.stdout.write(json.dumps(await WHAT[what](int(port), host, float(seconds), prefix)))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
