"""Live news for open pages: one WebSocket a page, which only says that a session changed. The page then asks anew.

A socket lives as long as the sign-in it was opened with, with the role it was opened with. It looks again when access
was taken away from its person, and before it says anything when the last look is a while ago.
"""

from __future__ import annotations

import time
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from launcher import live_sockets
from launcher.dispatch import WATCHERS_GROUP, user_group
from portal.accounts import web_sessions
from portal.accounts.models import User

LOOK_AGAIN_SECONDS = 5.0
"""News of access taken away may be lost; a socket tells nothing on the word of an older look."""
SIGNED_OUT = 4401
TOO_MANY = 4429


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends ``{"type": "session", "id": …, "state": …}`` for the sessions this person may see.

    ``{"type": "notice"}`` says that there is something to tell this person about their own sessions.
    """

    async def connect(self) -> None:
        """Listen for the person's own sessions; auditors and administrators listen for all."""
        user = await self._person()
        if user is None:
            await self.close(code=SIGNED_OUT)
            return
        self.user_id, self.role, self.looked_at = user.pk, user.role, time.monotonic()
        self.joined = [user_group(user.pk), *([WATCHERS_GROUP] if user.may_audit else [])]
        for group in self.joined:
            await self.channel_layer.group_add(group, self.channel_name)
        if not live_sockets.has_room(user_id=user.pk):
            await self.close(code=TOO_MANY)
            return
        live_sockets.add(self)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Stop listening."""
        live_sockets.remove(self)
        for group in getattr(self, "joined", ()):
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Pages have nothing to say here. What comes is not even read as JSON."""

    async def sessions_changed(self, message: dict[str, Any]) -> None:
        """Some sessions changed."""
        if await self._may_stay(within_seconds=LOOK_AGAIN_SECONDS):
            for session_id, state in message["states"].items():
                await self.send_json({"type": "session", "id": session_id, "state": state})

    async def notice_made(self, message: dict[str, Any]) -> None:
        """There is something new to be told."""
        if await self._may_stay(within_seconds=LOOK_AGAIN_SECONDS):
            await self.send_json({"type": "notice"})

    async def check(self) -> None:
        """Close unless the sign-in still stands as it was."""
        await self._may_stay()

    async def _may_stay(self, *, within_seconds: float = 0) -> bool:
        if time.monotonic() - self.looked_at < within_seconds:
            return True
        user = await self._person()
        self.looked_at = time.monotonic()
        if user is not None and user.role == self.role:
            return True
        live_sockets.remove(self)
        await self.close(code=SIGNED_OUT)
        return False

    @database_sync_to_async
    def _person(self) -> User | None:
        """Whose sign-in this is, if it stands, as the database has them now."""
        known = self.scope.get("user")
        if not isinstance(known, User):
            return None
        user = User.objects.filter(pk=known.pk, is_active=True).first()
        return user if user is not None and web_sessions.find(self.scope["session"], user) else None
