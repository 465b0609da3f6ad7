"""Ports of this machine: whether one is taken, by whom, and which are free."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_000  # Linux gives connections 32768 and above, see ip(7)
_TRIES = 50
_LISTENING = "0A"  # state in /proc/net/tcp, see proc(5)


def free_port() -> int:
    """A loopback port that was free a moment ago, and that nobody is given by chance before it is used: it lies below
    those which the system gives to connections, and to servers that take any.
    """
    for _ in range(_TRIES):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_taken(host: str, port: int) -> bool:
    """Whether the web process could not listen on ``host`` and ``port``, or browsers would reach somebody
    else.

    Browsers try ``::1`` for ``localhost`` as well, so a listener there counts when ``host`` is a loopback
    address. Raises OSError when ``host`` is no address of this machine.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except PermissionError:
                raise
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return True
    return _is_loopback(host) and _answers("::1", port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def holder_of(port: int) -> str:
    """Who listens on ``port``, as ``name (process 123)``; empty where that is hidden from this account."""
    sockets = _listening_sockets(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return f"{_command_of(process)} (process {process.name})"
    return ""


def _listening_sockets(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _command_of(process: Path) -> str:
    words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
    text = " ".join(word for word in words if word)
    return text if len(text) <= 70 else f"{text[:69]}…"
