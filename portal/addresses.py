"""The address a request came from, believing a reverse proxy only where the site names it."""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.http import HttpRequest


def client_address(peer: str, forwarded_for: str, trusted: Collection[str]) -> str:
    """The last address in ``X-Forwarded-For`` that is not a trusted proxy, when the peer is one; else the peer."""
    if peer not in trusted:
        return peer
    for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        if hop not in trusted:
            return hop[:64]
    return peer


def address_of(request: HttpRequest) -> str:
    """Where ``request`` came from."""
    return client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        settings.CONF.trusted_proxies,
    )
