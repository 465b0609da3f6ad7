"""The asking of a poll round: how are the jobs, has a server started, why has a job ended. Writes nothing down.

One status command per account and batch: per operator where the site lets one account see all jobs, else per user.
All of it runs on the loop thread, for all sessions side by side. Whatever goes wrong about one session or one account,
and however long it takes, the others get their answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from launcher import services
from launcher.clusters import Cluster
from launcher.flows.ask import ask
from launcher.flows.ending import EndingFound, find_ending
from launcher.flows.start import Started, look_for_server
from launcher.models import InteractiveSession
from launcher.monitor import Decision, Watched, decide
from launcher.parts import scheduler_of
from launcher.schedulers.base import JobState, JobStatus, StatusReport, UnresolvableJob
from launcher.ssh.errors import HostKeyChanged, LoginRefused, TooBusy
from launcher.states import SessionState
from portal.clock import now
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

BATCH = 200
"""Job ids per status command; 200 ids of 40 characters stay far below the limit of a command line."""

ROUND_SECONDS = 120
"""After that long the round ends with what it has learned."""
FOLLOW_UP_SECONDS = 30
"""A look into one session's folder takes no longer."""
MOST_SPLITS = 16
"""In one round: finds two ids among a full batch. Where all ids are bad, the next rounds go on."""
SIDE_BY_SIDE = 8
"""Accounts that are asked at the same time."""


@dataclass(slots=True)
class Round:
    """What one round learned, by session id."""

    statuses: dict[str, JobStatus | None] = field(default_factory=dict)  # None: a valid answer left the job out
    decisions: dict[str, Decision] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    commands: int = 0  # that were sent to ask for the jobs
    splits: int = 0  # of batches that an unresolvable id spoiled
    unresolvable: set[str] = field(default_factory=set)  # ids of jobs
    put_off: set[str] = field(default_factory=set)  # not asked this time: the budget of commands was used up
    servers: dict[str, Started] = field(default_factory=dict)
    endings: dict[str, EndingFound] = field(default_factory=dict)
    rejected: HostKeyChanged | None = None
    refused: dict[str, str] = field(default_factory=dict)  # why it is more than no answer, as a code


async def ask_about(cluster: Cluster, sessions: list[InteractiveSession]) -> Round:
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
    """Ask for all of ``batch``; in halves, where one id makes the scheduler refuse the question."""
    result.commands += 1
    try:
        report = await _status(cluster, account, [session.job_id for session in batch])
    except TooBusy as error:
        log.warning("poll_put_off", cluster=cluster.id, account=account, detail=error.detail)
        result.put_off.update(session.id for session in batch)
        result.commands -= 1
        return
    except UnresolvableJob as error:
        log.warning("job_id_not_resolved", cluster=cluster.id, asked=len(batch), detail=error.detail)
        if len(batch) == 1:
            result.unresolvable.add(batch[0].job_id)
        elif result.splits < MOST_SPLITS:
            result.splits += 1
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                await _ask_batch(cluster, account, half, result)
        return
    except FootbridgeError as error:
        if isinstance(error, HostKeyChanged):
            result.rejected = error
            result.refused.update((session.id, error.code) for session in batch)
        elif isinstance(error, LoginRefused) and account != cluster.operator:
            result.refused.update((session.id, error.code) for session in batch)
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
    elif status is not None and status.state is JobState.RUNNING and _needs_server(session, status):
        try:
            async with asyncio.timeout(FOLLOW_UP_SECONDS):
                result.servers[session.id] = await look_for_server(cluster, session, status)
        except FootbridgeError as error:
            log.info("server_not_yet", session=session.id, error=error.code, detail=error.detail)
        except Exception:  # one session must not end the round of all
            log.exception("server_not_found", session=session.id)


def _needs_server(session: InteractiveSession, status: JobStatus) -> bool:
    """Whether nobody knows yet where the session's server listens, or that it answers."""
    if services.has_left_its_place(session, status):  # what its last run wrote may still be there
        return False
    if session.state == SessionState.READY:
        return not session.upstream_host  # the cluster moved the job
    return session.state != SessionState.STOPPING
