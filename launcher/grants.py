"""The way from the portal into a session's own address: a one-time code, then a cookie that stands for a grant.

The code lives in the shared cache for 30 seconds, is bound to the person, the session and the browser that began the
entry (by the digest of its nonce, see ``launcher.proxy.entrance``), and is taken out by the one request that uses it.
It counts only while the browser for which it was made is signed in. The cookie's value is random; the database keeps
its SHA-256 only.
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q

from launcher import dispatch, keyring, sealing, selectors
from launcher.models import AccessGrant, InteractiveSession
from portal import ids
from portal.accounts.models import User, WebSession
from portal.audit import events
from portal.audit.services import record_once
from portal.clock import now

CODE_SECONDS = 30
CONNECTED_EVERY_SECONDS = 60
"""A person who opens the same session again and again, from the same network, is in the audit log so often."""


@dataclass(frozen=True, slots=True)
class GrantIssued:
    """A grant's cookie."""

    cookie_value: str
    session_id: str
    expires_at: dt.datetime


def _key(code: str) -> str:
    return f"entry:{sealing.digest(code)}"


def create_entry_code(
    *, session: InteractiveSession, user: User, web_session_key: str, entry: str, address: str
) -> str:
    """A one-time code for ``session``'s own address and the browser whose nonce has the digest ``entry``.

    The caller has checked that ``user`` may open the session.
    """
    code = ids.secret()
    value = {
        "session": session.pk,
        "user": user.pk,
        "web_session": sealing.digest(web_session_key),
        "entry": entry,
    }
    cache.set(_key(code), value, CODE_SECONDS)
    is_owner = selectors.owns(user, session)
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if locked.connected_at is None and is_owner:
            locked.connected_at = now()
            locked.save(update_fields=["connected_at"])
        via = "browser" if is_owner else "opened_as_user"
        record_once(  # the session's row is locked: of two at the same moment, the second sees the first
            events.SessionConnected(via=via),
            actor=user.username,
            address=address,
            session_id=session.pk,
            every_seconds=CONNECTED_EVERY_SECONDS,
            of_each_network=True,
        )
    return code


def redeem_entry_code(*, label: str, code: str, nonce: str) -> GrantIssued | None:
    """The grant for a code that is fresh, unused and meant for the session at this address and for the browser with
    this nonce; else ``None``. The code is used up by the answer, whichever it is."""
    value = cache.get(_key(code))
    if value is None:
        return None
    # Read first: a database that is away leaves the code good for the page that tries again.
    session = selectors.session_at(label)
    user = User.objects.filter(pk=value["user"], is_active=True).first()
    if not cache.delete(_key(code)):  # only one of two racing requests deletes it
        return None
    if not nonce or not hmac.compare_digest(sealing.digest(nonce), value["entry"]):
        return None
    if session is None or user is None or session.pk != value["session"]:
        return None
    is_owner = selectors.owns(user, session)
    visit = None if is_owner else selectors.running_visit(user, session)
    if not is_owner and visit is None:
        return None
    cookie_value = ids.secret()
    moment = now()
    with transaction.atomic():
        # Locked: a sign-out at this moment either sees this grant, or is seen.
        if not WebSession.objects.select_for_update(no_key=True).filter(key_digest=value["web_session"]):
            return None
        grant = AccessGrant.objects.create(
            digest=sealing.digest(cookie_value),
            session=session,
            user=user,
            web_session_digest=value["web_session"],
            visit=visit,
            created_at=moment,
            expires_at=visit.expires_at if visit else moment + dt.timedelta(hours=settings.CONF.hours_signed_in),
        )
    return GrantIssued(cookie_value=cookie_value, session_id=session.pk, expires_at=grant.expires_at)


def delete_expired() -> None:
    """Grants that ran out a day ago are of no use to anybody."""
    AccessGrant.objects.filter(expires_at__lt=now() - dt.timedelta(days=1)).delete()


def revoke_web_sessions(*, user: User, digests: Collection[str]) -> None:
    """Sign-out: every notebook that was entered from these portal sessions is closed, and passwords that
    were kept for them go. ``digests``: of their keys."""
    with transaction.atomic():
        grants = AccessGrant.objects.filter(user=user, web_session_digest__in=list(digests), revoked_at__isnull=True)
        grants.update(revoked_at=now())
        dispatch.drop_access(user_id=user.pk)
        _forget_passwords(Q(web_session_digest__in=list(digests)))


def revoke_all_of(user: User) -> None:
    """Every notebook that ``user`` has open anywhere is closed, and passwords that were kept go."""
    with transaction.atomic():
        AccessGrant.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=now())
        dispatch.drop_access(user_id=user.pk)
        _forget_passwords(Q(username=user.username))


def _forget_passwords(rows: Q) -> None:
    for cluster_id, username in keyring.drop_passwords(rows):
        dispatch.drop_connections(cluster_id, username)
