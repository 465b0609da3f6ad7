"""What several kinds of facts about a session share: forward moves only, the end and its event."""

from __future__ import annotations

from collections.abc import Mapping

from launcher import dispatch
from launcher.models import InteractiveSession, NoticeKind
from launcher.services.noticing import tell_owner
from launcher.states import EndReason, SessionState, may_move
from portal.audit import events
from portal.audit.services import record
from portal.clock import now

PORTAL_ITSELF = "portal"
"""The actor of what nobody asked for."""


def move(session: InteractiveSession, state: SessionState) -> bool:
    """Move ``session`` forward; False where that would be back. The caller saves."""
    if not may_move(SessionState(session.state), state):
        return False
    session.state = state
    return True


def end(
    session: InteractiveSession,
    *,
    reason: EndReason,
    code: str,
    params: Mapping[str, object],
    detail: str = "",
    log_tail: str = "",
) -> None:
    """End ``session``, a locked row: keep why, wipe the secret, close every way in. Saves and records the event."""
    session.state, session.ended_at = SessionState.ENDED, now()
    session.end_reason, session.end_code, session.end_params = reason, code, dict(params)
    session.end_detail, session.log_tail = detail[:2000], log_tail.replace("\x00", "")
    session.secret_encrypted = b""
    session.claim, session.claimed_at = "", None
    session.unreachable_since, session.unreachable_code = None, ""
    session.upstream_host, session.upstream_port = "", None
    session.upstream_socket = session.upstream_trouble = ""
    session.save()
    session.grants.filter(revoked_at__isnull=True).update(revoked_at=session.ended_at)
    session.visits.filter(ended_at=None, expires_at__gt=session.ended_at).update(ended_at=session.ended_at)
    record(
        events.SessionEnded(reason=reason, code=code, exit_status=session.exit_status, job_id=session.job_id),
        actor=session.stop_requested_by or PORTAL_ITSELF,
        session_id=session.id,
    )
    if not _owner_wanted_it(session):
        tell_owner(session, kind=NoticeKind.ENDED, key="ended")
    dispatch.drop_access(session_id=session.id)
    dispatch.tell_browsers(session)


def _owner_wanted_it(session: InteractiveSession) -> bool:
    """Whether the owner stopped it, here or with Jupyter's own "Shut Down": that is no news to them."""
    return session.stop_requested_by == session.username or session.end_reason == EndReason.COMPLETED
