"""The front of a web process: decides by the host name who answers, and follows the server's start and stop.

A process can serve pages and notebooks, or one of the two only (``PORTAL_SERVES``): the same application, so that a
busy page stalls no notebook. What it does not serve it sends away with 421. What is for no host of this site at all is
the proxy's to refuse, so that Django is not asked (and writes no error) for each try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal, Protocol

from django.http.request import split_domain_port, validate_host

from launcher import live_sockets, revocation
from launcher.proxy import pages as words
from portal.drain import Drain
from portal.sparselog import SparseLog

interruptions = SparseLog(logging.getLogger(__name__), level=logging.WARNING)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Serves = Literal["all", "pages", "sessions"]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
HEALTH_PATH = "/health/"


class SessionHosts(Protocol):
    """The proxy, as the front knows it."""

    @property
    def is_busy(self) -> bool:
        """Whether a request or WebSocket of a session is under way, in whatever lane."""

    def matches(self, scope: Scope) -> bool:
        """Whether the request is for a session's own host."""

    def drop(self, *, session_id: str = "", user_id: int | None = None) -> None:
        """Forget cached access and close open sockets of this session or person."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

    def at_once(self, scope: Scope, offer: Any) -> bool:
        """Begin to answer, if nothing has to be waited for. Returns whether it has begun."""

    async def aclose(self) -> None:
        """Close everything that is open."""


class Front:
    """The ASGI application of a web process."""

    def __init__(
        self,
        *,
        pages: Application,
        proxy: SessionHosts,
        hosts: Sequence[str],
        serves: Serves = "all",
        drain_seconds: float = 0.0,
    ) -> None:
        """``hosts``: the portal's own, as in Django's ``ALLOWED_HOSTS``."""
        self._pages = pages
        self._proxy = proxy
        self._hosts = hosts
        self._serves = serves
        self._drain = Drain(drain_seconds, others=lambda: int(proxy.is_busy))
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, WebSocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        drain = self._drain
        drain.enter()
        try:
            is_session = self._proxy.matches(scope)
            is_strange = not is_session and not self._is_portals(scope)
            is_health = not is_session and scope["path"] == HEALTH_PATH
            if is_strange:
                await self._proxy(scope, receive, send)
            elif self._serves != "all" and not is_health and is_session != (self._serves == "sessions"):
                await _refuse(scope, receive, send, words.ELSEWHERE)
            elif drain.is_on and (is_health or scope["type"] == "websocket"):
                await _refuse(scope, receive, _closing(send), words.RESTARTING)
            else:
                if drain.is_on:
                    scope["extensions"] = {}  # what goes past ``send`` would not say that the connection ends
                answer = self._proxy if is_session else self._pages
                await answer(scope, receive, _closing(send) if drain.is_on else send)
        finally:
            drain.leave()

    def at_once(self, scope: Scope, offer: Any) -> bool:
        """Let the proxy begin to answer without a task, where nothing speaks against it; see ``Proxy.at_once``.

        It knows a session's address by the same host name that ``matches`` looks at, and refuses any other.
        """
        return not self._drain.is_on and self._serves != "pages" and self._proxy.at_once(scope, offer)

    def _is_portals(self, scope: Scope) -> bool:
        """Whether the request names a host of the portal itself, as Django reads it."""
        named = [value for name, value in scope["headers"] if name == b"host"]
        domain, _ = split_domain_port(named[0].decode("latin-1").lower()) if len(named) == 1 else ("", "")
        return bool(domain) and validate_host(domain, self._hosts)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._listener = asyncio.create_task(self._listen())
                self._drain.follow_signals()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._listener is not None:
                    self._listener.cancel()
                    await asyncio.gather(self._listener, return_exceptions=True)
                await self._proxy.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _listen(self) -> None:
        """Hear of access that was taken away. When Valkey is away, try again: cached access also runs out by itself."""
        while True:
            try:
                async for news in revocation.listen():
                    self._proxy.drop(session_id=news.session_id, user_id=news.user_id)
                    if not news.session_id:
                        live_sockets.drop(user_id=news.user_id)
            except Exception as error:
                interruptions.note(f"News of access is interrupted: {error}")
                self._proxy.drop()  # news may have been missed; ``listen`` begins with news of everybody
                await asyncio.sleep(1)


def _closing(send: Send) -> Send:
    """The same, but the connection carries no further request."""

    async def closing(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing


async def _refuse(scope: Scope, receive: Receive, send: Send, notice: words.Notice) -> None:
    page = words.as_json(notice)
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # the connect event
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1012})
            return
    await send({"type": f"{kind}.start", "status": page.status, "headers": page.headers})
    await send({"type": f"{kind}.body", "body": page.body, "more_body": False})
