"""Continues a session in a new one: the same app, choices and folder, launched now so that it waits its turn while the
old one still runs. Before that the old one's server is asked which notebook its owner is in; it need not answer.
"""

from __future__ import annotations

import asyncio

import structlog

from launcher import selectors, services
from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.connection import secret_headers
from launcher.models import InteractiveSession
from launcher.notebookpath import MAX_BYTES, latest_notebook
from launcher.parts import apps, clusters, hands, hands_loop
from launcher.proxy.access_types import Target
from launcher.services import LaunchRefused
from portal.accounts.models import User
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5
"""A server that is slower is not waited for: the new session then opens at its start page."""
_MAX_HEAD_BYTES = 16 * 1024


def continue_session(*, session: InteractiveSession, user: User, address: str) -> InteractiveSession:
    """The session that goes on with ``session``'s work: a new one, or the one that does already.

    Raises LaunchRefused, with code ``continue.not_running`` where there is nothing to continue.
    """
    going_on = selectors.continuation_of(session)
    if going_on is not None:
        return going_on
    if not selectors.may_be_continued(session):
        raise LaunchRefused(code="continue.not_running")
    app, cluster = apps().get(session.app), clusters().get(session.cluster)
    if app is None or cluster is None:
        raise LaunchRefused(code="app.unknown" if app is None else "continue.cluster_gone")
    if path := _where_the_owner_is(session):
        services.record_last_path(session.pk, path)
    return services.create_session(
        owner=user,
        app=app,
        cluster=cluster,
        choices=LaunchChoices.from_dict(session.choices),
        address=address,
        continuing=session,
    )


def _where_the_owner_is(session: InteractiveSession) -> str:
    target = selectors.target_of(session)
    if target is None:
        return ""
    try:
        return latest_notebook(hands_loop().run(_open_notebooks(target), LOOK_SECONDS))
    except (FootbridgeError, OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        log.info("notebook_not_known", session=session.pk, error=type(error).__name__)
        return ""


async def _open_notebooks(target: Target) -> bytes:
    """The body of ``GET <base_url>api/sessions``; more than MAX_BYTES of it are not read."""
    cluster: Cluster = target.cluster
    reader = asyncio.StreamReader(limit=_MAX_HEAD_BYTES)
    transport, _ = await hands().tunnel(
        cluster,
        target.username,
        target.host,
        target.port,
        lambda: asyncio.StreamReaderProtocol(reader),
        socket=target.socket,
    )
    try:
        headers = {"Host": "footbridge", "Connection": "close", **secret_headers(target.flavor, target.secret)}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        # HTTP/1.0: a body without chunks, which ends with the connection
        transport.write(f"GET {target.base_url}api/sessions HTTP/1.0\r\n{head}\r\n".encode("ascii"))
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.split(b" ", 2)[1:2] != [b"200"]:
            return b""
        body = bytearray()
        while len(body) <= MAX_BYTES and (piece := await reader.read(MAX_BYTES)):
            body += piece
        return bytes(body)
    finally:
        transport.abort()
