"""From somebody's wish for the end to the end itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from django.db import transaction

from launcher import dispatch
from launcher.models import InteractiveSession
from launcher.parts import clusters
from launcher.selectors import may_be_given_up
from launcher.services.moves import end, move
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now

CANCEL_AGAIN_SECONDS = 120
"""A job that is still there so long after its cancel was accepted is cancelled again."""

GONE_AFTER = dt.timedelta(minutes=15)
"""A session that is being stopped on a cluster without an entry ends after so long."""

GIVE_UP_AFTER = dt.timedelta(days=7)
"""When the cluster could not be asked for so long after somebody wanted the end, the session ends without its word."""


def request_stop(*, session: InteractiveSession, actor: User, address: str) -> None:
    """Ask for the session's end. Asking again changes nothing."""
    by_owner = session.owner_id == actor.pk
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if locked.state == SessionState.ENDED or locked.stop_requested_at is not None:
            return
        ask_for_end(
            locked,
            actor=actor.username,
            by_owner=by_owner,
            reason=EndReason.STOPPED_BY_USER if by_owner else EndReason.STOPPED_BY_ADMIN,
            address=address,
        )
        if locked.cluster not in clusters():
            end(locked, reason=EndReason(locked.stop_reason), code="ended.cluster_gone", params={})


def ask_for_end(
    session: InteractiveSession, *, actor: str, by_owner: bool, reason: EndReason, address: str, code: str = ""
) -> None:
    """Note on a locked row who wants the end and why, and set about it. Saves and records the event."""
    session.stop_requested_at, session.stop_requested_by, session.stop_reason = now(), actor, reason
    session.end_code = code
    if session.job_id:
        move(session, SessionState.STOPPING)
        dispatch.cancel(session.id)
    else:
        dispatch.submit(session.id)  # whoever holds or gets the claim finds out whether a job exists
    session.save()
    record(
        events.SessionStopRequested(by_owner=by_owner, reason=reason),
        actor=actor,
        address=address,
        session_id=session.id,
    )
    dispatch.drop_access(session_id=session.id)
    dispatch.tell_browsers(session)
    dispatch.poll_soon(session.cluster)


def needs_cancel(session: InteractiveSession) -> bool:
    """Whether somebody wants the end, and the scheduler has not accepted it, or long ago and the job is still there."""
    if session.state != SessionState.STOPPING or not session.job_id:
        return False
    return session.cancelled_at is None or now() - session.cancelled_at > dt.timedelta(seconds=CANCEL_AGAIN_SECONDS)


def record_cancelled(session_id: str) -> None:
    """The scheduler accepted the cancel. The session ends when the scheduler says that the job has."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
        if session.state == SessionState.ENDED:
            return
        is_first = session.cancelled_at is None
        session.cancelled_at = now()
        session.save(update_fields=["cancelled_at"])
        if is_first:
            record(events.SessionCancelled(job_id=session.job_id), actor=session.username, session_id=session.id)
        dispatch.poll_soon(session.cluster)


def give_up(*, session: InteractiveSession, actor: User, address: str) -> None:
    """End a session without the cluster's word, as an administrator decided. Does nothing where that is not due."""
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if not may_be_given_up(locked):
            return
        record(events.SessionGivenUp(job_id=locked.job_id), actor=actor.username, address=address, session_id=locked.id)
        end(locked, reason=EndReason(locked.stop_reason), code="ended.given_up_by_admin", params={})


def end_without_cluster(known: Collection[str]) -> None:
    """End the sessions that were being stopped when their cluster left the clusters file.

    Not at once: a process that was started before the others may know another clusters file for a moment.
    """
    before = now() - GONE_AFTER
    rows = InteractiveSession.objects.filter(
        ended_at__isnull=True, stop_requested_at__lt=before, unreachable_since__lt=before
    )
    for session_id in rows.exclude(cluster__in=known).values_list("pk", flat=True):
        with transaction.atomic():
            session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
            if session.state != SessionState.ENDED:
                end(session, reason=EndReason(session.stop_reason), code="ended.cluster_gone", params={})


def give_up_stopping(session_id: str) -> None:
    """End a session whose end was wanted long ago, on a cluster that could not be asked about it ever since."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).filter(pk=session_id).first()
        if session is None or session.state == SessionState.ENDED:
            return
        wanted_since, silent_since = session.stop_requested_at, session.unreachable_since
        if wanted_since is None or silent_since is None or now() - max(wanted_since, silent_since) < GIVE_UP_AFTER:
            return
        end(session, reason=EndReason(session.stop_reason), code="ended.given_up", params={})
