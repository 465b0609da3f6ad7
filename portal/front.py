"""The front of a web process: decides by the host name who answers, and follows the server's start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import structlog

from launcher import live_sockets, revocation

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class SessionHosts(Protocol):
    """The proxy, as the front knows it."""

    def matches(self, scope: Scope) -> bool:
        """Whether the request is for a session's own host."""

    def drop(self, *, session_id: str = "", user_id: int | None = None) -> None:
        """Forget cached access and close open sockets of this session or person."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

    async def aclose(self) -> None:
        """Close everything that is open."""


class Front:
    """The ASGI application of a web process."""

    def __init__(self, *, pages: Application, proxy: SessionHosts) -> None:
        self._pages = pages
        self._proxy = proxy
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, WebSocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._proxy.matches(scope):
            await self._proxy(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._listener = asyncio.create_task(self._listen())
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
                log.warning("access_news_interrupted", error=str(error))
                self._proxy.drop()  # news may have been missed; ``listen`` begins with news of everybody
                await asyncio.sleep(1)
