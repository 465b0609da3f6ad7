"""Puts the proxy of a web process together from the portal's settings. Called once, by ``portal.asgi``."""

from __future__ import annotations

from channels.db import database_sync_to_async
from django.conf import settings

from launcher import grants, parts, selectors, services
from launcher.proxy.access import AccessCache
from launcher.proxy.app import Proxy
from launcher.proxy.dial import SSHDial
from launcher.proxy.limits import Ceilings
from launcher.proxy.sites import Site
from launcher.proxy.upstream import Limits, UpstreamPool


def proxy_from_settings() -> Proxy:
    """The proxy, reaching sessions through their owners' SSH connections. It connects nowhere yet."""
    conf = settings.CONF
    usual = Limits()
    connections = min(usual.connections, conf.requests_per_session)
    limits = Limits(
        connections=connections,
        waiting=conf.requests_per_session - connections,
        sockets=conf.sockets_per_session,
    )
    return Proxy(
        site=Site(
            portal_url=conf.portal_url,
            sessions_domain=conf.sessions_domain,
            trusted_proxies=frozenset(conf.trusted_proxies),
        ),
        access=AccessCache(database_sync_to_async(selectors.open_target)),
        upstreams=UpstreamPool(SSHDial(parts.new_pool()), limits=limits),
        redeem=database_sync_to_async(grants.redeem_entry_code),
        denied=database_sync_to_async(services.record_access_denied),
        ceilings=Ceilings(
            requests_per_session=conf.requests_per_session,
            sockets_per_session=conf.sockets_per_session,
            requests_per_person=conf.requests_per_user,
            sockets_per_person=conf.sockets_per_user,
        ),
        uses_fast_lane=conf.fast_lane,
    )
