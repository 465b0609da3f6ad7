"""What every cluster's tests do: drive a session as the workers would, look at its events, run a cell in its server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Iterator

from websockets.sync.client import connect

from launcher.connection import secret_headers
from launcher.flows.cancel import cancel
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import Allowance, InteractiveSession
from launcher.parts import clusters, hands, hands_loop
from launcher.sealing import digest, unseal
from launcher.states import SessionState
from portal.accounts.models import User, WebSession
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.integration.jupyter_job import Kernel
from tests.waiting import wait_for

CHUNK_BYTES = 65_536


def one_round(session: InteractiveSession) -> InteractiveSession:
    """Do what the workers do once, and look at the session again."""
    session.refresh_from_db()
    if session.state == SessionState.SUBMITTING:
        submit(session.id)
    if session.state == SessionState.STOPPING:
        cancel(session.id)
    poll(session.cluster)
    session.refresh_from_db()
    return session


def drive(
    session: InteractiveSession, state: SessionState, *, seconds: float = 60, pause_seconds: float = 0.05
) -> InteractiveSession:
    """Do what the workers do until the session has this state."""
    wait_for(
        lambda: one_round(session).state == state,
        seconds=seconds,
        pause_seconds=pause_seconds,
        what=lambda: (
            f"{session} to become {state}; it is {session.state} {session.end_code} {session.job_comment};"
            f" log: {session.log_tail[-500:]}"
        ),
    )
    return session


def allow(
    user: User | None = None,
    *,
    group: str = "",
    app: str = "",
    cluster: str = "",
    sessions: int | None = None,
    hours: float | None = None,
) -> Allowance:
    """What an administrator has allowed a person or a group."""
    return Allowance.objects.create(
        user=user, group=group, app=app, cluster=cluster, sessions=sessions, hours=hours, changed_at=now()
    )


def signed_in(user: User) -> str:
    """The key of the session of a browser in which this person is signed in; the same one each time."""
    key, moment = f"the browser of {user.username}", now()
    WebSession.objects.get_or_create(
        key_digest=digest(key), defaults={"user": user, "created_at": moment, "last_seen_at": moment}
    )
    return key


def events_of(session: InteractiveSession) -> list[str]:
    """The names of its audit events, in order."""
    return list(AuditEvent.objects.filter(session_id=session.id).order_by("sequence").values_list("name", flat=True))


@contextlib.contextmanager
def local_port(session: InteractiveSession) -> Iterator[int]:
    """A port of this machine behind which is the session's server, through the tunnel that the proxy would use."""
    host, port = session.upstream_host, session.upstream_port
    assert port is not None or session.upstream_socket
    cluster = clusters()[session.cluster]

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = asyncio.StreamReader()
        transport, protocol = await hands().tunnel(
            cluster,
            session.username,
            host,
            port or 0,
            lambda: asyncio.StreamReaderProtocol(there),
            socket=session.upstream_socket,
        )
        try:
            far = asyncio.StreamWriter(transport, protocol, there, asyncio.get_running_loop())
            await asyncio.gather(copy(reader, far), copy(there, writer))
        finally:
            transport.abort()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(asyncio.create_task(serve(reader, writer)))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(accept, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)

    visits: list[asyncio.Task[None]] = []
    server = hands_loop().run(start(), 60)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        hands_loop().run(stop(), 60)


def run_cell(session: InteractiveSession, code: str) -> str:
    """What a cell prints in a new kernel of the session's server, by HTTP and the kernel's WebSocket."""
    headers = secret_headers(session.upstream_flavor, unseal(session.secret_encrypted))  # type: ignore[arg-type]  # a text column
    unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
    with local_port(session) as port:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.request("POST", f"{session.base_url}api/kernels", body="{}", headers=unsafe)
            answer = client.getresponse()
            body = answer.read()
        assert answer.status == 201, body
        kernel_id = json.loads(body)["id"]
        address = f"ws://127.0.0.1:{port}{session.base_url}api/kernels/{kernel_id}/channels"
        with connect(address, additional_headers=headers, compression=None) as socket:
            return Kernel(kernel_id, socket).run(code)
