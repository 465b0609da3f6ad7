"""Live news for open pages: one WebSocket a page, which only says that a session changed. The page then asks anew."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from launcher.dispatch import WATCHERS_GROUP, user_group
from portal.accounts.models import User


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends ``{"type": "session", "id": …, "state": …}`` for the sessions this person may see.

    ``{"type": "notice"}`` says that there is something to tell this person about their own sessions.
    """

    async def connect(self) -> None:
        """Listen for the person's own sessions; auditors and administrators listen for all."""
        user = self.scope.get("user")
        if not isinstance(user, User):
            await self.close(code=4401)
            return
        self.user_id = user.pk
        groups = [user_group(user.pk), *([WATCHERS_GROUP] if user.may_audit else [])]
        for group in groups:
            await self.channel_layer.group_add(group, self.channel_name)
        self.joined = groups
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Stop listening."""
        for group in getattr(self, "joined", ()):
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Pages have nothing to say here. What comes is not even read as JSON."""

    async def sessions_changed(self, message: dict[str, Any]) -> None:
        """Some sessions changed."""
        for session_id, state in message["states"].items():
            await self.send_json({"type": "session", "id": session_id, "state": state})

    async def notice_made(self, message: dict[str, Any]) -> None:
        """There is something new to be told."""
        await self.send_json({"type": "notice"})
