"""A submission that happens once: the claim, by compare-and-set, and what became of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from launcher import dispatch
from launcher.models import InteractiveSession
from launcher.selectors import CLAIM_SECONDS, unclaimed
from launcher.services.moves import end, move
from launcher.states import EndReason, SessionState
from portal import ids
from portal.audit import events
from portal.audit.services import record
from portal.clock import now


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to submit one session."""

    session: InteractiveSession
    mark: str
    is_retry: bool  # an earlier try may have left a job behind: look for it first


def claim_submission(session_id: str) -> Claim | None:
    """Take the session for submission, or ``None`` when it needs none or another worker has it (compare-and-set)."""
    moment = now()
    mark = ids.random_name(24)
    waiting = InteractiveSession.objects.filter(pk=session_id, state=SessionState.SUBMITTING, job_id="")
    with transaction.atomic():
        session = unclaimed(waiting).select_for_update(no_key=True).first()
        if session is None:
            return None
        attempts = session.submit_attempts
        session.claim, session.claimed_at, session.submit_attempts = mark, moment, min(attempts + 1, 30_000)
        session.save(update_fields=["claim", "claimed_at", "submit_attempts"])
    return Claim(session=session, mark=mark, is_retry=attempts > 0)


def release_claim(
    claim: Claim, *, unreachable: bool, nothing_sent: bool, wait_seconds: float = 0, why_unreachable: str = ""
) -> None:
    """Give the submission back for another try.

    ``unreachable`` notes since when the cluster does not answer, ``why_unreachable`` a code for more than that.
    ``nothing_sent``: this try left no job behind; if it was the first, the next one is as good as the first.
    ``wait_seconds``: what this try sent may take effect so long.
    """
    with transaction.atomic():
        session = _claimed(claim)
        if session is None:
            return
        held_for = dt.timedelta(seconds=CLAIM_SECONDS - wait_seconds)
        session.claim, session.claimed_at = "", now() - held_for if wait_seconds else None
        if nothing_sent and not claim.is_retry:
            session.submit_attempts = 0
        if unreachable:
            session.unreachable_since = session.unreachable_since or now()
            session.unreachable_code = why_unreachable
        names = ["claim", "claimed_at", "submit_attempts", "unreachable_since", "unreachable_code"]
        session.save(update_fields=names)
        dispatch.tell_browsers(session)


def record_submitted(claim: Claim, *, job_id: str, folder: str, adopted: bool) -> bool:
    """Keep the job's id. ``adopted``: the job was found by its name, not just made.

    A job is a fact even where the claim ran out meanwhile, so the first one is kept. False: the session has another
    job or has ended, and this job must go.
    """
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=claim.session.pk)
        if session.job_id or session.state == SessionState.ENDED:
            return session.job_id == job_id
        session.job_id, session.folder = job_id, folder
        session.submitted_at = now()
        session.claim, session.claimed_at = "", None
        session.unreachable_since, session.unreachable_code = None, ""
        if session.stop_requested_at is not None:
            move(session, SessionState.STOPPING)
            dispatch.cancel(session.id)
        else:
            move(session, SessionState.QUEUED)
        session.save()
        event = events.SessionJobAdopted(job_id=job_id) if adopted else events.SessionSubmitted(job_id=job_id)
        record(event, actor=session.username, session_id=session.id)
        dispatch.tell_browsers(session)
        dispatch.poll_soon(session.cluster)
    return True


def record_not_submitted(
    claim: Claim, *, reason: EndReason, code: str, params: Mapping[str, object], detail: str, folder: str = ""
) -> None:
    """No job exists and none will: end the session. ``folder``: where files were, or may have been, put for it."""
    with transaction.atomic():
        session = _claimed(claim)
        if session is not None:
            session.folder = folder
            end(session, reason=reason, code=code, params=params, detail=detail)


def _claimed(claim: Claim) -> InteractiveSession | None:
    return (
        InteractiveSession.objects.select_for_update(no_key=True).filter(pk=claim.session.pk, claim=claim.mark).first()
    )
