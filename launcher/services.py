"""Everything that happens to a session, each with its audit event in the same transaction. The only writer of sessions.

Views, tasks, consumers and the API call these; none of them talks to a cluster. A function that may be called twice for
the same fact (a repeated task, a late answer) does nothing the second time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from redis import RedisError

from launcher import dispatch, sealing
from launcher.catalog import App, LaunchChoices
from launcher.clusters import Cluster
from launcher.connection import Connection
from launcher.models import InteractiveSession
from launcher.monitor import Decision
from launcher.parts import clusters
from launcher.schedulers.base import JobState, JobStatus
from launcher.ssh.errors import HostKeyChanged
from launcher.states import LIVE_STATES, EndReason, SessionState, may_move
from portal import ids
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record, record_once
from portal.clock import now
from portal.errors import FootbridgeError

if TYPE_CHECKING:
    from django.db.models import QuerySet

CLAIM_SECONDS = 180
"""A submission takes at most this long; an older claim belongs to a worker that died."""

CANCEL_AGAIN_SECONDS = 120
"""A job that is still there so long after its cancel was accepted is cancelled again."""

ROWS_AT_ONCE = 200
"""Rows that one statement changes; older releases of SQLite take 999 values at most."""

GIVE_UP_AFTER = dt.timedelta(days=7)
"""When the cluster could not be asked for so long after somebody wanted the end, the session ends without its word."""

PORTAL_ITSELF = "portal"
"""The actor of what nobody asked for."""


class LaunchRefused(FootbridgeError):
    """A launch that cannot be granted.

    ``fields``: (field, code, params) for every wrong value. ``existing``: the session that stands in the way.
    """

    code = "launch.refused"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "",
        params: Mapping[str, object] | None = None,
        fields: tuple[tuple[str, str, Mapping[str, object]], ...] = (),
        existing: InteractiveSession | None = None,
    ) -> None:
        super().__init__(detail, code=code, params=params)
        self.fields = fields
        self.existing = existing


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to submit one session."""

    session: InteractiveSession
    mark: str
    is_retry: bool  # an earlier try may have left a job behind: look for it first


def refuse_above_limit(user: User) -> None:
    """Raises LaunchRefused with code ``launch.limit_reached`` and the newest session when no further one is allowed."""
    live = InteractiveSession.objects.filter(owner=user, state__in=LIVE_STATES).order_by("-created_at")
    allowed = user.sessions_allowed if user.sessions_allowed is not None else settings.CONF.sessions_per_user
    if live.count() >= allowed:
        raise LaunchRefused(code="launch.limit_reached", params={"allowed": allowed}, existing=live.first())


def limit_refusal(user: User) -> LaunchRefused | None:
    """The refusal that a launch would meet now because of the person's limit."""
    try:
        refuse_above_limit(user)
    except LaunchRefused as refused:
        return refused
    return None


def create_session(
    *, owner: User, app: App, cluster: Cluster, choices: LaunchChoices, address: str
) -> InteractiveSession:
    """A new session in state ``submitting``; a worker is told after the commit.

    Raises LaunchRefused as ``refuse_above_limit`` does. Two launches at once are put in order by a lock on the
    person's row.
    """
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=owner.pk)
        refuse_above_limit(locked)
        session = InteractiveSession(
            owner=locked,
            username=locked.username,
            cluster=cluster.id,
            app=app.id,
            title=choices.title,
            choices=choices.as_dict(),
            created_at=now(),
            secret_encrypted=sealing.seal(ids.secret()),
        )
        session.full_clean()
        session.save(force_insert=True)
        record(
            events.SessionLaunched(
                app=app.id,
                cluster=cluster.id,
                title=choices.title,
                cores=choices.cores,
                memory_mib=choices.memory_mib,
                walltime_seconds=choices.walltime_seconds,
                gpus=choices.gpus,
                queue=choices.queue,
            ),
            actor=locked.username,
            address=address,
            session_id=session.id,
        )
        dispatch.submit(session.id)
        dispatch.tell_browsers(session)
    return session


def claim_submission(session_id: str) -> Claim | None:
    """Take the session for submission, or ``None`` when it needs none or another worker has it (compare-and-set)."""
    moment = now()
    mark = ids.random_name(24)
    waiting = InteractiveSession.objects.filter(pk=session_id, state=SessionState.SUBMITTING, job_id="")
    free = waiting.filter(claimed_at__isnull=True) | waiting.filter(
        claimed_at__lt=moment - dt.timedelta(seconds=CLAIM_SECONDS)
    )
    with transaction.atomic():
        session = free.select_for_update().first()
        if session is None:
            return None
        attempts = session.submit_attempts
        session.claim, session.claimed_at, session.submit_attempts = mark, moment, min(attempts + 1, 30_000)
        session.save(update_fields=["claim", "claimed_at", "submit_attempts"])
    return Claim(session=session, mark=mark, is_retry=attempts > 0)


def release_claim(claim: Claim, *, unreachable: bool, nothing_sent: bool) -> None:
    """Give the submission back for another try.

    ``unreachable`` notes since when the cluster does not answer. ``nothing_sent``: this try left no job behind; if it
    was the first, the next one is as good as the first.
    """
    with transaction.atomic():
        session = _claimed(claim)
        if session is None:
            return
        session.claim, session.claimed_at = "", None
        if nothing_sent and not claim.is_retry:
            session.submit_attempts = 0
        if unreachable and session.unreachable_since is None:
            session.unreachable_since = now()
        session.save(update_fields=["claim", "claimed_at", "submit_attempts", "unreachable_since"])
        dispatch.tell_browsers(session)


def record_submitted(claim: Claim, *, job_id: str, folder: str, adopted: bool) -> bool:
    """Keep the job's id. ``adopted``: the job was found by its name, not just made.

    A job is a fact even where the claim ran out meanwhile, so the first one is kept. False: the session has another
    job or has ended, and this job must go.
    """
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().get(pk=claim.session.pk)
        if session.job_id or session.state == SessionState.ENDED:
            return session.job_id == job_id
        session.job_id, session.folder = job_id, folder
        session.submitted_at = now()
        session.claim, session.claimed_at, session.unreachable_since = "", None, None
        if session.stop_requested_at is not None:
            _move(session, SessionState.STOPPING)
            dispatch.cancel(session.id)
        else:
            _move(session, SessionState.QUEUED)
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
            _end(session, reason=reason, code=code, params=params, detail=detail)


def _claimed(claim: Claim) -> InteractiveSession | None:
    return InteractiveSession.objects.select_for_update().filter(pk=claim.session.pk, claim=claim.mark).first()


def record_answer(
    session_id: str, *, status: JobStatus | None, decision: Decision, cluster: Cluster
) -> InteractiveSession | None:
    """Keep what the scheduler said about a session that goes on. Returns the row as it is now."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().filter(pk=session_id).first()
        if session is None or session.state == SessionState.ENDED:
            return None
        before = _shown(session)
        session.polled_at, session.unreachable_since = now(), None
        session.missing_count = decision.missing_count
        has_left = status is not None and _has_left_its_place(session, status)
        if has_left:
            _forget_place(session)
        if status is not None:
            _copy_status(session, status)
        if decision.move_to is not None:
            _move(session, decision.move_to)
        has_started = status is not None and _has_started(session, status)
        if has_started:
            session.started_at = now()
        session.save()
        if has_started:
            record(
                events.SessionStarted(execution_host=session.execution_host),
                actor=session.username,
                session_id=session.id,
            )
        is_late = decision.start_timed_out and session.state == SessionState.STARTING and not has_left
        if is_late and session.stop_requested_at is None:
            _request_stop(
                session, actor=PORTAL_ITSELF, by_owner=False, reason=EndReason.FAILED, address="", code="start_timeout"
            )
        if _shown(session) != before:
            dispatch.tell_browsers(session)
    return session


def says_nothing_new(session: InteractiveSession, *, status: JobStatus | None, decision: Decision) -> bool:
    """Whether an answer tells what ``session``, as it was read, has already: then ``record_heard`` is enough.

    Fills in the memory that the job uses, which changes all the time and alone is no reason for a transaction.
    """
    if status is None or decision.move_to is not None or decision.start_timed_out or decision.has_ended:
        return False
    if session.unreachable_since is not None or session.missing_count != decision.missing_count:
        return False
    if _has_left_its_place(session, status) or _has_started(session, status):
        return False
    before = (*_shown(session), session.exit_status)
    _copy_status(session, status)
    return (*_shown(session), session.exit_status) == before


def record_heard(heard: Mapping[str, int | None]) -> None:
    """The scheduler had nothing new to say about these. Values: the memory used in MiB where that has changed."""
    moment = now()
    ids_heard = list(heard)
    with transaction.atomic():
        for start in range(0, len(ids_heard), ROWS_AT_ONCE):
            rows = InteractiveSession.objects.filter(pk__in=ids_heard[start : start + ROWS_AT_ONCE])
            rows.filter(state__in=LIVE_STATES).update(polled_at=moment)
        changed = [InteractiveSession(pk=pk, memory_used_mib=used) for pk, used in heard.items() if used is not None]
        live = InteractiveSession.objects.filter(state__in=LIVE_STATES)
        live.bulk_update(changed, ["memory_used_mib"], batch_size=ROWS_AT_ONCE)


def _has_left_its_place(session: InteractiveSession, status: JobStatus) -> bool:
    """Whether the job no longer runs where it did: the cluster put it back into the queue or moved it."""
    if session.started_at is None or session.state not in (SessionState.STARTING, SessionState.READY):
        return False
    host = status.execution_hosts[0][:255] if status.execution_hosts else ""
    moved = bool(host and session.execution_host and host != session.execution_host)
    return moved or status.state in (JobState.QUEUED, JobState.HELD)


def _forget_place(session: InteractiveSession) -> None:
    """Another person's server may listen there soon, and must not get the session's secret."""
    session.started_at = session.server_at = session.ready_at = None
    session.upstream_host, session.upstream_port = "", None
    dispatch.drop_access(session_id=session.id)


def _has_started(session: InteractiveSession, status: JobStatus) -> bool:
    has_place = status.state in (JobState.RUNNING, JobState.SUSPENDED, JobState.EXITING)
    is_ours = session.state in (SessionState.STARTING, SessionState.READY)
    return has_place and is_ours and session.started_at is None


def _copy_status(session: InteractiveSession, status: JobStatus) -> None:
    session.job_state = status.state
    session.job_comment = status.comment[:2000]
    session.execution_host = status.execution_hosts[0][:255] if status.execution_hosts else ""
    session.estimated_start_at = status.estimated_start_at
    if status.memory_used_mib is not None:
        session.memory_used_mib = min(status.memory_used_mib, 2**31 - 1)
    if status.started_at is not None and status.walltime_seconds is not None:
        session.walltime_ends_at = status.started_at + dt.timedelta(seconds=min(status.walltime_seconds, 10**8))
    if status.exit_status is not None:
        session.exit_status = max(-(2**31), min(status.exit_status, 2**31 - 1))


def _shown(session: InteractiveSession) -> tuple[object, ...]:
    """What a card shows: when it changes, open pages are told."""
    return (
        session.state,
        session.job_state,
        session.job_comment,
        session.execution_host,
        session.estimated_start_at,
        session.walltime_ends_at,
        session.unreachable_since,
        session.server_at,
    )


def record_unreachable(session_ids: list[str]) -> None:
    """The scheduler gave no usable answer about these: a flag with a time, never a state."""
    if not session_ids:
        return
    with transaction.atomic():
        rows = InteractiveSession.objects.select_for_update().filter(
            pk__in=session_ids, state__in=LIVE_STATES, unreachable_since__isnull=True
        )
        for session in rows.order_by("pk"):  # in one order, or two rounds at once could wait for each other
            session.unreachable_since = now()
            session.save(update_fields=["unreachable_since"])
            dispatch.tell_browsers(session)


def record_clusters_gone(known: Collection[str]) -> None:
    """Sessions on clusters that left the clusters file: nobody asks about them any more."""
    rows = InteractiveSession.objects.filter(state__in=LIVE_STATES, unreachable_since__isnull=True)
    record_unreachable(list(rows.exclude(cluster__in=known).values_list("pk", flat=True)))


def record_server(session_id: str, connection: Connection) -> None:
    """The job's server wrote where it listens."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().get(pk=session_id)
        has_no_place = session.state == SessionState.READY and not session.upstream_host
        if session.state != SessionState.STARTING and not has_no_place:
            return
        session.upstream_host, session.upstream_port = connection.host, connection.port
        session.upstream_flavor, session.upstream_server = connection.flavor, connection.server[:64]
        session.server_at = session.server_at or now()
        session.save()
        dispatch.tell_browsers(session)


def record_ready(session_id: str) -> None:
    """The server inside the job answered an HTTP request. Not only once, where the cluster moved the job."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().get(pk=session_id)
        is_back = session.state == SessionState.READY and session.ready_at is None
        if not is_back and not _move(session, SessionState.READY):
            return
        session.ready_at = now()
        session.save()
        seconds = round((session.ready_at - session.created_at).total_seconds(), 3)
        record(events.SessionReady(seconds_since_launch=seconds), actor=session.username, session_id=session.id)
        dispatch.drop_access(session_id=session.id)
        dispatch.tell_browsers(session)


def request_stop(*, session: InteractiveSession, actor: User, address: str) -> None:
    """Ask for the session's end. Asking again changes nothing."""
    by_owner = session.owner_id == actor.pk
    with transaction.atomic():
        locked = InteractiveSession.objects.select_for_update().get(pk=session.pk)
        if locked.state == SessionState.ENDED or locked.stop_requested_at is not None:
            return
        _request_stop(
            locked,
            actor=actor.username,
            by_owner=by_owner,
            reason=EndReason.STOPPED_BY_USER if by_owner else EndReason.STOPPED_BY_ADMIN,
            address=address,
        )
        if locked.cluster not in clusters():
            _end(locked, reason=EndReason(locked.stop_reason), code="ended.cluster_gone", params={})


def _request_stop(
    session: InteractiveSession, *, actor: str, by_owner: bool, reason: EndReason, address: str, code: str = ""
) -> None:
    session.stop_requested_at, session.stop_requested_by, session.stop_reason = now(), actor, reason
    session.end_code = code
    if session.job_id:
        _move(session, SessionState.STOPPING)
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
        session = InteractiveSession.objects.select_for_update().get(pk=session_id)
        if session.state == SessionState.ENDED:
            return
        is_first = session.cancelled_at is None
        session.cancelled_at = now()
        session.save(update_fields=["cancelled_at"])
        if is_first:
            record(events.SessionCancelled(job_id=session.job_id), actor=session.username, session_id=session.id)
        dispatch.poll_soon(session.cluster)


def give_up_stopping(session_id: str) -> None:
    """End a session whose end was wanted long ago, on a cluster that could not be asked about it ever since."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().filter(pk=session_id).first()
        if session is None or session.state == SessionState.ENDED:
            return
        wanted_since, silent_since = session.stop_requested_at, session.unreachable_since
        if wanted_since is None or silent_since is None or now() - max(wanted_since, silent_since) < GIVE_UP_AFTER:
            return
        _end(session, reason=EndReason(session.stop_reason), code="ended.given_up", params={})


def end_session(
    session_id: str,
    *,
    reason: EndReason,
    code: str,
    params: Mapping[str, object],
    detail: str = "",
    status: JobStatus | None = None,
    log_tail: str = "",
) -> None:
    """The job exists no more: keep why, and the end of its log."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().filter(pk=session_id).first()
        if session is None or session.state == SessionState.ENDED:
            return
        if status is not None:
            host = session.execution_host
            _copy_status(session, status)
            session.execution_host = session.execution_host or host
        _end(session, reason=reason, code=code, params=params, detail=detail, log_tail=log_tail)


def _end(
    session: InteractiveSession,
    *,
    reason: EndReason,
    code: str,
    params: Mapping[str, object],
    detail: str = "",
    log_tail: str = "",
) -> None:
    session.state, session.ended_at = SessionState.ENDED, now()
    session.end_reason, session.end_code, session.end_params = reason, code, dict(params)
    session.end_detail, session.log_tail = detail[:2000], log_tail.replace("\x00", "")
    session.secret_encrypted = b""
    session.claim, session.claimed_at, session.unreachable_since = "", None, None
    session.upstream_host, session.upstream_port = "", None
    session.save()
    session.grants.filter(revoked_at__isnull=True).update(revoked_at=session.ended_at)
    record(
        events.SessionEnded(reason=reason, code=code, exit_status=session.exit_status, job_id=session.job_id),
        actor=session.stop_requested_by or PORTAL_ITSELF,
        session_id=session.id,
    )
    dispatch.drop_access(session_id=session.id)
    dispatch.tell_browsers(session)


def _move(session: InteractiveSession, state: SessionState) -> bool:
    if not may_move(SessionState(session.state), state):
        return False
    session.state = state
    return True


def record_folder_removed(session_id: str) -> None:
    """The session's folder is no longer on the cluster."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update().get(pk=session_id)
        if session.folder_removed_at is not None:
            return
        session.folder_removed_at = now()
        session.save(update_fields=["folder_removed_at"])
        record(events.SessionFolderRemoved(), actor=PORTAL_ITSELF, session_id=session.id)


def record_host_key_rejected(cluster_id: str, error: HostKeyChanged) -> None:
    """A login host was not the one we know. Kept once an hour, however often we meet it."""
    with transaction.atomic():
        event = events.HostKeyRejected(cluster=cluster_id, login_host=str(error.params.get("login_host", "")))
        record_once(event, actor=PORTAL_ITSELF, every_seconds=3600)


def record_access_denied(*, session_id: str, username: str, door: str, cause: str, address: str) -> None:
    """Somebody tried a session that is not theirs. The same person and cause is kept once in ten minutes."""
    key = f"denied:{sealing.digest(f'{session_id}|{username or address}|{cause}')}"
    with contextlib.suppress(RedisError):  # without the cache every attempt is kept
        if not cache.add(key, 1, 600):
            return
    with transaction.atomic():
        record(
            events.SessionAccessDenied(door=door, cause=cause),
            actor=username or "anonymous",
            address=address,
            session_id=session_id,
        )


def sessions_waiting_for_submission(cluster_id: str, *, older_than_seconds: float) -> QuerySet[InteractiveSession]:
    """Sessions whose submission nobody works on: the message was lost, or the cluster did not answer."""
    moment = now()
    rows = InteractiveSession.objects.filter(
        cluster=cluster_id,
        state=SessionState.SUBMITTING,
        job_id="",
        created_at__lt=moment - dt.timedelta(seconds=older_than_seconds),
    )
    stale = moment - dt.timedelta(seconds=CLAIM_SECONDS)
    return rows.filter(claimed_at__isnull=True) | rows.filter(claimed_at__lt=stale)
