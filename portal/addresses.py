"""The address a request came from, believing a reverse proxy only where the site names it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from django.conf import settings
from django.http import HttpRequest


def client_address(peer: str, forwarded_for: str, trusted: Collection[str]) -> str:
    """The last address in ``X-Forwarded-For`` that is not a trusted proxy, when the peer is one; else the peer."""
    peer = plain(peer)
    if peer not in trusted:
        return peer
    for hop in reversed([plain(part) for part in forwarded_for.split(",") if part.strip()]):
        if hop not in trusted:
            return hop[:64]
    return peer


def plain(address: str) -> str:
    """``address`` without what some proxies and systems add: a port, brackets, IPv6 round an address of IPv4."""
    text = address.strip()
    host = (
        text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0] if text.count(":") == 1 else text
    )
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return text
    return str(getattr(number, "ipv4_mapped", None) or number)


def network_of(address: str) -> str:
    """What is held back as one: an address of IPv4, a network of IPv6, of which a household has one at least (/64)."""
    host = plain(address)
    try:
        return str(ipaddress.IPv6Network((ipaddress.IPv6Address(host).packed[:8] + bytes(8), 64)))
    except ValueError:
        return host


def address_of(request: HttpRequest) -> str:
    """Where ``request`` came from."""
    return client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        settings.CONF.trusted_proxies,
    )
