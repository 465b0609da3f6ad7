"""Every question about sessions: whose they are, who may see or open them, what the proxy may reach.

``may_see`` and ``may_open`` decide for all doors: pages, API, live events, log and proxy ask here and nowhere else.
"""

from __future__ import annotations

import datetime as dt

import structlog
from django.db.models import QuerySet

from launcher import sealing
from launcher.models import AccessGrant, InteractiveSession
from launcher.parts import clusters
from launcher.proxy.access_types import Access, Target, Verdict
from launcher.states import LIVE_STATES, SessionState
from portal.accounts.models import User
from portal.clock import now

log = structlog.get_logger(__name__)

Sessions = QuerySet[InteractiveSession]

CLAIM_SECONDS = 180
"""A submission takes at most this long; an older claim belongs to a worker that died."""


def may_see(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may know of this session: its owner, auditors and administrators."""
    return user.is_active and (session.owner_id == user.pk or user.may_audit)


def may_open(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may use the notebook itself: only its owner."""
    return user.is_active and session.owner_id == user.pk


def may_stop(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may end this session: its owner and administrators."""
    return user.is_active and (session.owner_id == user.pk or user.is_administrator)


def sessions_of(user: User) -> Sessions:
    """All sessions of a person, newest first."""
    return InteractiveSession.objects.filter(owner=user).order_by("-created_at", "-id")


def live_sessions(user: User) -> Sessions:
    """A person's sessions that have not ended."""
    return sessions_of(user).filter(state__in=LIVE_STATES)


def history(user: User) -> Sessions:
    """A person's ended sessions, last ended first."""
    return sessions_of(user).filter(state=SessionState.ENDED).order_by("-ended_at", "-id")


def find(session_id: str) -> InteractiveSession | None:
    """The session with this id, whosever it is."""
    return InteractiveSession.objects.filter(pk=session_id).select_related("owner").first()


def visible_session(user: User, session_id: str) -> InteractiveSession | None:
    """The session, if ``user`` may see it."""
    session = find(session_id)
    return session if session is not None and may_see(user, session) else None


def session_at(label: str) -> InteractiveSession | None:
    """The session that is served at this host label."""
    return InteractiveSession.objects.filter(host_label=label).select_related("owner").first()


def open_target(*, label: str, cookie_value: str) -> Access:
    """What the bearer of a cookie may do at a session's own address. The proxy keeps the answer for a few seconds."""
    session = session_at(label)
    if session is None:
        return Access(verdict=Verdict.UNKNOWN)
    if not cookie_value:
        return Access(verdict=Verdict.SIGN_IN, session_id=session.pk)
    grant = AccessGrant.objects.filter(digest=sealing.digest(cookie_value)).select_related("user").first()
    if grant is None or grant.expires_at <= now():
        return Access(verdict=Verdict.SIGN_IN, session_id=session.pk)
    if grant.session_id != session.pk or not may_open(grant.user, session):
        return Access(
            verdict=Verdict.FORBIDDEN,
            session_id=session.pk,
            username=grant.user.username,
            user_id=grant.user_id,
        )
    target = None
    if session.state == SessionState.ENDED:
        verdict = Verdict.ENDED
    elif grant.revoked_at is not None:
        return Access(verdict=Verdict.SIGN_IN, session_id=session.pk)
    else:
        target = _target(session)
        verdict = Verdict.OPEN if target is not None else Verdict.NOT_READY
    return Access(
        verdict=verdict,
        session_id=session.pk,
        username=grant.user.username,
        user_id=grant.user_id,
        state=session.state,
        target=target,
        end_code=session.end_code,
        expires_at=grant.expires_at,
    )


def _target(session: InteractiveSession) -> Target | None:
    """Where the session's server listens; ``None`` while nobody knows, or nobody can get there."""
    cluster = clusters().get(session.cluster)
    if session.state != SessionState.READY or cluster is None:
        return None
    if not session.upstream_host or session.upstream_port is None:
        return None
    try:
        secret = sealing.unseal(session.secret_encrypted)
    except sealing.NoKeyFits:
        log.error("session_without_key", session=session.pk)
        return None
    return Target(
        cluster=cluster,
        username=session.username,
        host=session.upstream_host,
        port=session.upstream_port,
        base_url=session.base_url,
        flavor="identity" if session.upstream_flavor == "identity" else "token",
        secret=secret,
    )


def people() -> QuerySet[User]:
    """Everybody who has signed in, by name."""
    return User.objects.order_by("username")


def all_live_sessions() -> Sessions:
    """Everybody's sessions that have not ended, newest first."""
    return InteractiveSession.objects.filter(state__in=LIVE_STATES).order_by("-created_at", "-id")


def unclaimed(sessions: Sessions) -> Sessions:
    """Those that no worker submits: nobody claimed them, or whoever did has died."""
    stale = now() - dt.timedelta(seconds=CLAIM_SECONDS)
    return sessions.filter(claimed_at__isnull=True) | sessions.filter(claimed_at__lt=stale)


def waiting_for_submission(cluster_id: str, *, older_than_seconds: float) -> Sessions:
    """Sessions whose submission nobody works on: the message was lost, or the cluster did not answer."""
    rows = InteractiveSession.objects.filter(
        cluster=cluster_id,
        state=SessionState.SUBMITTING,
        job_id="",
        created_at__lt=now() - dt.timedelta(seconds=older_than_seconds),
    )
    return unclaimed(rows)
