"""Signing out, and being shut out: ends sign-ins together with everything that was opened by them.

What is closed: Django's session (its row is gone, see ``portal.accounts.web_sessions``), the grants for notebooks, the
notebooks' open WebSockets and the open pages' live ones. All web processes are told at once.
"""

from __future__ import annotations

from django.db import transaction

from launcher import grants, services
from portal.accounts import tokens, web_sessions
from portal.accounts.models import User, WebSession
from portal.audit import events
from portal.audit.services import Entry, record, record_many


def sign_out(*, user: User, here: WebSession | None, address: str) -> None:
    """This browser is left."""
    with transaction.atomic():
        _close(user, [here] if here else [])
        facts = services.end_visits_of(user, actor=user, address=address)
        record_many([*facts, Entry(events.UserSignedOut(), user.username, address)])


def sign_out_one(*, user: User, pk: int, address: str) -> bool:
    """Another browser of ``user`` is signed out. False when it was not, or is not theirs."""
    with transaction.atomic():
        row = web_sessions.of(user).filter(pk=pk).first()
        if row is None:
            return False
        _close(user, [row])
        event = events.UserSignedOutElsewhere(everywhere=False, web_sessions=1, tokens=0)
        record(event, actor=user.username, address=address)
    return True


def sign_out_everywhere(*, user: User, with_tokens: bool, address: str) -> None:
    """Every browser is left, this one too; ``with_tokens``: and no program may act for ``user`` any more."""
    with transaction.atomic():
        rows = list(user.web_sessions.all())
        _close(user, rows)
        grants.revoke_all_of(user)
        facts = services.end_visits_of(user, actor=user, address=address)
        withdrawn = tokens.revoke_all_tokens(user=user, actor=user.username, address=address) if with_tokens else []
        event = events.UserSignedOutElsewhere(everywhere=True, web_sessions=len(rows), tokens=len(withdrawn))
        record_many([*facts, *withdrawn, Entry(event, user.username, address)])


def disable(*, user: User, actor: User, address: str) -> None:
    """Shut ``user`` out of the portal; their sessions on the cluster run on. Raises ValueError for oneself."""
    if user.pk == actor.pk:
        raise ValueError("nobody shuts themselves out")
    with transaction.atomic():
        if not User.objects.select_for_update(no_key=True).get(pk=user.pk).is_active:
            return
        User.objects.filter(pk=user.pk).update(is_active=False)
        _close(user, list(user.web_sessions.all()))
        grants.revoke_all_of(user)
        facts = services.end_visits_of(user, actor=actor, address=address)
        record_many([*facts, Entry(events.UserDisabled(username=user.username), actor.username, address)])


def enable(*, user: User, actor: User, address: str) -> None:
    """Let ``user`` sign in again."""
    with transaction.atomic():
        if User.objects.select_for_update(no_key=True).get(pk=user.pk).is_active:
            return
        User.objects.filter(pk=user.pk).update(is_active=True)
        record(events.UserEnabled(username=user.username), actor=actor.username, address=address)


def _close(user: User, rows: list[WebSession]) -> None:
    grants.revoke_web_sessions(user=user, digests=web_sessions.forget(rows))
