"""The connection file: how the server inside a job says where it listens. Pure; reads it as hostile input.

The job writes ``connection.json`` into its session folder. Whoever can write there could name any host and
port, so nothing of it is taken at its word: the shape is strict, and the host must be one that the
scheduler reports for the job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from launcher.proxy.headers import SECRET_HEADER
from portal.errors import FootbridgeError

__all__ = [
    "CONNECTION_NAME",
    "MAX_BYTES",
    "SECRET_HEADER",
    "Connection",
    "ConnectionRejected",
    "Flavor",
    "parse_connection",
    "secret_headers",
]

CONNECTION_NAME = "connection.json"
"""The file's name in the session folder."""
MAX_BYTES = 4096
"""A connection file is about 250 bytes. A longer one is not ours."""
VERSION = 1
LONGEST_SOCKET_PATH = 107
"""Linux takes no more bytes."""

Flavor = Literal["identity", "token"]
"""How the server takes the secret: in our own header (jupyter_server 2), or as Jupyter's token (older
ones)."""

_KEYS = frozenset({"version", "session", "host", "port", "base_url", "flavor", "pid", "server"})
_SOCKET_KEYS = _KEYS - {"port"} | {"socket"}
_SOCKET = re.compile(r"(?:/(?!\.{1,2}/)[A-Za-z0-9._+=@,-]+)*/fb\.[A-Za-z0-9]{8}/server\.sock")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")
_BASE_URL = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


class ConnectionRejected(FootbridgeError):
    """A connection file that is not to be believed.

    ``code`` is one of connection.too_large, connection.not_json, connection.wrong_shape,
    connection.wrong_version, connection.wrong_session, connection.wrong_port, connection.wrong_socket,
    connection.wrong_host;
    ``params["key"]`` names the key where one is to blame. ``detail`` holds nothing of the file but a host
    that has passed the pattern of host names.
    """

    code = "connection.wrong_shape"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server inside a job listens. ``host`` is the scheduler's name for it, never the job's."""

    host: str
    port: int  # 0: it listens on a socket
    base_url: str
    flavor: Flavor
    server: str  # for people and the log: "jupyter_server 2.21.1"
    socket: str = ""  # the path of a Unix socket on ``host``


def parse_connection(
    data: bytes, *, session_id: str, execution_hosts: Sequence[str], may_be_socket: bool = False
) -> Connection:
    """The connection in ``data``, for a job that the scheduler says runs on ``execution_hosts``.

    ``may_be_socket``: its cluster is reached in a way that leads to Unix sockets. Raises ConnectionRejected, and
    nothing else, whatever ``data`` is.
    """
    entries = _entries(data)
    is_socket = may_be_socket and "socket" in entries
    if set(entries) != (_SOCKET_KEYS if is_socket else _KEYS):
        raise ConnectionRejected("keys are missing or unknown")
    if _whole(entries, "version") != VERSION:
        raise ConnectionRejected("another version of the file", code="connection.wrong_version")
    if _text(entries, "session", re.compile(r"[a-z0-9]{1,64}")) != session_id:
        raise ConnectionRejected("the file of another session", code="connection.wrong_session")
    port = 0 if is_socket else _whole(entries, "port")
    if not is_socket and not 1024 <= port <= 65535:
        raise ConnectionRejected("no port above 1023", code="connection.wrong_port", params={"key": "port"})
    if _whole(entries, "pid") < 1:
        raise ConnectionRejected("no process id", params={"key": "pid"})
    flavor = _text(entries, "flavor", re.compile("identity|token"))
    return Connection(
        host=_known_host(_text(entries, "host", _HOST), execution_hosts),
        port=port,
        base_url=_text(entries, "base_url", _BASE_URL),
        flavor="identity" if flavor == "identity" else "token",
        server=_text(entries, "server", _SERVER),
        socket=_socket(entries["socket"]) if is_socket else "",
    )


def secret_headers(flavor: Flavor, secret: str) -> dict[str, str]:
    """The header by which a server of ``flavor`` recognises the portal."""
    return {SECRET_HEADER: secret} if flavor == "identity" else {"Authorization": f"token {secret}"}


def _entries(data: bytes) -> Mapping[str, object]:
    """The file's one JSON object, without repeated keys."""
    if len(data) > MAX_BYTES:
        raise ConnectionRejected("more bytes than a connection file has", code="connection.too_large")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConnectionRejected(type(error).__name__, code="connection.not_json") from None
    if not isinstance(value, dict):
        raise ConnectionRejected("no JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key appears twice")
    return entries


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(name)


def _whole(entries: Mapping[str, object], key: str) -> int:
    value = entries[key]
    if type(value) is not int:  # isinstance would let true and false pass
        raise ConnectionRejected(f"{key} is no whole number", params={"key": key})
    return value


def _text(entries: Mapping[str, object], key: str, pattern: re.Pattern[str]) -> str:
    value = entries[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConnectionRejected(f"{key} is not what it should be", params={"key": key})
    return value


def _socket(value: object) -> str:
    """A socket in a folder as job scripts make them. The portal shall not be led to any other one on the host."""
    if not isinstance(value, str) or len(value) > LONGEST_SOCKET_PATH or not _SOCKET.fullmatch(value):
        detail = "no socket in a folder of a job"
        raise ConnectionRejected(detail, code="connection.wrong_socket", params={"key": "socket"})
    return value


def _known_host(claimed: str, execution_hosts: Sequence[str]) -> str:
    """The scheduler's name of the host that the job claims to run on: the same name, or the same first label.

    Schedulers and hosts disagree about domains (``node07`` and ``node07.cluster.example``). Addresses have
    no labels.
    """
    wanted = claimed.lower()
    for host in execution_hosts:
        if host.lower() == wanted:
            return host
    for host in execution_hosts:
        is_name = not _ADDRESS.fullmatch(host) and not _ADDRESS.fullmatch(claimed)
        if is_name and host.lower().partition(".")[0] == wanted.partition(".")[0]:
            return host
    detail = f"the scheduler does not report {claimed} for this job"
    raise ConnectionRejected(detail, code="connection.wrong_host", params={"key": "host"})
