"""The front of a web process before a small application, for tests that end real processes: run by uvicorn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()

from launcher import revocation
from portal.front import Front


async def _no_news() -> AsyncIterator[Any]:
    """There is no Valkey here."""
    await asyncio.Event().wait()
    yield


revocation.listen = _no_news


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """``/slow/N``: a download of N pieces, ten a second. Sockets say what they hear. All else: short."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(scope["path"].removeprefix("/slow/")) if scope["path"].startswith("/slow/") else 0):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"."})


class NoProxy:
    """No host is a session's."""

    is_busy = False

    def matches(self, scope: Any) -> bool:
        return scope["headers"] and dict(scope["headers"])[b"host"].startswith(b"session.")

    def drop(self, *, session_id: str = "", user_id: int | None = None) -> None:
        """Nothing is kept."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await pages(scope, receive, send)

    def at_once(self, scope: Any, offer: Any) -> bool:
        """Nothing begins so."""
        return False

    async def aclose(self) -> None:
        """Nothing is open."""


application = Front(
    pages=pages,
    proxy=NoProxy(),
    hosts=["*"],
    serves=os.environ.get("TEST_SERVES", "all"),  # type: ignore[arg-type]  # one of the three
    drain_seconds=float(os.environ.get("TEST_DRAIN_SECONDS", "0")),
)
