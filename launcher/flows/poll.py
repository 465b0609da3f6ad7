"""One poll round of one cluster: ask how the jobs are, look for servers that have started, find out why jobs ended.

One status command per account and batch: per operator where the site lets one account see all jobs, else per user.
All waiting happens on the loop thread, for all sessions side by side; the database is written afterwards, here.
Whatever goes wrong about one session or one account, and however long it takes, the others get their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import structlog
from django.core.cache import cache
from redis import RedisError

from launcher import dispatch, selectors, services
from launcher.clusters import Cluster
from launcher.figures import LastRound, keep_round
from launcher.flows.ask import ask
from launcher.flows.ending import EndingFound, find_ending
from launcher.flows.start import Started, look_for_server
from launcher.models import InteractiveSession
from launcher.monitor import Decision, Watched, decide
from launcher.parts import clusters, hands_loop, scheduler_of
from launcher.schedulers.base import JobState, JobStatus, StatusReport
from launcher.ssh.errors import HostKeyChanged, TooBusy
from launcher.states import LIVE_STATES, SessionState
from portal.clock import now
from portal.errors import FootbridgeError
from portal.ids import random_name

log = structlog.get_logger(__name__)

BATCH = 200
"""Job ids per status command; 200 ids of 40 characters stay far below the limit of a command line."""

ROUND_SECONDS = 120
"""After that long the round ends with what it has learned."""
LOCK_SECONDS = 20
"""The lock of a round is renewed while the round goes on."""
FOLLOW_UP_SECONDS = 30
"""A look into one session's folder takes no longer."""
RETRIES_IN_A_ROUND = 2
SIDE_BY_SIDE = 8
"""Accounts that are asked at the same time."""


@dataclass(slots=True)
class Round:
    """What one round learned, by session id."""

    statuses: dict[str, JobStatus | None] = field(default_factory=dict)  # None: a valid answer left the job out
    decisions: dict[str, Decision] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    commands: int = 0  # that were sent to ask for the jobs
    put_off: set[str] = field(default_factory=set)  # not asked this time: the budget of commands was used up
    servers: dict[str, Started] = field(default_factory=dict)
    endings: dict[str, EndingFound] = field(default_factory=dict)
    rejected: HostKeyChanged | None = None


def poll(cluster_id: str) -> None:
    """One round, unless another worker is at it."""
    lock, mark = f"poll:lock:{cluster_id}", random_name(16)
    if not cache.add(lock, mark, LOCK_SECONDS):
        return
    try:
        with _renewed(lock, mark):
            _poll(cluster_id)
    finally:
        if cache.get(lock) == mark:  # else it ran out, and another worker's round has it
            cache.delete(lock)


@contextlib.contextmanager
def _renewed(lock: str, mark: str) -> Iterator[None]:
    """Keep the lock while the round goes on and has it: that of a worker that died is free again soon."""
    is_over = threading.Event()

    def renew() -> None:
        ends_at = time.monotonic() + ROUND_SECONDS + 60
        while not is_over.wait(LOCK_SECONDS / 4) and time.monotonic() < ends_at:
            with contextlib.suppress(RedisError):  # the next try may reach it
                if cache.get(lock) != mark:  # it ran out, and may be another worker's by now
                    return
                cache.touch(lock, LOCK_SECONDS)

    renewer = threading.Thread(target=renew, name=lock, daemon=True)
    renewer.start()
    try:
        yield
    finally:
        is_over.set()
        renewer.join()


def _poll(cluster_id: str) -> None:
    cluster = clusters()[cluster_id]
    dispatch.poll_again_in(cluster_id, cluster.poll_slow_seconds)
    # in any order: those at the end of a round that is cut short shall not be the same every time
    live = list(InteractiveSession.objects.filter(cluster=cluster_id, state__in=LIVE_STATES).order_by("?"))
    _take_up_what_was_dropped(cluster, live)
    with_job = [session for session in live if session.job_id]
    began_at, result = now(), Round()
    if with_job:
        result = hands_loop().run(_ask(cluster, with_job), ROUND_SECONDS + 15)
        _apply(cluster, with_job, result)
    interval = _interval_seconds(cluster)
    dispatch.poll_again_in(cluster_id, interval)
    _keep_figures(cluster_id, began_at, len(with_job), result, interval)


def _keep_figures(cluster_id: str, began_at: dt.datetime, sessions: int, result: Round, interval: float) -> None:
    last = LastRound(
        began_at=began_at,
        seconds=(now() - began_at).total_seconds(),
        sessions=sessions,
        commands=result.commands,
        unanswered=len(result.unanswered),
        next_in_seconds=interval,
    )
    keep_round(cluster_id, last)


def _take_up_what_was_dropped(cluster: Cluster, live: list[InteractiveSession]) -> None:
    """Messages can be lost and workers can die: submit and cancel again what nobody works on."""
    wait_seconds = cluster.poll_fast_seconds * 3
    for session in _worth_a_try(selectors.waiting_for_submission(cluster.id, older_than_seconds=wait_seconds)):
        dispatch.submit(session.id)
    stopped_before = now() - dt.timedelta(seconds=wait_seconds)
    stopping = [session for session in live if (session.stop_requested_at or now()) < stopped_before]
    for session in _worth_a_try(session for session in stopping if services.needs_cancel(session)):
        dispatch.cancel(session.id)
    for session in stopping:
        services.give_up_stopping(session.id)


def _worth_a_try(sessions: Iterable[InteractiveSession]) -> list[InteractiveSession]:
    """All that were not tried yet, and of those that met a cluster which did not answer a few, whichever.

    Each try holds a worker's thread until its time is over: a cluster that hangs shall not take them all.
    """
    tried: list[InteractiveSession] = []
    untried: list[InteractiveSession] = []
    for session in sessions:
        (untried if session.unreachable_since is None else tried).append(session)
    random.shuffle(tried)
    return untried + tried[:RETRIES_IN_A_ROUND]


def _interval_seconds(cluster: Cluster) -> float:
    """Fast while something is about to change, slow while all is quiet."""
    states = set(
        InteractiveSession.objects.filter(cluster=cluster.id, state__in=LIVE_STATES).values_list("state", flat=True)
    )
    return cluster.poll_fast_seconds if states - {SessionState.READY} else cluster.poll_slow_seconds


async def _ask(cluster: Cluster, sessions: list[InteractiveSession]) -> Round:
    """What could be learned of the cluster in the time of one round."""
    result = Round()
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            await _ask_all(cluster, sessions, result)
    except TimeoutError:
        log.warning("poll_round_cut_short", cluster=cluster.id, sessions=len(sessions), known=len(result.decisions))
    result.unanswered += [
        session.id for session in sessions if session.id not in result.decisions and session.id not in result.put_off
    ]
    return result


async def _ask_all(cluster: Cluster, sessions: list[InteractiveSession], result: Round) -> None:
    gate = asyncio.Semaphore(SIDE_BY_SIDE)
    groups: dict[str, list[InteractiveSession]] = {}
    for session in sessions:
        groups.setdefault(cluster.operator or session.username, []).append(session)

    async def ask_group(account: str, group: list[InteractiveSession]) -> None:
        size = min(BATCH, scheduler_of(cluster.id).batch_size)
        for start in range(0, len(group), size):
            async with gate:
                await _ask_batch(cluster, account, group[start : start + size], result)

    async def follow_up(session: InteractiveSession) -> None:
        async with gate:
            await _follow_up(cluster, session, result)

    await asyncio.gather(*(ask_group(account, group) for account, group in groups.items()))
    await asyncio.gather(*(follow_up(session) for session in sessions if session.id in result.decisions))


async def _ask_batch(cluster: Cluster, account: str, batch: list[InteractiveSession], result: Round) -> None:
    result.commands += 1
    try:
        report = await _status(cluster, account, [session.job_id for session in batch])
    except TooBusy as error:
        log.warning("poll_put_off", cluster=cluster.id, account=account, detail=error.detail)
        result.put_off.update(session.id for session in batch)
        result.commands -= 1
        return
    except FootbridgeError as error:
        if isinstance(error, HostKeyChanged):
            result.rejected = error
        log.warning("scheduler_silent", cluster=cluster.id, account=account, error=error.code, detail=error.detail)
        return
    except Exception:  # an answer that trips the parser is no answer
        log.exception("scheduler_not_understood", cluster=cluster.id, account=account)
        return
    for session in batch:
        status = report.jobs.get(session.job_id)
        if status is not None and status.owner and status.owner != session.username:
            log.error("job_of_somebody_else", session=session.id, job=session.job_id)
            status = None
        result.statuses[session.id] = status
        result.decisions[session.id] = decide(watched(cluster, session), status, now())


def watched(cluster: Cluster, session: InteractiveSession) -> Watched:
    """What the decision about an answer needs to know of ``session``."""
    return Watched(
        state=SessionState(session.state),
        missing_count=session.missing_count,
        started_at=session.started_at,
        start_timeout_seconds=cluster.start_timeout_seconds,
    )


async def _status(cluster: Cluster, account: str, job_ids: list[str]) -> StatusReport:
    return await ask(
        cluster,
        account,
        lambda scheduler: scheduler.status_command(job_ids),
        lambda scheduler, result: scheduler.parse_status(result, job_ids),
    )


async def _follow_up(cluster: Cluster, session: InteractiveSession, result: Round) -> None:
    """Look into the session's folder where the answer asks for it: has a server started, why did the job end."""
    status, decision = result.statuses[session.id], result.decisions[session.id]
    if decision.has_ended:
        result.endings[session.id] = await find_ending(cluster, session, status)
    elif status is not None and status.state is JobState.RUNNING and _needs_server(session):
        try:
            async with asyncio.timeout(FOLLOW_UP_SECONDS):
                result.servers[session.id] = await look_for_server(cluster, session, status)
        except FootbridgeError as error:
            log.info("server_not_yet", session=session.id, error=error.code, detail=error.detail)
        except Exception:  # one session must not end the round of all
            log.exception("server_not_found", session=session.id)


def _needs_server(session: InteractiveSession) -> bool:
    """Whether nobody knows yet where the session's server listens, or that it answers."""
    if session.state == SessionState.READY:
        return not session.upstream_host  # the cluster moved the job
    return session.state != SessionState.STOPPING


def _apply(cluster: Cluster, sessions: Iterable[InteractiveSession], result: Round) -> None:
    if result.rejected is not None:
        services.record_host_key_rejected(cluster.id, result.rejected)
    services.record_unreachable(result.unanswered)
    heard: dict[str, int | None] = {}  # most sessions of most rounds: a statement for all, not a transaction each
    for session in sessions:
        if session.id not in result.decisions:
            continue
        try:
            memory_before = session.memory_used_mib
            if _has_no_news(session, result):
                changed = session.memory_used_mib != memory_before
                heard[session.id] = session.memory_used_mib if changed else None
            else:
                _apply_answer(cluster, session.id, result)
        except Exception:  # one session must not take the others' answers away
            log.exception("answer_not_kept", session=session.id)
    services.record_heard(heard)


def _has_no_news(session: InteractiveSession, result: Round) -> bool:
    if session.id in result.endings or session.id in result.servers:
        return False
    status, decision = result.statuses[session.id], result.decisions[session.id]
    return services.says_nothing_new(session, status=status, decision=decision)


def _apply_answer(cluster: Cluster, session_id: str, result: Round) -> None:
    status, ending = result.statuses[session_id], result.endings.get(session_id)
    if ending is not None:
        services.end_session(
            session_id,
            reason=ending.reason,
            code=ending.code,
            params=ending.params,
            detail=ending.detail,
            status=status,
            log_tail=ending.log_tail,
        )
        return
    decision, started = result.decisions[session_id], result.servers.get(session_id)
    answered = started is not None and started.answered
    if answered:
        decision = replace(decision, start_timed_out=False)
    session = services.record_answer(session_id, status=status, decision=decision, cluster=cluster)
    if started is None or session is None or (session.state == SessionState.READY and not answered):
        return
    services.record_server(session_id, started.connection)
    if answered:
        services.record_ready(session_id)
