"""One bounded question to the OpenID provider: JSON back, no redirect followed, an end to waiting.

The provider's answers are hostile input: at most so many bytes, within so many seconds, an object or nothing.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from portal.errors import FootbridgeError
from portal.openid_conf import is_safe_address

TIMEOUT_SECONDS = 8.0
MOST_BYTES = 256 * 1024


class ProviderAway(FootbridgeError):
    """The provider cannot be reached, or what it answers makes no sense."""

    code = "openid.away"
    transient = True


class ProviderRefused(FootbridgeError):
    """The provider, or what it said of somebody, does not prove who they are."""

    code = "openid.refused"


def ask(address: str, *, body: str | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The object that ``address`` answers with; a POST where there is a ``body`` (a form).

    Raises ProviderAway; ProviderRefused for an answer of 4xx to a POST.
    """
    if not is_safe_address(address):
        raise ProviderAway("an address of the provider is not https")
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    sent = {"Accept": "application/json", **(headers or {})}
    if body is not None:
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET" if body is None else "POST", target, body=body, headers=sent)
        answer = connection.getresponse()
        text = _read(answer)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProviderAway(f"{parts.hostname}: {type(error).__name__}") from error
    finally:
        connection.close()
    if body is not None and 400 <= answer.status < 500:
        raise ProviderRefused(f"the provider answered {answer.status}")
    if answer.status != 200:
        raise ProviderAway(f"the provider answered {answer.status}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProviderAway("the provider's answer is no JSON") from error
    if not isinstance(value, dict):
        raise ProviderAway("the provider's answer is no object")
    return value


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The whole body. Raises ProviderAway when it is too long or comes too slowly."""
    until, text = time.monotonic() + TIMEOUT_SECONDS, b""
    while part := answer.read1(65536):
        text += part
        if len(text) > MOST_BYTES or time.monotonic() > until:
            raise ProviderAway("the provider's answer is too long, or comes too slowly")
    return text
