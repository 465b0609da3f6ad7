"""A download at full speed beside a WebSocket, so that only the proxy between them can be what delays the WebSocket.

Client and server share a core. Both ends of the download are therefore processes of their own that cost next to
nothing: the sender lets the kernel copy from memory (``sendfile``), the receiver lets it throw the bytes away
(``MSG_TRUNC``). Both ends of the WebSocket go before them whenever they have something to do.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time

SIZE_BYTES = 16
"""A body's length, in digits and spaces: what comes with the descriptor of a connection to pour into."""
PIECE_BYTES = 1 << 20


def schedule(*, is_prompt: bool) -> None:
    """Let this process go before all others of its core, where that is allowed, or not."""
    with contextlib.suppress(PermissionError):  # then ``yield_to_others`` has to do
        policy = os.SCHED_RR if is_prompt else os.SCHED_OTHER
        os.sched_setscheduler(0, policy, os.sched_param(1 if is_prompt else 0))


def yield_to_others() -> None:
    """Let this process wait for those that are prompt; where none may be, for all."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def start() -> socket.socket:
    """Start the process that pours. Returns the way to it, which ends it when it is closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        there.close()
        return here
    here.close()
    try:
        yield_to_others()
        memory = os.memfd_create("pour")
        os.ftruncate(memory, PIECE_BYTES)
        os.pwrite(memory, bytes(PIECE_BYTES), 0)
        while True:
            message, descriptors, _, _ = socket.recv_fds(there, SIZE_BYTES, 1)
            if not message:
                os._exit(0)
            threading.Thread(target=_pour, args=(descriptors[0], memory, int(message)), daemon=True).start()
    finally:
        os._exit(1)


def _pour(descriptor: int, memory: int, size: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with contextlib.suppress(OSError):  # the receiver has left
        os.write(descriptor, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size > 0:
            try:
                size -= os.sendfile(descriptor, memory, 0, min(size, PIECE_BYTES))
            except BlockingIOError:
                poll.poll()
    os.close(descriptor)


def drink(ask: bytes, port: int, seconds: float) -> float:
    """Take a download for some seconds; the rate in MB/s. Raises RuntimeError when it ends before that."""
    yield_to_others()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(ask)
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer.decode("latin-1"))
        sys.stdout.write("\n")  # it has begun
        sys.stdout.flush()
        taken, begin, room = 0, time.perf_counter(), bytearray(PIECE_BYTES)
        while (passed := time.perf_counter() - begin) < seconds:
            count = connection.recv_into(room, PIECE_BYTES, socket.MSG_TRUNC)
            if not count:
                raise RuntimeError(f"the download ended after {taken} bytes")
            taken += count
    return taken / passed / 1e6
