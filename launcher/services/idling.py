"""What follows from how long nobody has used a session: its end is announced, then it is stopped.

Most looks tell nothing new; they cost one statement. An announcement is a time on the row (``idle_stop_at``) and a
notice to the owner. Only a fresh look at that time or later stops the session.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from launcher import dispatch
from launcher.idle import Outcome, Step, decide, quiet_seconds, retry_seconds
from launcher.models import InteractiveSession, NoticeKind
from launcher.services.moves import PORTAL_ITSELF
from launcher.services.noticing import tell_owner
from launcher.services.stopping import ask_for_end
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now

ROWS_AT_ONCE = 200
"""Rows that one statement changes; older releases of SQLite take 999 values at most."""
FRESH_SECONDS = 60
"""A look that is older than this stops nothing."""
KEPT_AGAIN_SECONDS = 60
"""Who asks twice in a row to keep a session asks once."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a session: for how long nobody had worked at ``at``; ``None``: the look told nothing."""

    at: dt.datetime
    unused_seconds: float | None


def plan_looks(sessions: Iterable[InteractiveSession], *, limit: int) -> None:
    """Say when to look at sessions of an app for which that is not known, or not as its rule of today has it."""
    rows = sorted(sessions, key=lambda session: session.pk)  # two writers lock rows in one order
    for session in rows:
        session.activity_check_at = _used_at(session) + dt.timedelta(seconds=quiet_seconds(limit))
    InteractiveSession.objects.bulk_update(rows, ["activity_check_at"], batch_size=ROWS_AT_ONCE)


def record_look(session: InteractiveSession, look: Look, *, limit: int) -> None:
    """Keep what a look told about ``session``, as it was read before the look; announce its end or end it.

    ``limit``: its rule in seconds.
    """
    outcome = _judge(session, look, limit)
    if outcome is not None and (outcome.step is not Step.WAIT or outcome.stop_at != session.idle_stop_at):
        _record_news(session.pk, look, limit)
        return
    check_at = now() + dt.timedelta(seconds=retry_seconds(limit)) if outcome is None else outcome.check_at
    # whoever has changed it meanwhile knows better
    same = InteractiveSession.objects.filter(pk=session.pk, state=SessionState.READY, active_at=session.active_at)
    same.update(active_at=_work_seen_at(session, look), activity_check_at=check_at)


def keep_running(*, session: InteractiveSession, actor: User, address: str) -> None:
    """Its owner wants it kept: that counts as use. Asking again at once changes nothing."""
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if locked.state != SessionState.READY or locked.stop_requested_at is not None:
            return
        moment = now()
        just_used = moment - _used_at(locked) < dt.timedelta(seconds=KEPT_AGAIN_SECONDS)
        if locked.idle_stop_at is None and just_used:
            return
        # The next look stays where it is: each one puts off the job's own rule, so they must not lie too far apart.
        locked.active_at, locked.idle_stop_at = moment, None
        locked.save(update_fields=["active_at", "idle_stop_at"])
        record(events.SessionKeptRunning(), actor=actor.username, address=address, session_id=locked.pk)
        dispatch.tell_browsers(locked)


def _record_news(session_id: str, look: Look, limit: int) -> None:
    """Judge once more, on the locked row, and do what follows."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).filter(pk=session_id).first()
        if session is None or session.state != SessionState.READY or session.stop_requested_at is not None:
            return
        outcome = _judge(session, look, limit)
        if outcome is None:
            return
        session.active_at = _work_seen_at(session, look)
        session.idle_stop_at, session.activity_check_at = outcome.stop_at, outcome.check_at
        if outcome.step is Step.STOP and now() - look.at < dt.timedelta(seconds=FRESH_SECONDS):
            session.end_params = {"limit_seconds": limit}
            ask_for_end(session, actor=PORTAL_ITSELF, by_owner=False, reason=EndReason.IDLE, address="")
            return
        session.save(update_fields=["active_at", "idle_stop_at", "activity_check_at"])
        if outcome.step is Step.WARN and outcome.stop_at is not None:
            tell_owner(
                session,
                kind=NoticeKind.IDLE,
                key=f"idle:{outcome.stop_at:%Y%m%dT%H%M%S}",
                params={"ends_at": outcome.stop_at.isoformat(), "since": _used_at(session).isoformat()},
            )
        dispatch.tell_browsers(session)


def _judge(session: InteractiveSession, look: Look, limit: int) -> Outcome | None:
    """What a look means for the row as it is; ``None`` where it told nothing."""
    active_at = _work_seen_at(session, look)
    if look.unused_seconds is None or active_at is None:
        return None
    return decide(limit, active_at=active_at, stop_at=session.idle_stop_at, looked_at=look.at)


def _work_seen_at(session: InteractiveSession, look: Look) -> dt.datetime | None:
    """The last work known after the look. Never earlier than what was known before, nor than the first answer."""
    if look.unused_seconds is None:
        return session.active_at
    seconds = min(look.unused_seconds, 10.0**9)
    return max(_used_at(session), look.at - dt.timedelta(seconds=seconds))


def _used_at(session: InteractiveSession) -> dt.datetime:
    return max(session.active_at or session.created_at, session.ready_at or session.created_at)
