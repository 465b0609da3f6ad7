"""The ASGI application: sessions' own hosts go to the proxy, all else to Django and Channels.

Nothing of Django lies on a notebook's way: the proxy is asked first, by the host name alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application

from launcher import parts
from launcher.proxy.factory import proxy_from_settings
from launcher.routing import websocket_urlpatterns
from portal import coredumps
from portal.front import Front
from portal.garbage import look_seldom

coredumps.write_none()
parts.sign_in_cluster()  # refuses to start with a clusters file that is wrong, rather than at somebody's sign-in

_pages = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": OriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)), [settings.CONF.portal_url]),
    }
)

application = Front(
    pages=_pages,
    proxy=proxy_from_settings(),
    hosts=settings.ALLOWED_HOSTS,
    serves=settings.CONF.serves,
    drain_seconds=settings.CONF.drain_seconds,
)
look_seldom()
