"""The writing down of a poll round: many answers in a transaction, and no session takes the others' answers away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import structlog

from launcher import keyring, services
from launcher.clusters import Cluster
from launcher.flows.ending import EndingFound
from launcher.flows.poll_ask import Round
from launcher.flows.start import Started
from launcher.models import InteractiveSession
from launcher.schedulers.base import JobStatus
from launcher.services import Answer
from launcher.states import SessionState

log = structlog.get_logger(__name__)


def keep(cluster: Cluster, sessions: Iterable[InteractiveSession], result: Round) -> None:
    """Write down what a round learned about ``sessions``."""
    if result.rejected is not None:
        services.record_host_key_rejected(cluster.id, result.rejected)
    elif result.decisions:
        keyring.host_key_accepted(cluster.id)
    for code in {"", *result.refused.values()}:
        silent = [pk for pk in result.unanswered if result.refused.get(pk, "") == code]
        with _apart(f"{len(silent)} without an answer"):
            services.record_unreachable(silent, code=code)
    heard: dict[str, int | None] = {}  # most sessions of most rounds: a statement for all of them
    news: dict[str, Answer] = {}
    for session in sorted(sessions, key=lambda session: session.username):  # a person's news in one trip
        if session.id not in result.decisions:
            continue
        with _apart(session.id):
            memory_before = session.memory_used_mib
            if (ending := result.endings.get(session.id)) is not None:
                _end(session.id, ending, result.statuses[session.id])
            elif _has_no_news(session, result):
                changed = session.memory_used_mib != memory_before
                heard[session.id] = session.memory_used_mib if changed else None
            else:
                news[session.id] = _answer(session.id, result)
    with _apart(f"{len(heard)} without news"):
        services.record_heard(heard)
    ids = list(news)
    for start in range(0, len(ids), services.ROWS_AT_ONCE):
        rows = _kept({session_id: news[session_id] for session_id in ids[start : start + services.ROWS_AT_ONCE]})
        for session_id, started in result.servers.items():
            if session_id in rows:
                with _apart(session_id):
                    _record_server(rows[session_id], started)


@contextlib.contextmanager
def _apart(session_id: str) -> Iterator[None]:
    """One session must not take the others' answers away."""
    try:
        yield
    except Exception:
        log.exception("answer_not_kept", session=session_id)


def _has_no_news(session: InteractiveSession, result: Round) -> bool:
    if session.id in result.servers:
        return False
    status, decision = result.statuses[session.id], result.decisions[session.id]
    return services.says_nothing_new(session, status=status, decision=decision)


def _end(session_id: str, ending: EndingFound, status: JobStatus | None) -> None:
    services.end_session(
        session_id,
        reason=ending.reason,
        code=ending.code,
        params=ending.params,
        detail=ending.detail,
        status=status,
        log_tail=ending.log_tail,
    )


def _answer(session_id: str, result: Round) -> Answer:
    decision, started = result.decisions[session_id], result.servers.get(session_id)
    if started is not None and started.answered:
        decision = replace(decision, start_timed_out=False)
    return Answer(result.statuses[session_id], decision)


def _kept(answers: Mapping[str, Answer]) -> dict[str, InteractiveSession]:
    """Keep the answers together; if that fails, one by one. Returns the rows as they are now."""
    try:
        return services.record_answers(answers)
    except Exception:
        log.exception("answers_not_kept_together", sessions=len(answers))
    rows: dict[str, InteractiveSession] = {}
    for session_id, answer in answers.items():
        with _apart(session_id):
            rows |= services.record_answers({session_id: answer})
    return rows


def _record_server(session: InteractiveSession, started: Started) -> None:
    if session.state == SessionState.READY and not started.answered:
        return
    services.record_server(session.id, started.connection, trouble=started.trouble)
    if started.answered:
        services.record_ready(session.id)
