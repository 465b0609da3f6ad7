"""Personal tokens: keys that a person makes for their own programs to use the API. The only writer of tokens.

A token is 32 random bytes and shown once; the database keeps its SHA-256, which is enough for something that
nobody can guess. A token never does more than its owner may do at that moment.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import unicodedata
from typing import NamedTuple

from django.db import transaction
from django.db.models import Q, QuerySet

from portal import ids
from portal.accounts.models import PersonalToken, TokenScope, User
from portal.audit.events import TokenCreated, TokenRevoked, UserSignInRefused
from portal.audit.services import Entry, record, record_once
from portal.clock import now
from portal.errors import FootbridgeError

PREFIX = "fbp_"
"""Every token begins so: people, and programs that look for leaked keys, know it for what it is."""
MOST_DAYS = 366
MOST_TOKENS = 50
"""Tokens in force at a time, per person."""

_USE_NOTED_EVERY = dt.timedelta(minutes=1)


class TokenError(FootbridgeError):
    """A token that will not be made. ``code``: ``token.name``, ``token.scope``, ``token.days`` or
    ``token.too_many``.
    """

    code = "token.refused"


class NewToken(NamedTuple):
    """A token just made, and its text, which is shown once and kept nowhere."""

    token: PersonalToken
    text: str


def create_token(
    *, user: User, name: str, scope: str, days: int, actor: User | None = None, address: str = ""
) -> NewToken:
    """A token for ``user`` that ends after ``days``. ``actor``: who makes it; None for the command line.

    Raises TokenError.
    """
    name = name.strip()
    if not 1 <= len(name) <= 80 or any(unicodedata.category(c)[0] == "C" for c in name):
        raise TokenError(code="token.name")
    if scope not in TokenScope.values:
        raise TokenError(code="token.scope")
    if not 1 <= days <= MOST_DAYS:
        raise TokenError(code="token.days", params={"most": MOST_DAYS})
    text = PREFIX + ids.secret()
    moment = now()
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)  # two at once must not pass the limit together
        if user.tokens.filter(revoked_at=None, expires_at__gt=moment).count() >= MOST_TOKENS:
            raise TokenError(code="token.too_many", params={"most": MOST_TOKENS})
        token = PersonalToken(
            user=user,
            name=name,
            hint=text[:12],
            digest=_digest(text),
            scope=scope,
            expires_at=moment + dt.timedelta(days=days),
        )
        token.full_clean()
        token.save()
        record(
            TokenCreated(name=name, scope=scope, expires_at=token.expires_at.isoformat(timespec="seconds")),
            actor=actor.username if actor else user.username,
            address=address,
        )
    return NewToken(token, text)


def authenticate_token(text: str, *, address: str = "") -> PersonalToken | None:
    """The token whose text this is, with its user, if it may be used now.

    Whatever ``text`` is, one hash is computed and one row looked for by it, so that the time taken tells
    nothing of any token. Somebody using a token that was withdrawn or has run out is an audit event, once in
    ten minutes.
    """
    token = PersonalToken.objects.select_related("user").filter(digest=_digest(text)).first()
    if token is None:
        return None
    moment = now()
    causes = {
        "revoked": token.revoked_at is not None,
        "expired": token.expires_at <= moment,
        "disabled": not token.user.is_active,
    }
    wrong = next((cause for cause, applies in causes.items() if applies), "")
    if wrong:
        with transaction.atomic():
            refusal = UserSignInRefused(way="token", cause=wrong)
            record_once(refusal, actor=token.user.username, address=address)
        return None
    if token.last_used_at is None or token.last_used_at <= moment - _USE_NOTED_EVERY:
        unnoted = Q(last_used_at=None) | Q(last_used_at__lte=moment - _USE_NOTED_EVERY)
        PersonalToken.objects.filter(unnoted, pk=token.pk).update(last_used_at=moment)
    return token


def revoke_token(*, user: User, pk: int, address: str = "") -> bool:
    """Withdraw the token ``pk`` of ``user``. False when they have none such in force."""
    with transaction.atomic():
        token = PersonalToken.objects.select_for_update(no_key=True).filter(pk=pk, user=user, revoked_at=None).first()
        if token is None:
            return False
        token.revoked_at = now()
        token.save(update_fields=["revoked_at"])
        record(TokenRevoked(name=token.name), actor=user.username, address=address)
    return True


def revoke_all_tokens(*, user: User, actor: str, address: str = "") -> list[Entry]:
    """Withdraw every token of ``user`` in force. Returns the facts, one a token; the caller records them, last of all,
    in the same transaction.
    """
    in_force = user.tokens.filter(revoked_at=None, expires_at__gt=now()).order_by("pk")
    tokens = list(in_force.select_for_update(no_key=True))
    PersonalToken.objects.filter(pk__in=[token.pk for token in tokens]).update(revoked_at=now())
    return [Entry(TokenRevoked(name=token.name), actor, address) for token in tokens]


def tokens_of(user: User) -> QuerySet[PersonalToken]:
    """A person's tokens in force, newest first."""
    return user.tokens.filter(revoked_at=None, expires_at__gt=now()).order_by("-created_at", "-pk")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
