"""Many WebSockets with a frame under way in each, both ends as cheap as Python can be: a loop over what is readable.

Client and server share a core, and what they spend on a message, the proxy's core waits for. With an event loop and
protocols they took more for it than the proxies that are measured. The client masks its frames with zeros and sends
frames of one size, so that an echo is a slice.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time

from tests.bench.pour import schedule

FRAME = b"\x82\xa0" + bytes(4) + b"x" * 32
"""What the client sends: a masked binary frame of 32 bytes whose mask is zero."""
ECHO = b"\x82\x20" + b"x" * 32
MOST_BYTES = 64 * 1024
START_SECONDS = 5.0
PROMPT, USUAL = b"p", b"u"
"""What comes before the handshake's answer, when a connection is given to ``start``: whether its echoes wait for no
other process of this core."""


def start() -> socket.socket:
    """Start the process that echoes. Returns the way to it, which ends it when it is closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        there.close()
        return here
    here.close()
    try:
        _serve(there)
    finally:
        os._exit(1)


def _serve(there: socket.socket) -> None:
    poll, links, partial = select.epoll(), dict[int, socket.socket](), dict[int, int]()
    poll.register(there, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number == there.fileno():
                message, descriptors, _, _ = socket.recv_fds(there, MOST_BYTES, 1)
                if not message:
                    os._exit(0)
                schedule(is_prompt=message[:1] == PROMPT)
                link = socket.socket(fileno=descriptors[0])
                links[link.fileno()], partial[link.fileno()] = link, 0
                poll.register(link, select.EPOLLIN)
                link.send(message[1:])
                continue
            link, data = links[number], b""
            with contextlib.suppress(OSError):  # the client has left
                data = link.recv(MOST_BYTES)
                count, partial[number] = divmod(partial[number] + len(data), len(FRAME))
                if count:
                    link.send(ECHO * count)
            if not data:
                del links[number]
                link.close()


def rate(ask: bytes, port: int, connections: int, seconds: float) -> float:
    """Echoes a second over so many WebSockets, each opened with ``ask``, each with one frame under way.

    Raises RuntimeError when one cannot be opened, and when nothing comes back.
    """
    poll, links = select.epoll(), dict[int, socket.socket]()
    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(ask)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = link.recv(MOST_BYTES)
            if not piece or not (answer := answer + piece).startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(answer.decode("latin-1"))
        link.setblocking(False)  # with a time limit, Python would ask the kernel before each call
        links[link.fileno()] = link
        poll.register(link, select.EPOLLIN)
    for link in links.values():
        link.sendall(FRAME)
    partial, echoed, length = dict.fromkeys(links, 0), 0, len(ECHO)
    silent = set(links)
    begin = end = 0.0
    while not end or (now := time.perf_counter()) < end:
        ready = poll.poll(START_SECONDS)
        if not ready:
            raise RuntimeError(f"no echo came back on {len(silent) or connections} WebSockets")
        for number, _ in ready:
            link = links[number]
            data = link.recv(MOST_BYTES)
            if not data:
                raise RuntimeError("a WebSocket was closed")
            count, partial[number] = divmod(partial[number] + len(data), length)
            if count:
                echoed += count
                link.send(FRAME * count)
        if silent:
            silent.difference_update(number for number, _ in ready)
            if not silent:  # all of them are at work: the measurement begins
                echoed, begin = 0, time.perf_counter()
                end = begin + seconds
    for link in links.values():
        link.close()
    return echoed / (now - begin)
