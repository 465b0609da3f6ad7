"""The browsers in which people are signed in: one row each, beside Django's own session. The only writer of these rows.

Django's session carries the row's number. A session whose row is gone is void, wherever it still lies: that is how a
browser is signed out from another one. Closing what a browser has open is done in ``launcher.leaving``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import QuerySet

from portal.accounts.models import User, WebSession
from portal.clock import now

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

KEY = "web_session"
"""Where Django's session keeps the number of its row."""

_SEEN_EVERY = dt.timedelta(minutes=1)


def _digest(key: str) -> str:
    """As the grants keep it, so that both can be found by each other."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _expired_before() -> dt.datetime:
    return now() - dt.timedelta(hours=settings.CONF.hours_signed_in)


def begin(*, session: SessionBase, user: User, user_agent: str, address: str) -> WebSession:
    """Note that ``user`` is signed in with this session, whose key is final by now."""
    moment = now()
    row, _ = WebSession.objects.update_or_create(
        key_digest=_digest(session.session_key or ""),
        defaults={
            "user": user,
            "user_agent": _printable(user_agent)[:300],
            "address": address[:64],
            "created_at": moment,
            "last_seen_at": moment,
        },
    )
    session[KEY] = row.pk
    return row


def find(session: SessionBase, user: User) -> WebSession | None:
    """The row of this session, while it counts."""
    pk = session.get(KEY)
    if not isinstance(pk, int):
        return None
    return WebSession.objects.filter(pk=pk, user=user, created_at__gt=_expired_before()).first()


def seen(row: WebSession, *, address: str) -> None:
    """The browser has just asked for something; noted once a minute."""
    moment = now()
    if row.last_seen_at <= moment - _SEEN_EVERY:
        WebSession.objects.filter(pk=row.pk).update(last_seen_at=moment, address=address[:64])


def of(user: User) -> QuerySet[WebSession]:
    """Where ``user`` is signed in, last seen first."""
    return user.web_sessions.filter(created_at__gt=_expired_before()).order_by("-last_seen_at", "-pk")


def forget(rows: Collection[WebSession]) -> list[str]:
    """Sign these browsers out; the digests of their keys."""
    WebSession.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return [row.key_digest for row in rows]


def delete_expired() -> None:
    """Sign-ins that ran out are of no use to anybody."""
    WebSession.objects.filter(created_at__lte=_expired_before()).delete()


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
