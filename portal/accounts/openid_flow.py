"""Signing in by OpenID Connect, from the button to who it is: the question that a browser carries to the provider and
back, and the tie between a person at the provider and an account on the cluster.

Questions live in the browser's web session, several for several tabs, ten minutes each, and count once. No token of the
provider is kept anywhere. The only writer of ties.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction
from django.shortcuts import resolve_url
from django.urls import reverse

from portal.accounts import proving
from portal.accounts.models import OpenIdTie, User
from portal.accounts.ways import openid_provider
from portal.accounts.ways.base import Proved
from portal.accounts.ways.openid import OpenId, identity_of
from portal.accounts.ways.openid_http import ProviderAway, ProviderRefused
from portal.audit import events
from portal.audit.services import record
from portal.clock import now

log = structlog.get_logger(__name__)

_KEY = "openid_questions"
QUESTION_SECONDS = 600
MOST_QUESTIONS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What a browser went to the provider with. ``confirms``: whose proof it is to be, or 0 for a sign-in."""

    nonce: str
    verifier: str
    target: str
    confirms: int
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Answer:
    """Who came back, and who that is at the provider."""

    proved: Proved
    subject: str


def redirect_uri() -> str:
    """Where the provider sends browsers back to: exactly what is registered there."""
    return f"{settings.CONF.portal_url}{reverse('accounts:openid-answer')}"


def begin(session: SessionBase, *, target: str, confirms: int) -> str:
    """Where to send the browser. Raises ProviderAway."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    address = openid_provider.authorize_address(
        settings.CONF,
        redirect_uri=redirect_uri(),
        state=state,
        nonce=nonce,
        verifier=verifier,
        anew=bool(confirms),
    )
    waiting: list[list[Any]] = session.get(_KEY) or []
    asked = [state, nonce, verifier, target, confirms, now().timestamp()]
    session[_KEY] = [*waiting[1 - MOST_QUESTIONS :], asked]
    return address


def sign_out_address() -> str:
    """Where to send a browser so that its person can sign out of the provider, too; empty where that is not wanted,
    or the provider has no such page, or does not answer."""
    conf = settings.CONF
    if "openid" not in conf.auth or not conf.openid_sign_out:
        return ""
    back = f"{conf.portal_url}{resolve_url(settings.LOGOUT_REDIRECT_URL)}"
    try:
        return openid_provider.sign_out_address(conf, back=back)
    except ProviderAway as error:
        log.warning("openid_failed", error=error.code, detail=error.detail)
        return ""


def take(session: SessionBase, state: str) -> Question | None:
    """The question that ``state`` answers, once. ``None``: another browser's, too old, or answered before."""
    waiting: list[list[Any]] = session.get(_KEY) or []
    found = [each for each in waiting if hmac.compare_digest(str(each[0]).encode(), state.encode())]
    if not found:
        return None
    session[_KEY] = [each for each in waiting if each is not found[0]]
    session.save()  # before anything is done with it
    question = Question(*found[0][1:])
    return question if 0 <= now().timestamp() - question.at <= QUESTION_SECONDS else None


def prove(question: Question, *, code: str, address: str) -> Answer:
    """Who came back with ``code``. Raises ProviderAway, ProviderRefused, SignInRefused."""
    conf = settings.CONF
    claims = openid_provider.redeem(
        conf, code=code, redirect_uri=redirect_uri(), nonce=question.nonce, verifier=question.verifier
    )
    at = claims.get("auth_time")
    is_fresh = isinstance(at, int | float) and at >= question.at - openid_provider.LEEWAY_SECONDS
    if question.confirms and not is_fresh:
        raise ProviderRefused("the provider did not ask anew who it is")
    who = identity_of(conf, claims)
    if who is None:
        raise proving.refused("", address, way=OpenId.name, cause="no_account", code="sign_in.not_allowed")
    _check_tie(who.username, claims["sub"], address)
    return Answer(Proved(OpenId.name, who, is_fresh), claims["sub"])


def _check_tie(username: str, subject: str, address: str) -> None:
    """Raises SignInRefused where this account is another's, or this person has another account."""
    issuer = settings.CONF.openid_issuer
    of_account = OpenIdTie.objects.filter(user__username=username).first()
    of_person = OpenIdTie.objects.filter(issuer=issuer, subject=subject).select_related("user").first()
    other_person = of_account is not None and (of_account.issuer, of_account.subject) != (issuer, subject)
    other_account = of_person is not None and of_person.user.username != username
    if other_person or other_account:
        raise proving.refused(username, address, way=OpenId.name, cause="openid_tie", code="sign_in.not_allowed")


def tie(*, user: User, subject: str, address: str) -> None:
    """Remember at the first sign-in that ``user`` is this person at the provider. Raises SignInRefused."""
    issuer = settings.CONF.openid_issuer
    try:
        with transaction.atomic():
            _, is_new = OpenIdTie.objects.get_or_create(user=user, issuer=issuer, subject=subject)
            if is_new:
                record(events.OpenIdTied(issuer=issuer), actor=user.username, address=address)
    except IntegrityError as error:  # two at once: the other was first
        raise proving.refused(
            user.username, address, way=OpenId.name, cause="openid_tie", code="sign_in.not_allowed"
        ) from error


def release(*, username: str, actor: str) -> bool:
    """Forget who ``username`` is at the provider: the next to sign in so is tied. Returns whether there was a tie."""
    with transaction.atomic():
        rows = list(OpenIdTie.objects.select_for_update(no_key=True).filter(user__username=username))
        for row in rows:
            record(events.OpenIdReleased(username=username, issuer=row.issuer), actor=actor)
            row.delete()
    return bool(rows)
