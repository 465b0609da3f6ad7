"""Passkeys as a second step: WebAuthn by Yubico's ``fido2``. Knows no database and keeps nothing.

The origin must be the portal's own, exactly: the library by itself would also take subdomains, and sessions, whose
pages are their users' content, may live there. What a browser sends is hostile until the library has verified it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from fido2.server import Fido2Server
from fido2.utils import websafe_decode
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from portal.errors import FootbridgeError

LONGEST_ANSWER = 20_000
"""Characters of what a browser sends; real ones have about one thousand."""

State = dict[str, Any]
"""What must be kept, in the web session, from the question to the answer: the challenge."""


class PasskeyRefused(FootbridgeError):
    """What the browser sent proves nothing. The text says what was wrong, for the log."""

    code = "factor.passkey"


@dataclass(frozen=True, slots=True)
class Question:
    """What the browser is asked, as JSON, and what to keep for judging its answer."""

    options: str
    state: State


@dataclass(frozen=True, slots=True)
class Used:
    """A passkey that has just proved itself: which of the known ones, and its own count of uses (0: it keeps none)."""

    index: int
    sign_count: int


def _server() -> Fido2Server:
    portal = settings.CONF.portal_url
    rp = PublicKeyCredentialRpEntity(id=urlsplit(portal).hostname or "", name=settings.CONF.site_name)
    return Fido2Server(rp, verify_origin=lambda origin: origin == portal)


def ask_to_make(*, user_id: int, username: str, known: Sequence[bytes]) -> Question:
    """Have a passkey made; not on a device that holds one of the ``known`` ones."""
    options, state = _server().register_begin(
        PublicKeyCredentialUserEntity(id=str(user_id).encode(), name=username, display_name=username),
        [AttestedCredentialData(data) for data in known],
        resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return Question(json.dumps(dict(options)["publicKey"]), state)


def made(state: State, answer: str) -> tuple[bytes, int]:
    """The public half of the passkey that was made, to be kept, and its count. Raises PasskeyRefused."""
    try:
        data = _server().register_complete(state, _parsed(answer))
        assert data.credential_data is not None  # the library has verified it
        return bytes(data.credential_data), data.counter
    except Exception as error:  # the library raises many kinds for hostile input, some of them its parsers' own
        raise PasskeyRefused(str(error)[:200]) from error


def ask_to_use(known: Sequence[bytes]) -> Question:
    """Have one of these passkeys used."""
    options, state = _server().authenticate_begin(
        [AttestedCredentialData(data) for data in known], user_verification=UserVerificationRequirement.PREFERRED
    )
    return Question(json.dumps(dict(options)["publicKey"]), state)


def used(state: State, answer: str, known: Sequence[bytes]) -> Used:
    """Which passkey signed the challenge. Raises PasskeyRefused."""
    try:
        response = _parsed(answer)
        credentials = [AttestedCredentialData(data) for data in known]
        found = _server().authenticate_complete(state, credentials, response)
        count = AuthenticationResponse.from_dict(response).response.authenticator_data.counter
        ids = [credential.credential_id for credential in credentials]
        return Used(ids.index(found.credential_id), count)
    except Exception as error:  # as above
        raise PasskeyRefused(str(error)[:200]) from error


def _parsed(answer: str) -> dict[str, Any]:
    if len(answer) > LONGEST_ANSWER:
        raise PasskeyRefused("too long")
    value = json.loads(answer)
    if not isinstance(value, dict) or not websafe_decode(str(value.get("rawId", ""))):
        raise PasskeyRefused("not a credential")
    return value
