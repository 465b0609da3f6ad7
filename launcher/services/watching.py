"""What the scheduler, and the server inside the job, said about sessions, up to the job's end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, Value
from django.db.models.functions import Coalesce

from launcher import dispatch
from launcher.connection import Connection
from launcher.models import InteractiveSession, NoticeKind
from launcher.monitor import Decision
from launcher.schedulers.base import JobState, JobStatus
from launcher.services.extending import is_settled_by, settle
from launcher.services.moves import PORTAL_ITSELF, end, move
from launcher.services.noticing import tell_owner
from launcher.services.stopping import ask_for_end
from launcher.states import LIVE_STATES, EndReason, SessionState
from portal.audit import events
from portal.audit.services import Entry, record, record_many
from portal.clock import now

ROWS_AT_ONCE = 200
"""Rows that one statement changes; older releases of SQLite take 999 values at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the scheduler said about a session that goes on, and what follows from it."""

    status: JobStatus | None  # None: a valid answer left the job out
    decision: Decision


def record_answers(answers: Mapping[str, Answer]) -> dict[str, InteractiveSession]:
    """Keep what the scheduler said about some sessions, by their ids: all of it or, when this raises, nothing.

    Returns the rows as they are now, without those that have ended. One transaction, and one trip for each kind of
    thing that is to be written: it holds the rows' locks, so a caller gives ``ROWS_AT_ONCE`` at most.
    """
    moment = now()
    with transaction.atomic():
        live = InteractiveSession.objects.filter(pk__in=list(answers), state__in=LIVE_STATES)
        sessions = list(
            live.select_for_update(no_key=True).order_by("pk")
        )  # in one order: two rounds must not wait for each other
        shown = [_shown(session) for session in sessions]
        live.update(polled_at=moment, unreachable_since=None, unreachable_code="")
        facts: list[Entry] = []
        for session in sessions:
            session.polled_at, session.unreachable_since, session.unreachable_code = moment, None, ""
            before = dict(vars(session))
            facts += _take_in(session, answers[session.pk])
            if changed := _changed(session, before):
                session.save(update_fields=changed)
        record_many(facts)
        for session in sessions:
            _end_late_start(session, answers[session.pk])
        told = zip(sessions, shown, strict=True)
        dispatch.tell_browsers(*(session for session, before_all in told if _shown(session) != before_all))
    return {session.pk: session for session in sessions}


def _take_in(session: InteractiveSession, answer: Answer) -> list[Entry]:
    """Change ``session``, a locked row, as the answer says. Returns the facts to record."""
    status, decision = answer.status, answer.decision
    session.missing_count = decision.missing_count
    if status is not None and has_left_its_place(session, status):
        _forget_place(session)
    if status is not None:
        copy_status(session, status)
    if decision.move_to is not None:
        move(session, decision.move_to)
    facts: list[events.Event] = []
    if status is not None and _has_started(session, status):
        session.started_at = session.polled_at
        facts.append(events.SessionStarted(execution_host=session.execution_host))
    if status is not None and (extended := settle(session, status)) is not None:
        facts.append(extended)
    return [Entry(fact, actor=session.username, session_id=session.pk) for fact in facts]


def _end_late_start(session: InteractiveSession, answer: Answer) -> None:
    """Its server has not come up for too long; not where this answer was news of another start."""
    is_late = answer.decision.start_timed_out and session.state == SessionState.STARTING
    is_this_start = session.started_at is not None and session.started_at != session.polled_at
    if is_late and is_this_start and session.stop_requested_at is None:
        ask_for_end(
            session, actor=PORTAL_ITSELF, by_owner=False, reason=EndReason.FAILED, address="", code="start_timeout"
        )


def says_nothing_new(session: InteractiveSession, *, status: JobStatus | None, decision: Decision) -> bool:
    """Whether an answer tells what ``session``, as it was read, has already: then ``record_heard`` is enough.

    Fills in the memory that the job uses, which changes all the time and alone is no reason for a transaction.
    """
    if status is None or decision.move_to is not None or decision.start_timed_out or decision.has_ended:
        return False
    if session.unreachable_since is not None or session.missing_count != decision.missing_count:
        return False
    if has_left_its_place(session, status) or _has_started(session, status) or is_settled_by(session, status):
        return False
    before = dict(vars(session))
    copy_status(session, status)
    return not _changed(session, before) - {"memory_used_mib"}


def _changed(session: InteractiveSession, before: Mapping[str, object]) -> set[str]:
    """Names of the fields that are no longer as they were in ``before``, a copy of ``vars(session)``."""
    return {name for name, value in vars(session).items() if value != before.get(name)}


def record_heard(heard: Mapping[str, int | None]) -> None:
    """The scheduler had nothing new to say about these. Values: the memory used in MiB where that has changed."""
    moment = now()
    ids_heard = sorted(heard)  # locked in one order: two writers must not wait for each other
    live = InteractiveSession.objects.filter(state__in=LIVE_STATES)
    for start in range(0, len(ids_heard), ROWS_AT_ONCE):
        chunk = ids_heard[start : start + ROWS_AT_ONCE]
        with transaction.atomic():
            found = list(
                live.filter(pk__in=chunk).select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True)
            )
            live.filter(pk__in=found).update(polled_at=moment)
            used = {pk: heard[pk] for pk in found if heard[pk] is not None}
            live.bulk_update(
                [InteractiveSession(pk=pk, memory_used_mib=mib) for pk, mib in used.items()], ["memory_used_mib"]
            )


def has_left_its_place(session: InteractiveSession, status: JobStatus) -> bool:
    """Whether the job no longer runs where it did, or runs there anew: the cluster put it back or moved it."""
    if session.started_at is None or session.state not in (SessionState.STARTING, SessionState.READY):
        return False
    host = status.execution_hosts[0][:255] if status.execution_hosts else ""
    moved = bool(host and session.execution_host and host != session.execution_host)
    return moved or _runs_anew(session, status) or status.state in (JobState.QUEUED, JobState.HELD)


def _runs_anew(session: InteractiveSession, status: JobStatus) -> bool:
    """Whether the job was begun again since the last answer, perhaps on the same computer."""
    return None not in (session.run_count, status.run_count) and session.run_count != status.run_count


def _forget_place(session: InteractiveSession) -> None:
    """Another person's server may listen there soon, and must not get the session's secret."""
    session.started_at = session.server_at = session.ready_at = None
    session.upstream_host, session.upstream_port = "", None
    session.upstream_socket = session.upstream_trouble = ""
    session.active_at = session.activity_check_at = session.idle_stop_at = None
    dispatch.drop_access(session_id=session.id)


def _has_started(session: InteractiveSession, status: JobStatus) -> bool:
    has_place = status.state in (JobState.RUNNING, JobState.SUSPENDED, JobState.EXITING)
    is_ours = session.state in (SessionState.STARTING, SessionState.READY)
    return has_place and is_ours and session.started_at is None


def copy_status(session: InteractiveSession, status: JobStatus) -> None:
    session.job_state = status.state
    session.job_comment = status.comment[:2000]
    session.execution_host = status.execution_hosts[0][:255] if status.execution_hosts else ""
    session.estimated_start_at = status.estimated_start_at
    if status.run_count is not None:
        session.run_count = max(0, min(status.run_count, 2**31 - 1))
    if status.memory_used_mib is not None:
        session.memory_used_mib = min(status.memory_used_mib, 2**31 - 1)
    if status.walltime_seconds is not None:
        session.walltime_seconds = min(status.walltime_seconds, 10**8)
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
        session.walltime_seconds,
        session.walltime_ends_at,
        session.unreachable_since,
        session.unreachable_code,
        session.server_at,
    )


def record_unreachable(session_ids: Sequence[str], *, code: str = "") -> None:
    """The scheduler gave no usable answer about these: a flag with a time, never a state.

    ``code``: why, where it is more than no answer: ``ssh.login_refused`` and its like.
    """
    for start in range(0, len(session_ids), ROWS_AT_ONCE):
        with transaction.atomic():
            rows = InteractiveSession.objects.filter(
                Q(unreachable_since__isnull=True) | ~Q(unreachable_code=code),
                pk__in=session_ids[start : start + ROWS_AT_ONCE],
                state__in=LIVE_STATES,
            )
            silent = list(rows.select_for_update(no_key=True).order_by("pk"))
            rows.update(unreachable_since=Coalesce("unreachable_since", Value(now())), unreachable_code=code)
            dispatch.tell_browsers(*silent)


def record_clusters_gone(known: Collection[str]) -> None:
    """Sessions on clusters that left the clusters file: nobody asks about them any more."""
    rows = InteractiveSession.objects.filter(ended_at__isnull=True, unreachable_since__isnull=True)
    record_unreachable(list(rows.exclude(cluster__in=known).values_list("pk", flat=True)))


def record_server(session_id: str, connection: Connection, *, trouble: str = "") -> None:
    """The job's server wrote where it listens. ``trouble``: the code of what keeps the portal from getting there."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
        has_no_place = session.state == SessionState.READY and not session.upstream_host
        if session.state != SessionState.STARTING and not has_no_place:
            return
        session.upstream_host, session.upstream_port = connection.host, connection.port or None
        session.upstream_socket, session.upstream_trouble = connection.socket, trouble
        session.upstream_flavor, session.upstream_server = connection.flavor, connection.server[:64]
        session.server_at = session.server_at or now()
        session.save()
        dispatch.tell_browsers(session)


def record_ready(session_id: str) -> None:
    """The server inside the job answered an HTTP request. Not only once, where the cluster moved the job."""
    with transaction.atomic():
        session = InteractiveSession.objects.select_for_update(no_key=True).get(pk=session_id)
        is_back = session.state == SessionState.READY and session.ready_at is None
        if not is_back and not move(session, SessionState.READY):
            return
        session.ready_at = now()
        session.upstream_trouble = ""
        session.save()
        seconds = round((session.ready_at - session.created_at).total_seconds(), 3)
        record(events.SessionReady(seconds_since_launch=seconds), actor=session.username, session_id=session.id)
        tell_owner(session, kind=NoticeKind.READY, key=f"ready:{session.ready_at.timestamp():.0f}")
        dispatch.drop_access(session_id=session.id)
        dispatch.tell_browsers(session)


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
        session = InteractiveSession.objects.select_for_update(no_key=True).filter(pk=session_id).first()
        if session is None or session.state == SessionState.ENDED:
            return
        if status is not None:
            host = session.execution_host
            copy_status(session, status)
            session.execution_host = session.execution_host or host
        end(session, reason=reason, code=code, params=params, detail=detail, log_tail=log_tail)
