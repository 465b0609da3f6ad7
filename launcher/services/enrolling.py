"""Enrolled keys and kept passwords: what became of them, each fact with its event. The only writer of keys."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from launcher import dispatch, keyring, sealing
from launcher.models import EnrolledKey
from launcher.services.moves import PORTAL_ITSELF
from launcher.ssh.authorized_keys import new_key
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now

GIVE_UP_AFTER = dt.timedelta(days=7)
"""So long the portal tries to take a revoked key's line out; then it destroys the private half instead."""


def key_to_enrol(*, user: User, cluster_id: str) -> EnrolledKey:
    """The account's key, made now where there is none. Two callers at once get the same one."""
    private, public, fingerprint = new_key(settings.CONF.site_name, user.username)
    try:
        with transaction.atomic():
            key, _ = EnrolledKey.objects.get_or_create(
                cluster=cluster_id,
                username=user.username,
                revoked_at=None,
                defaults={
                    "owner": user,
                    "public_key": public,
                    "fingerprint": fingerprint,
                    "private_key_encrypted": sealing.seal(private),
                    "created_at": now(),
                },
            )
    except IntegrityError:  # get_or_create looks again by itself, but not where the row has gone in between
        return EnrolledKey.objects.get(cluster=cluster_id, username=user.username, revoked_at=None)
    return key


def record_enrolled(key_id: int, *, address: str) -> None:
    """A login host has accepted the key."""
    with transaction.atomic():
        key = EnrolledKey.objects.select_for_update(no_key=True).get(pk=key_id)
        if key.enrolled_at is not None or key.revoked_at is not None:
            return
        key.enrolled_at = now()
        key.save(update_fields=["enrolled_at"])
        event = events.KeyEnrolled(cluster=key.cluster, fingerprint=key.fingerprint)
        record(event, actor=key.username, address=address)


def forget_key(key_id: int) -> None:
    """The key was never accepted: forget it, unless another sign-in had more luck with it."""
    EnrolledKey.objects.filter(pk=key_id, enrolled_at__isnull=True, revoked_at__isnull=True).delete()


def revoke_key(*, user: User, key_id: int, address: str) -> EnrolledKey | None:
    """Take a key back: nothing of the portal uses it from now on. ``None`` where it is not this person's."""
    with transaction.atomic():
        key = EnrolledKey.objects.select_for_update(no_key=True).filter(pk=key_id, owner=user).first()
        if key is None or key.revoked_at is not None:
            return key
        key.revoked_at = now()
        key.save(update_fields=["revoked_at"])
        event = events.KeyRevoked(cluster=key.cluster, fingerprint=key.fingerprint)
        record(event, actor=user.username, address=address)
        dispatch.drop_connections(key.cluster, key.username)
        dispatch.drop_access(user_id=user.pk)
    return key


def record_line_removed(key_id: int, *, removed: bool = True) -> None:
    """The revoked key is worth nothing any more, so its private half goes, too."""
    with transaction.atomic():
        key = EnrolledKey.objects.select_for_update(no_key=True).get(pk=key_id)
        if key.removed_at is not None:
            return
        key.removed_at, key.private_key_encrypted = now(), b""
        key.save(update_fields=["removed_at", "private_key_encrypted"])
        event = events.KeyLineRemoved(cluster=key.cluster, fingerprint=key.fingerprint, removed=removed)
        record(event, actor=PORTAL_ITSELF)


def give_up_line(key: EnrolledKey) -> bool:
    """Whether the line was tried for so long that the private half is destroyed instead; then it is."""
    if key.revoked_at is None or key.revoked_at > now() - GIVE_UP_AFTER:
        return False
    record_line_removed(key.pk, removed=False)
    return True


def drop_expired_passwords() -> None:
    """Portal sessions that ran out without a sign-out."""
    for cluster_id, username in keyring.drop_passwords(Q(expires_at__lte=now())):
        dispatch.drop_connections(cluster_id, username)
