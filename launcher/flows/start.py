"""Finds the server inside a running job: reads the connection file the job wrote, then asks the server itself.

The file is the job's word and hostile input: it is read as the user, never through a link, and its host must be one
that the scheduler reports for the job. The server must accept the session's secret; another person's server that
happens to listen on the port cannot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from launcher.clusters import Cluster
from launcher.connection import CONNECTION_NAME, MAX_BYTES, Connection, parse_connection, secret_headers
from launcher.models import InteractiveSession
from launcher.parts import hands
from launcher.schedulers.base import JobStatus
from launcher.sealing import unseal
from launcher.ssh.errors import NodeKeyUnknown, NodeRefused, SSHError

log = structlog.get_logger(__name__)

PROBE_SECONDS = 10
MAX_HEAD_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Started:
    """A server was found; ``answered``: it also answered an HTTP request that carried our secret.

    ``trouble``: the code of what an execution host has against our coming; empty where it is just not there yet.
    """

    connection: Connection
    answered: bool
    trouble: str = ""


async def look_for_server(cluster: Cluster, session: InteractiveSession, status: JobStatus) -> Started:
    """One look, without waiting. Raises RemoteFileError (``file.missing`` while the server is still loading),
    ConnectionRejected for a file that is not to be believed, other SSHErrors."""
    async with hands().files(cluster, session.username) as files:
        data = await files.read(f"{session.folder}/{CONNECTION_NAME}", MAX_BYTES)
    connection = parse_connection(
        data,
        session_id=session.id,
        execution_hosts=status.execution_hosts,
        may_be_socket=cluster.reach == "ssh-node",
    )
    secret = unseal(session.secret_encrypted)
    trouble = ""
    try:
        answered = await asyncio.wait_for(_probe(cluster, session, connection, secret), PROBE_SECONDS)
    except (NodeRefused, NodeKeyUnknown) as error:
        log.warning("node_closed", session=session.id, error=error.code, detail=error.detail)
        answered, trouble = False, error.code
    except (SSHError, OSError, TimeoutError):
        answered = False
    return Started(connection=connection, answered=answered, trouble=trouble)


async def _probe(cluster: Cluster, session: InteractiveSession, connection: Connection, secret: str) -> bool:
    """Whether ``GET <base_url>api/status`` answers 200 to a request that carries the secret."""
    reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
    transport, _ = await hands().tunnel(
        cluster,
        session.username,
        connection.host,
        connection.port,
        lambda: asyncio.StreamReaderProtocol(reader),
        socket=connection.socket,
    )
    try:
        headers = {"Host": "footbridge", "Connection": "close", **secret_headers(connection.flavor, secret)}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        transport.write(f"GET {session.base_url}api/status HTTP/1.1\r\n{head}\r\n".encode("ascii"))
        line = await reader.readline()
        return line.split()[1:2] == [b"200"]
    finally:
        transport.abort()
