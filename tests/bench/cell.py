"""An executed cell: a real Jupyter with a real kernel behind each way, measured from the click to the result.

Behind ours runs what Footbridge starts, the job script with its configuration of Jupyter. Behind ``ssh -N -L`` runs
plain Jupyter, as the tutorials tell people to start it. ``python -m tests.bench.cell cell PORT HOST SECONDS PATH`` is
the client, for a kernel's WebSocket at PATH. It speaks to the kernel as JupyterLab does, with binary messages, and does
little else, since it shares a core with what is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

from launcher.proxy.frames import BINARY, FrameReader, frame
from tests.bench.client import SECRET, head, percentiles
from tests.bench.peers import OTHER_CORE, PROXY_CORE, Peer, start
from tests.integration.jupyter_job import BASE_URL, Job
from tests.integration.ssh_server import free_port

BOTH_CORES = f"{PROXY_CORE},{OTHER_CORE}"
"""Where Jupyter and its kernels run: on a cluster they would share none with the proxy or the browser."""
BINARY_MESSAGES = "v1.kernel.websocket.jupyter.org"
PLAIN, JOBS = "no proxy, plain Jupyter", "no proxy, Jupyter of a job"


def execute(port: int, host: str, seconds: float, path: str) -> dict[str, float]:
    """Execute a cell again and again; how long each took."""
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    secret = f"X-Footbridge-Secret: {SECRET}"  # ours replaces it
    protocol = f"Sec-WebSocket-Protocol: {BINARY_MESSAGES}"
    ask = head("GET", path, host, *fields, protocol, secret, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(ask)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.recv(1)  # nothing of what comes behind it
        if not answer.startswith(b"HTTP/1.1 101 ") or BINARY_MESSAGES.encode() not in answer:
            raise RuntimeError(answer.decode("latin-1"))
        messages = received(line)
        for _ in range(3):
            run(line, messages, "1")  # until the kernel has started
        took, end = [], time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            if run(line, messages, "print(6 * 7)") != "42":
                raise RuntimeError("a cell gave something else")
            took.append(time.perf_counter() - begin)
    return percentiles(took)


def received(line: socket.socket) -> Iterator[bytes]:
    """The kernel's messages."""
    reader = FrameReader(max_bytes=1 << 24)
    while data := line.recv(64 * 1024):
        for event in reader.feed(data):
            if event.opcode == BINARY:
                yield event.data


def run(line: socket.socket, messages: Iterator[bytes], code: str) -> str:
    """Execute ``code`` and wait until the kernel is idle again and has replied. Returns what was printed."""
    message_id = uuid.uuid4().hex  # a kernel takes the same message no second time
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    header["date"] = "2025-01-01T00:00:00Z"
    line.sendall(frame(BINARY, packed("shell", header, {}, {}, {"code": code, "silent": False})))
    printed, is_idle, has_reply = "", False, False
    for message in messages:
        _, about, parent, _, content = unpacked(message)
        if json.loads(parent).get("msg_id") != message_id:
            continue
        match json.loads(about)["msg_type"]:
            case "stream":
                printed += json.loads(content)["text"]
            case "status":
                is_idle = is_idle or json.loads(content)["execution_state"] == "idle"
            case "execute_reply":
                has_reply = True
        if is_idle and has_reply:
            return printed.strip()
    raise RuntimeError("the WebSocket was closed")


def packed(channel: str, *parts: object) -> bytes:
    """A kernel's message: how many offsets, where each part begins and the last ends, and the parts."""
    pieces = [channel.encode(), *(json.dumps(part).encode() for part in parts)]
    count = len(pieces) + 1
    offsets = list(accumulate(map(len, pieces), initial=8 * (count + 1)))
    return struct.pack(f"<{count + 1}Q", count, *offsets) + b"".join(pieces)


def unpacked(message: bytes) -> tuple[bytes, ...]:
    """Channel, header, parent's header, metadata and content; this program has no use for what may follow."""
    offsets = struct.unpack_from("<6Q", message, 8)
    return tuple(message[begin:end] for begin, end in pairwise(offsets))


def _new_kernel(port: int, base_url: str) -> str:
    """Start a kernel; the path of its WebSocket."""
    fields = {"X-Footbridge-Secret": SECRET, "Cookie": "_xsrf=x", "X-XSRFToken": "x"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request("POST", f"{base_url}api/kernels", "{}", {**fields, "Content-Type": "application/json"})
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"no kernel: {answer.status} {body[:200]!r}")
    return f"{base_url}api/kernels/{json.loads(body)['id']}/channels"


@contextlib.contextmanager
def plain_jupyter(folder: Path) -> Iterator[Peer]:
    """Jupyter as people start it; without a token, which makes no difference to a cell."""
    port, home = free_port(), folder / "plain"
    home.mkdir()
    options = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", f"--notebook-dir={home}"]
    options += ["--ServerApp.disable_check_xsrf=True", "--ServerApp.allow_remote_access=True"]
    own = {name: str(home) for name in ("HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
    own["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "jupyter_server", *options]
    peer = start(command, port, PLAIN, folder / "plain.log", BOTH_CORES, **own)
    try:
        peer.prefix = _new_kernel(port, "/")
        yield peer
    finally:
        peer.process.terminate()  # it ends its kernels
        peer.process.wait(20)


@contextlib.contextmanager
def jupyter_of_a_job(folder: Path) -> Iterator[Peer]:
    """Jupyter as the job script starts it."""
    job = Job(folder / "job", secret=SECRET)
    job.start()
    assert job.process is not None
    subprocess.run(["taskset", "-a", "-p", "-c", BOTH_CORES, str(job.process.pid)], check=True, capture_output=True)
    try:
        port = job.connection().port
        yield Peer(JOBS, port, job.process, _new_kernel(port, BASE_URL))
    finally:
        job.kill()


def main(_: str, port: str, host: str, seconds: str, path: str) -> None:
    """Measure."""
    sys.stdout.write(json.dumps(execute(int(port), host, float(seconds), path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
