"""The front of a web process: decides by the host name who answers, and follows the server's start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import structlog
from channels.layers import get_channel_layer

from launcher.dispatch import PROXY_GROUP

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REJOIN_SECONDS = 3600
"""The channel layer forgets a member after a day; join again well before."""


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
                await self._hear()
            except Exception as error:
                log.warning("access_news_interrupted", error=str(error))
                self._proxy.drop()  # news may have been missed
                await asyncio.sleep(1)

    async def _hear(self) -> None:
        layer = get_channel_layer()
        # No prefix of its own: the layer waits for one prefix at a time, up to 5 s, and pages listen under the default.
        channel = await layer.new_channel()
        await layer.group_add(PROXY_GROUP, channel)
        while True:
            try:
                message = await asyncio.wait_for(layer.receive(channel), REJOIN_SECONDS)
            except TimeoutError:
                await layer.group_add(PROXY_GROUP, channel)
                continue
            if message.get("type") == "access.dropped":
                self._proxy.drop(session_id=message.get("session_id", ""), user_id=message.get("user_id"))
