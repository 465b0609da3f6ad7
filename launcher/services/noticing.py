"""Tells owners about their sessions without being asked. What was told is kept, so that it is told once.

A notice holds its kind and parameters, never a sentence: that is made for each reader. The table is the outbox of the
mail, too: ``mail_due_at`` says when to try next, and claiming a mail moves it on, so that a worker that dies leaves the
mail due again later. A mail is sent at least once: killed after the server took it and before that was noted, twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from django.conf import settings
from django.db import transaction

from launcher import dispatch, endwarnings
from launcher.models import InteractiveSession, Notice, NoticeKind
from launcher.states import SessionState
from portal.clock import now

PAUSES = tuple(dt.timedelta(minutes=minutes) for minutes in (1, 3, 10, 30, 60, 120, 240))
"""After each failed attempt. After one more attempt than there are pauses, about eight hours, a mail is given up."""


def tell_owner(
    session: InteractiveSession, *, kind: NoticeKind, key: str, params: Mapping[str, object] | None = None
) -> bool:
    """Tell the owner something, once for each ``key`` (at most 40 characters). ``session`` is a locked row.

    Open pages and the worker that sends mail hear of it after the commit. False: it was told before.
    """
    owner = session.owner
    by_mail = bool(settings.EMAIL_HOST and owner and owner.is_active and owner.mail_notices and owner.email)
    moment = now()
    notice, is_new = Notice.objects.get_or_create(
        session=session,
        key=key,
        defaults={
            "kind": kind,
            "params": dict(params or {}),
            "created_at": moment,
            "mail_wanted": by_mail,
            "mail_due_at": moment if by_mail else None,
        },
    )
    if not is_new:
        return False
    dispatch.tell_notice(session)
    dispatch.tell_browsers(session)
    if by_mail:
        dispatch.mail(notice.pk)
    return True


def warn_of_end(session_id: str) -> bool:
    """Warn the owner that the walltime will be over, if that is due. False: it is not, or was told."""
    with transaction.atomic():
        session = (
            InteractiveSession.objects.select_for_update(of=("self",), no_key=True)
            .select_related("owner")
            .get(pk=session_id)
        )
        ends_at, owner = session.walltime_ends_at, session.owner
        is_on = session.state in (SessionState.STARTING, SessionState.READY) and session.stop_requested_at is None
        if not is_on or ends_at is None or owner is None:
            return False
        minutes = endwarnings.due(owner.warn_minutes, begun_at=session.started_at, ends_at=ends_at, at=now())
        told = session.notices.filter(kind=NoticeKind.TIME).values_list("params", flat=True)
        if minutes is None or any(endwarnings.is_told(params, minutes, ends_at) for params in told):
            return False
        key = f"time:{minutes}:{ends_at.timestamp():.0f}"
        params = {"ends_at": ends_at.isoformat(), "minutes": minutes}
        return tell_owner(session, kind=NoticeKind.TIME, key=key, params=params)


def claim_mail(notice_id: int) -> Notice | None:
    """The notice, for the one worker that may now try to send it. None: it is not due, or somebody else has it."""
    with transaction.atomic():
        moment = now()
        notice = Notice.objects.select_for_update(no_key=True).filter(pk=notice_id, mail_due_at__lte=moment).first()
        if notice is None:
            return None
        notice.mail_attempts += 1
        is_last = notice.mail_attempts > len(PAUSES)
        notice.mail_due_at = None if is_last else moment + PAUSES[notice.mail_attempts - 1]
        notice.save(update_fields=["mail_attempts", "mail_due_at"])
    return notice


def record_mailed(notice_id: int) -> None:
    """The mail server took it."""
    Notice.objects.filter(pk=notice_id).update(mailed_at=now(), mail_due_at=None)


def give_up_mail(notice_id: int) -> None:
    """Sending it has no sense any more: nobody wants it, what it says is over, or its address does not exist."""
    Notice.objects.filter(pk=notice_id).update(mail_due_at=None)
