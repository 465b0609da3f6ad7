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
from portal.audit.services import record, record_once
from portal.clock import now


def record_folder_removed(session_id: str) -> None:
    """The session's folder is no longer on the cluster."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
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


_COMMON_CAUSES = frozenset(
    ("no_cookie", "unknown_cookie", "expired", "signed_out", "ended", "unknown_session", "wrong_host")
)
"""What happens to everybody who leaves a tab open, and to every address on the internet."""


def record_access_denied(*, session_id: str, username: str, door: str, cause: str, address: str) -> None:
    """Somebody tried a session that is not theirs, or not any more.

    The same person, session and cause is kept once in ten minutes, once an hour where nobody knows who it was, and once
    a day where it is nothing unusual. Strangers count as one, whatever their addresses, or a few of them with many
    addresses could fill the log.
    """
    every_seconds = 86_400 if cause in _COMMON_CAUSES else 600 if username else 3600
    key = f"denied:{sealing.digest(f'{session_id}|{username}|{cause}')}"
    with contextlib.suppress(RedisError):  # then the log itself is asked
        if not cache.add(key, 1, every_seconds):
            return
    try:
        with transaction.atomic():
            record_once(
                events.SessionAccessDenied(door=door, cause=cause),
                actor=username or "anonymous",
                address=address,
                session_id=session_id,
                every_seconds=every_seconds,
            )
    except Exception:
        with contextlib.suppress(RedisError):
            cache.delete(key)  # so that the next one is kept
        raise
