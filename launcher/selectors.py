"""Every question about sessions: whose they are, who may see or open them, what the proxy may reach.

``may_see`` and ``may_open`` decide for all doors: pages, API, live events, log and proxy ask here and nowhere else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.db.models import Count, Min, Q, QuerySet

from launcher import endwarnings, sealing
from launcher.extension import Running
from launcher.models import AccessGrant, InteractiveSession, Notice, NoticeKind, SupportVisit
from launcher.notebookpath import page_of
from launcher.parts import clusters
from launcher.proxy.access_types import Access, Target, Verdict
from launcher.proxy.sites import path_of
from launcher.schedulers.base import JobState
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


def owns(user: User, session: InteractiveSession) -> bool:
    """Whether this session is the person's own: to extend, to keep, to continue."""
    return user.is_active and session.owner_id == user.pk


def may_open(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may use the notebook itself: its owner, and for a while an administrator who gave a reason."""
    return owns(user, session) or running_visit(user, session) is not None


def may_visit(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may open somebody else's session once they have given a reason.

    Never one that shares the portal's origin: its pages could do there whatever an administrator may.
    """
    is_allowed = settings.CONF.open_as_user and user.is_active and user.is_administrator
    return is_allowed and session.owner_id != user.pk and session.is_live and session.has_own_origin


def running_visit(user: User, session: InteractiveSession) -> SupportVisit | None:
    """The leave that ``user`` has at this moment to open somebody else's session."""
    if not (settings.CONF.open_as_user and user.is_active and user.is_administrator and session.has_own_origin):
        return None
    running = SupportVisit.objects.filter(session=session, visitor=user, ended_at=None, expires_at__gt=now())
    return running.order_by("-expires_at").first()


def may_end_visit(user: User, visit: SupportVisit) -> bool:
    """Whether ``user`` may end this visit: the session's owner, the visitor, and administrators."""
    return user.is_active and (user.pk in (visit.session.owner_id, visit.visitor_id) or user.is_administrator)


def may_stop(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may end this session: its owner and administrators."""
    return user.is_active and (session.owner_id == user.pk or user.is_administrator)


GIVE_UP_BY_HAND_AFTER = dt.timedelta(minutes=10)


def may_be_given_up(session: InteractiveSession) -> bool:
    """Whether somebody wanted the end a while ago, and the cluster could not be asked ever since."""
    wanted, silent = session.stop_requested_at, session.unreachable_since
    if session.state == SessionState.ENDED or wanted is None or silent is None:
        return False
    return now() - max(wanted, silent) > GIVE_UP_BY_HAND_AFTER


def may_give_up(user: User, session: InteractiveSession) -> bool:
    """Whether ``user`` may end this session now without the cluster's word: administrators."""
    return user.is_active and user.is_administrator and may_be_given_up(session)


def sessions_of(user: User) -> Sessions:
    """All sessions of a person, newest first."""
    return InteractiveSession.objects.filter(owner=user).order_by("-created_at", "-id")


def live_sessions(user: User) -> Sessions:
    """A person's sessions that have not ended."""
    return with_kin(sessions_of(user).filter(state__in=LIVE_STATES))


def history(user: User) -> Sessions:
    """A person's ended sessions, last ended first."""
    return with_kin(sessions_of(user).filter(state=SessionState.ENDED).order_by("-ended_at", "-id"))


def with_kin(sessions: Sessions) -> Sessions:
    """The same, read together with the sessions they continue and are continued by: for cards."""
    return sessions.select_related("continues").prefetch_related("continuations", "visits")


def find(session_id: str) -> InteractiveSession | None:
    """The session with this id, whosever it is."""
    return InteractiveSession.objects.filter(pk=session_id).select_related("owner").first()


def visible_session(user: User, session_id: str) -> InteractiveSession | None:
    """The session, if ``user`` may see it."""
    session = find(session_id)
    return session if session is not None and may_see(user, session) else None


def session_at(label: str) -> InteractiveSession | None:
    """The session that is served at this address: its host's label or, where it is below the portal's path, its id."""
    by_host = Q(base_url="/", host_label=label)
    by_path = Q(base_url=path_of(label), pk=label)
    return InteractiveSession.objects.filter(by_host | by_path).select_related("owner").first()


def address_of(session: InteractiveSession) -> str:
    """The web address at which browsers find the session, with a slash at the end."""
    portal = urlsplit(settings.CONF.portal_url)
    if not session.has_own_origin:
        return f"{settings.CONF.portal_url}{session.base_url}"
    port = f":{portal.port}" if portal.port else ""
    return f"{portal.scheme}://{session.host_label}.{settings.CONF.sessions_domain}{port}/"


def open_target(*, label: str, cookie_value: str) -> Access:
    """What the bearer of a cookie may do at a session's own address. The proxy keeps the answer for a few seconds."""
    session = session_at(label)
    if session is None:
        return Access(verdict=Verdict.UNKNOWN)
    if not cookie_value:
        return Access(verdict=Verdict.SIGN_IN, session_id=session.pk, cause="no_cookie")
    grant = AccessGrant.objects.filter(digest=sealing.digest(cookie_value)).select_related("user").first()
    if grant is None:
        return Access(verdict=Verdict.SIGN_IN, session_id=session.pk, cause="unknown_cookie")
    again = Access(verdict=Verdict.SIGN_IN, session_id=session.pk, username=grant.user.username, user_id=grant.user_id)
    if grant.expires_at <= now():
        return replace(again, cause="expired")
    if grant.visit_id is not None and grant.revoked_at is not None:
        return replace(again, cause="visit_over")  # which is no offence
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
        return replace(again, cause="signed_out")
    else:
        target = target_of(session)
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


def target_of(session: InteractiveSession) -> Target | None:
    """Where the session's server listens; ``None`` while nobody knows, or nobody can get there."""
    cluster = clusters().get(session.cluster)
    if session.state != SessionState.READY or cluster is None:
        return None
    if not session.upstream_host or (session.upstream_port is None and not session.upstream_socket):
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
        port=session.upstream_port or 0,
        socket=session.upstream_socket,
        base_url=session.base_url,
        flavor="identity" if session.upstream_flavor == "identity" else "token",
        secret=secret,
    )


def running_of(session: InteractiveSession) -> Running:
    """What decides whether ``session`` may be extended."""
    return Running(
        state=SessionState(session.state),
        job_state=session.job_state,
        queue=str(session.choices.get("queue") or ""),
        walltime_seconds=session.walltime_seconds,
        ends_at=session.walltime_ends_at,
        extensions=session.extensions,
        extending_to_seconds=session.extending_to_seconds,
        stop_requested=session.stop_requested_at is not None,
        cluster_silent=session.unreachable_since is not None,
    )


_CAN_BE_PAUSED = (SessionState.STARTING, SessionState.READY)
PAUSED = Q(state__in=_CAN_BE_PAUSED, job_state=JobState.SUSPENDED, stop_requested_at__isnull=True)
"""``is_paused`` for a query."""


def is_paused(session: InteractiveSession) -> bool:
    """Whether the cluster lets it stand still: nothing in it answers meanwhile."""
    is_running = session.state in _CAN_BE_PAUSED
    return is_running and session.job_state == JobState.SUSPENDED and session.stop_requested_at is None


def may_be_continued(session: InteractiveSession) -> bool:
    """Whether a new session may go on with this one's work: it has begun to run, and nobody wants its end."""
    is_running = session.state in (SessionState.STARTING, SessionState.READY) and session.started_at is not None
    return is_running and session.stop_requested_at is None


def continuation_of(session: InteractiveSession) -> InteractiveSession | None:
    """The session that goes on with this one's work, while it has not ended."""
    going_on = [entry for entry in session.continuations.all() if entry.is_live]
    return max(going_on, key=lambda entry: entry.created_at) if going_on else None


def opening_page(session: InteractiveSession) -> str:
    """The page at which ``session`` opens: the notebook that its owner was in; empty for the start page."""
    before = session.continues
    path = session.last_path or (before.last_path if before is not None else "")
    return page_of(path, base_url=session.base_url, server=session.upstream_server)


def people() -> QuerySet[User]:
    """Everybody who has signed in, by name."""
    return User.objects.order_by("username")


def everybodys_sessions() -> Sessions:
    """All there ever were, with what cards show of them: to be narrowed down."""
    return with_notices(with_kin(InteractiveSession.objects.all()))


def everybodys_live_sessions() -> Sessions:
    """Everybody's sessions that have not ended, newest first, without what only pages show."""
    return live(InteractiveSession.objects.all())


def live(sessions: Sessions) -> Sessions:
    """Those that have not ended, newest first."""
    return sessions.filter(
        state__in=LIVE_STATES,
        ended_at__isnull=True,  # as the indexes of live sessions have it
    ).order_by("-created_at", "-id")


def running_after(sessions: Sessions, moment: dt.datetime) -> Sessions:
    """Those whose job has run, and had not ended at ``moment``."""
    return sessions.filter(Q(ended_at__isnull=True) | Q(ended_at__gte=moment), started_at__isnull=False)


def running_before(sessions: Sessions, moment: dt.datetime) -> Sessions:
    """Those whose job began to run before ``moment``."""
    return sessions.filter(started_at__lt=moment)


def last_begun_first(sessions: Sessions) -> Sessions:
    """The same, in the order in which their jobs began to run, the last first."""
    return sessions.order_by("-started_at", "-id")


def everybodys_history() -> Sessions:
    """Everybody's ended sessions, last ended first."""
    return InteractiveSession.objects.filter(
        state=SessionState.ENDED,
        ended_at__isnull=False,  # as the index of ended sessions has it
    ).order_by("-ended_at", "-id")


def narrowed(sessions: Sessions, *, owner: str, cluster: str) -> Sessions:
    """Those of one account and on one cluster, where these are given."""
    if "\0" in owner + cluster:  # nothing is called so, and PostgreSQL refuses to look for it
        return sessions.none()
    if owner:
        sessions = sessions.filter(username=owner)
    return sessions.filter(cluster=cluster) if cluster else sessions


def live_counts() -> dict[str, dict[str, int]]:
    """How many sessions have not ended, by cluster and state."""
    rows = everybodys_live_sessions().values_list("cluster", "state")
    counts: dict[str, dict[str, int]] = {}
    for cluster_id, state, number in rows.annotate(number=Count("pk")).order_by():
        counts.setdefault(cluster_id, {})[state] = number
    return counts


def clusters_and_apps_of(sessions: Sessions) -> tuple[set[str], set[str]]:
    """Ids of the clusters and of the apps that these sessions have, whether or not they are still configured."""
    pairs = list(sessions.values_list("cluster", "app").distinct().order_by())
    return {cluster_id for cluster_id, _ in pairs}, {app_id for _, app_id in pairs}


def silent_since(cluster_id: str) -> dt.datetime | None:
    """Since when a cluster has not answered about some session; ``None`` when it answers about all."""
    live = InteractiveSession.objects.filter(cluster=cluster_id, state__in=LIVE_STATES)
    since: dt.datetime | None = live.aggregate(since=Min("unreachable_since"))["since"]
    return since


PEAKS = 5
FEWEST_PEAKS = 3


def memory_peaks(user: User, app_id: str) -> list[int]:
    """The memory in MiB that a person's last runs of an app used at most, newest first; empty with fewer than three."""
    used = history(user).filter(app=app_id, memory_used_mib__gt=0).values_list("memory_used_mib", flat=True)[:PEAKS]
    peaks = [mib for mib in used if mib is not None]
    return peaks if len(peaks) >= FEWEST_PEAKS else []


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


def with_notices(sessions: Sessions) -> Sessions:
    """The same sessions with what cards say of notices and of the owner's choices, in two queries for all of them."""
    return sessions.select_related("owner").prefetch_related("notices")


def recent_notices(user: User, *, seconds: float) -> QuerySet[Notice]:
    """What ``user`` was told of their own sessions lately, oldest first."""
    since = now() - dt.timedelta(seconds=seconds)
    rows = Notice.objects.filter(session__owner=user, created_at__gte=since)
    return rows.select_related("session").order_by("pk")


def ends_to_warn_of() -> list[str]:
    """Ids of sessions whose owner is to be warned of the end now.

    One query by the index of ends, and one more where ends are near: for what was told already.
    """
    moment = now()
    rows = InteractiveSession.objects.filter(
        state__in=(SessionState.STARTING, SessionState.READY),
        ended_at__isnull=True,
        walltime_ends_at__gt=moment,
        walltime_ends_at__lte=moment + dt.timedelta(minutes=endwarnings.MOST_MINUTES),
        stop_requested_at__isnull=True,
        owner__isnull=False,
    )
    near: dict[str, tuple[int, dt.datetime]] = {}
    for pk, begun_at, ends_at, chosen in rows.values_list(
        "pk", "started_at", "walltime_ends_at", "owner__warn_minutes"
    ).iterator(chunk_size=2000):
        assert ends_at is not None  # the filter asks for it
        minutes = endwarnings.due(chosen, begun_at=begun_at, ends_at=ends_at, at=moment)
        if minutes is not None:
            near[pk] = (minutes, ends_at)
    if not near:
        return []
    told = Notice.objects.filter(
        kind=NoticeKind.TIME, session__ended_at__isnull=True, session__walltime_ends_at__gt=moment
    )
    for pk, params in told.values_list("session_id", "params"):
        if pk in near and endwarnings.is_told(params, *near[pk]):
            del near[pk]
    return list(near)


def mail_due() -> QuerySet[Notice, int]:
    """Numbers of the notices that are to be sent by e-mail now, longest waiting first."""
    return Notice.objects.filter(mail_due_at__lte=now()).order_by("mail_due_at").values_list("pk", flat=True)
