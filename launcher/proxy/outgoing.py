"""What a visit becomes on its way to the server in the job: the same head whichever lane carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from launcher.proxy.connection import Connection
from launcher.proxy.errors import ClientGone, UpstreamSilent
from launcher.proxy.exchange import Exchange, Head
from launcher.proxy.headers import (
    MAX_HEAD_BYTES,
    BadHead,
    OutgoingRequest,
    Secret,
    outgoing_handshake,
    outgoing_request,
    request_target,
)
from launcher.proxy.visit import Receive, Visit


def request_of(visit: Visit) -> OutgoingRequest:
    """The request to pass on; the visit has a target. Raises BadHead."""
    if visit.request is not None:
        return visit.request
    target = visit.access.target
    assert target is not None
    method, wanted = visit.scope["method"], request_target(visit.raw_path, visit.query)
    prepared = visit.prepared
    if prepared.target is not target:
        request = outgoing_request(
            method=method,
            target=wanted,
            fields=visit.scope["headers"],
            origin=visit.origin,
            client=visit.client,
            secret=Secret(target.flavor, target.secret),
        )
        prepared.request = replace(request, head=request.head[request.head.index(b"\r\n") :])
        prepared.target = target
        return request
    kept = prepared.request
    head = b"%b %b HTTP/1.1%b" % (method.encode("ascii"), wanted, kept.head)
    if len(head) > MAX_HEAD_BYTES:
        raise BadHead(431, "the head is too long")
    return OutgoingRequest(head, kept.length, kept.chunked, kept.expects_continue)


def handshake_of(visit: Visit, *, key: bytes = b"", subprotocols: Sequence[str] = ()) -> bytes:
    """The head of the WebSocket handshake to pass on: our own with a ``key``, else the browser's. Raises BadHead."""
    target = visit.access.target
    assert target is not None
    return outgoing_handshake(
        target=request_target(visit.raw_path, visit.query),
        fields=visit.scope["headers"],
        origin=visit.origin,
        client=visit.client,
        secret=Secret(target.flavor, target.secret),
        key=key,
        subprotocols=subprotocols,
    )


async def ask_to_upgrade(
    connection: Connection, opening: bytes, seconds: float, receive: Receive
) -> tuple[Exchange, Head]:
    """The server's answer to a handshake, whatever it says.

    Raises UpstreamSilent after ``seconds``, and ClientGone when the browser leaves before: until it is answered, that
    is all that can come from it.
    """
    exchange = connection.start("GET", opening, wants_upgrade=True)
    exchange.request_sent = True
    answer, leaving = asyncio.ensure_future(exchange.head()), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answer, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            raise ClientGone
        if not answer.done():
            raise UpstreamSilent("no answer to a handshake in time")
        return exchange, answer.result()
    finally:
        for waiting in (answer, leaving):
            if not waiting.cancel():
                waiting.exception()  # it has been told, or nobody is left to hear it
