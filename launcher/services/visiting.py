"""Administrators who open somebody's session to help: for a reason, for a while, and never unseen by its owner."""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.db.models import QuerySet

from launcher import dispatch
from launcher.models import InteractiveSession, NoticeKind, SupportVisit
from launcher.selectors import may_visit
from launcher.services.noticing import tell_owner
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import Entry, record, record_many
from portal.clock import now
from portal.errors import FootbridgeError

VISIT_MINUTES = 30
SHORTEST_REASON, LONGEST_REASON = 10, 300


class VisitRefused(FootbridgeError):
    """Nobody may open the session so. ``visit.not_allowed`` or ``visit.reason``."""

    code = "visit.not_allowed"


def open_as_user(*, session: InteractiveSession, actor: User, reason: str, address: str) -> SupportVisit:
    """Let ``actor`` open the session for half an hour. Raises VisitRefused."""
    reason = " ".join(reason.split())
    if not SHORTEST_REASON <= len(reason) <= LONGEST_REASON or not reason.isprintable():
        raise VisitRefused(code="visit.reason", params={"least": SHORTEST_REASON, "most": LONGEST_REASON})
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if not may_visit(actor, locked):
            raise VisitRefused
        moment = now()
        visit = SupportVisit.objects.create(
            session=locked,
            visitor=actor,
            visitor_name=actor.username,
            reason=reason,
            began_at=moment,
            expires_at=moment + dt.timedelta(minutes=VISIT_MINUTES),
        )
        tell_owner(
            locked,
            kind=NoticeKind.VISIT,
            key=f"visit:{visit.pk}",
            params={"visitor": actor.username, "reason": reason},
        )
        record(
            events.SessionOpenedAsUser(owner=locked.username, reason=reason, minutes=VISIT_MINUTES),
            actor=actor.username,
            address=address,
            session_id=locked.id,
        )
    return visit


def end_visit(*, visit: SupportVisit, actor: User, address: str) -> None:
    """The visit is over now, and what was opened by it closes. Does nothing when it is over already."""
    with transaction.atomic():
        record_many(_end(SupportVisit.objects.filter(pk=visit.pk), actor=actor, address=address))


def end_visits_of(visitor: User, *, actor: User, address: str) -> list[Entry]:
    """``visitor`` leaves the portal: so do their visits end. Returns the facts; the caller records them, last of all,
    in the same transaction.
    """
    return _end(SupportVisit.objects.filter(visitor=visitor), actor=actor, address=address)


def _end(visits: QuerySet[SupportVisit], *, actor: User, address: str) -> list[Entry]:
    running = visits.filter(ended_at=None, expires_at__gt=now()).order_by("pk")
    locked = list(running.select_for_update(of=("self",), no_key=True).select_related("session"))
    for visit in locked:
        visit.ended_at = now()
        visit.save(update_fields=["ended_at"])
        visit.grants.filter(revoked_at=None).update(revoked_at=visit.ended_at)
        dispatch.drop_access(user_id=visit.visitor_id)
        dispatch.tell_browsers(visit.session)
    return [
        Entry(
            events.SessionVisitEnded(visitor=visit.visitor_name, by_owner=visit.session.owner_id == actor.pk),
            actor=actor.username,
            address=address,
            session_id=visit.session_id,
        )
        for visit in locked
    ]
