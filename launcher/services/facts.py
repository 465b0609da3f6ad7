"""Facts about a session or a cluster that change no state."""

from __future__ import annotations

import contextlib

from django.core.cache import cache
from django.db import transaction
from redis import RedisError

from launcher import sealing
from launcher.models import InteractiveSession
from launcher.services.moves import PORTAL_ITSELF
from portal.audit import events
from portal.audit.services import record
from portal.clock import now


def record_folder_removed(session_id: str) -> None:
    """The session's folder is no longer on the cluster."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().get(pk=session_id)
        if session.folder_removed_at is not None:
            return
        session.folder_removed_at = now()
        session.save(update_fields=["folder_removed_at"])
        record(events.SessionFolderRemoved(), actor=PORTAL_ITSELF, session_id=session.id)


def record_last_path(session_id: str, path: str) -> None:
    """The notebook that its owner was in, as the session's server names it. The caller has checked the path."""
    InteractiveSession.objects.filter(pk=session_id).update(last_path=path)


def record_examined(*, actor: str, address: str) -> None:
    """An administrator has portal and clusters checked."""
    with transaction.atomic():
        record(events.PortalExamined(), actor=actor, address=address)


def record_access_denied(*, session_id: str, username: str, door: str, cause: str, address: str) -> None:
    """Somebody tried a session that is not theirs. The same person and cause is kept once in ten minutes."""
    key = f"denied:{sealing.digest(f'{session_id}|{username or address}|{cause}')}"
    with contextlib.suppress(RedisError):  # without the cache every attempt is kept
        if not cache.add(key, 1, 600):
            return
    with transaction.atomic():
        record(
            events.SessionAccessDenied(door=door, cause=cause),
            actor=username or "anonymous",
            address=address,
            session_id=session_id,
        )
