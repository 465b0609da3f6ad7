"""More time for a running session: the wish, and what the scheduler made of it.

The wish is written before the scheduler is asked, as the total walltime that is wanted: whoever asks again asks for the
same and never for twice as much. It is over when the scheduler has refused, or when the job has that much time, whether
an answer said so or a later look at the job. Each is recorded once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db import transaction

from launcher import dispatch
from launcher.allowances import Entry
from launcher.entitlements import entitlement_of
from launcher.extension import Verdict, judge
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters
from launcher.schedulers.base import JobStatus
from launcher.selectors import running_of
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now
from portal.errors import FootbridgeError


class ExtensionRefused(FootbridgeError):
    """The session may not be extended now, by the site's rules; ``code`` says why."""

    code = "extend.refused"


def verdict_of(session: InteractiveSession, entries: Sequence[Entry] | None = None) -> Verdict:
    """Whether ``session`` may be extended now, by the site's rules and what its owner may have.

    ``entries``: what its owner is allowed, where that is known already.
    """
    cluster, app = clusters().get(session.cluster), apps().get(session.app)
    most = None
    is_extended_here = cluster is not None and cluster.extend_times and session.is_live
    if is_extended_here and cluster is not None and app is not None and session.owner is not None:
        most = entitlement_of(session.owner, app, cluster, entries).hours
    return judge(cluster, running_of(session), now(), most_hours=most)


def ask_extension(
    *, session: InteractiveSession, actor: User, address: str, seen_walltime_seconds: int | None = None
) -> int | None:
    """Write down that more time is wanted. Returns the total walltime to ask the scheduler for, in seconds.

    ``None``: nothing is to be asked, because the session has more time than whoever asks has seen
    (``seen_walltime_seconds``): they asked twice. A wish that is there already is kept. Raises ExtensionRefused.
    """
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session.pk)
        if seen_walltime_seconds is not None and (locked.walltime_seconds or 0) > seen_walltime_seconds:
            return None
        verdict = verdict_of(locked)
        if verdict.code == "extend.asked":
            return locked.extending_to_seconds
        if verdict.walltime_seconds is None:
            raise ExtensionRefused(code=verdict.code, params=verdict.params)
        locked.extending_to_seconds = verdict.walltime_seconds
        locked.extension_refused = locked.extension_refused_detail = ""
        locked.save(update_fields=["extending_to_seconds", "extension_refused", "extension_refused_detail"])
        event = events.SessionExtensionRequested(walltime_seconds=verdict.walltime_seconds)
        record(event, actor=actor.username, address=address, session_id=locked.id)
        dispatch.tell_browsers(locked)
        return verdict.walltime_seconds


def is_settled_by(session: InteractiveSession, status: JobStatus) -> bool:
    """Whether ``status`` shows that the extension that is waited for was granted."""
    wanted, granted = session.extending_to_seconds, status.walltime_seconds
    return wanted is not None and granted is not None and granted >= wanted


def settle(session: InteractiveSession, status: JobStatus) -> events.SessionExtended | None:
    """Note on a locked row that the extension was granted, where ``status`` shows it. The caller saves and records."""
    if not is_settled_by(session, status):
        return None
    return _grant(session, status.walltime_seconds or 0)


def _grant(session: InteractiveSession, walltime_seconds: int) -> events.SessionExtended:
    session.extensions += 1
    session.extending_to_seconds = None
    return events.SessionExtended(walltime_seconds=walltime_seconds)


def record_extended(session_id: str, walltime_seconds: int) -> None:
    """The scheduler granted ``walltime_seconds`` in all."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
        if session.extending_to_seconds != walltime_seconds:
            return  # a poll round saw it first
        event = _grant(session, walltime_seconds)
        if session.walltime_ends_at is not None and session.walltime_seconds is not None:
            session.walltime_ends_at += dt.timedelta(seconds=walltime_seconds - session.walltime_seconds)
        session.walltime_seconds = walltime_seconds
        session.save()
        record(event, actor=session.username, session_id=session.id)
        dispatch.tell_browsers(session)
        dispatch.poll_soon(session.cluster)


def record_extension_refused(session_id: str, walltime_seconds: int, *, code: str, detail: str) -> None:
    """The scheduler refused ``walltime_seconds`` in all: the wish is over. ``detail``: its own words."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
        if session.extending_to_seconds != walltime_seconds:
            return
        session.extending_to_seconds = None
        session.extension_refused, session.extension_refused_detail = code[:64], detail[:500]
        session.save(update_fields=["extending_to_seconds", "extension_refused", "extension_refused_detail"])
        event = events.SessionExtensionRefused(walltime_seconds=walltime_seconds, code=code)
        record(event, actor=session.username, session_id=session.id)
        dispatch.tell_browsers(session)
