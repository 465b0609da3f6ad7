"""Ways into a session for tests that are about something else: the portal's own steps, without proxy and browser."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from django.test import Client
from django.urls import reverse

from launcher import grants
from launcher.grants import GrantIssued
from launcher.models import InteractiveSession
from portal.accounts.models import User
from tests.integration.proxy_peers import ENTRY, NONCE
from tests.story import signed_in


def label_of(session: InteractiveSession) -> str:
    """What the proxy calls the session."""
    return session.host_label if session.has_own_origin else session.pk


def connect(client: Client, session: InteractiveSession) -> str:
    """Connect, as somebody whose browser got ``NONCE`` on the way; the code."""
    assert client.post(reverse("launcher:connect", args=[session.pk])).status_code == 303
    return code_for(client, session)


def code_for(client: Client, session: InteractiveSession) -> str:
    """The code that the portal makes for ``NONCE``."""
    answer = client.get(reverse("launcher:by-address", args=[label_of(session)]), {"entry": ENTRY})
    return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]


def redeemed(session: InteractiveSession, code: str, *, nonce: str = NONCE, label: str = "") -> GrantIssued | None:
    """What the proxy gets for a code."""
    return grants.redeem_entry_code(label=label or label_of(session), code=code, nonce=nonce)


def code_of(session: InteractiveSession, user: User, *, web_session_key: str = "") -> str:
    """The same code without the portal's pages, for a browser in which ``user`` is signed in."""
    key = web_session_key or signed_in(user)
    return grants.create_entry_code(session=session, user=user, web_session_key=key, entry=ENTRY, address="")


def entered(session: InteractiveSession, user: User, *, web_session_key: str = "") -> str:
    """The cookie of somebody who has come in, from a browser in which they are signed in."""
    issued = redeemed(session, code_of(session, user, web_session_key=web_session_key))
    assert issued is not None
    return issued.cookie_value
