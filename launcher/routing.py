"""WebSocket addresses of the portal itself."""

from __future__ import annotations

from django.urls import path

from launcher.consumers import LiveConsumer

websocket_urlpatterns = [path("live/", LiveConsumer.as_asgi())]
