"""One poll round of one cluster: what nobody works on is taken up again, ``poll_ask`` asks, ``poll_keep`` writes down.

One worker at a time is at a cluster's round. When the next one is due, it says itself.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable

import structlog

from launcher import dispatch, oddjobs, selectors, services
from launcher.clusters import Cluster
from launcher.figures import LastRound, keep_round
from launcher.flows import extend as extend_flow
from launcher.flows.lock import held
from launcher.flows.poll_ask import ROUND_SECONDS, Round, ask_about
from launcher.flows.poll_keep import keep
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands_loop
from launcher.states import LIVE_STATES, SessionState
from portal.clock import now

log = structlog.get_logger(__name__)

LOCK_SECONDS = 20
"""The lock of a round is renewed while the round goes on."""
RETRIES_IN_A_ROUND = 2
LONGEST_PAUSE_SECONDS = 300
"""Between two questions to a cluster that has not answered for long."""


def poll(cluster_id: str) -> None:
    """One round, unless another worker is at it."""
    with held(f"poll:lock:{cluster_id}", lock_seconds=LOCK_SECONDS, longest_seconds=ROUND_SECONDS + 60) as is_ours:
        if is_ours:
            _poll(cluster_id)


def _poll(cluster_id: str) -> None:
    cluster = clusters().get(cluster_id)
    if cluster is None:  # it has left the clusters file since the message was sent
        return
    dispatch.poll_again_in(cluster_id, cluster.poll_slow_seconds)
    # in any order: those at the end of a round that is cut short shall not be the same every time
    live = list(InteractiveSession.objects.filter(cluster=cluster_id, state__in=LIVE_STATES).order_by("?"))
    _take_up_what_was_dropped(cluster, live)
    with_job = [session for session in live if session.job_id]
    began_at, result = now(), Round()
    if with_job:
        odd = oddjobs.aside(cluster_id, [session.job_id for session in with_job])
        asked_for = [session for session in with_job if session.job_id not in odd]
        result = hands_loop().run(ask_about(cluster, asked_for), ROUND_SECONDS + 15)
        result.unanswered += [session.id for session in with_job if session.job_id in odd]
        oddjobs.set_aside(cluster_id, result.unresolvable)
        keep(cluster, with_job, result)
    interval = _interval_seconds(cluster, is_silent=bool(result.unanswered) and not result.decisions)
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
    for session in _worth_a_try(session for session in live if extend_flow.needs_asking(session)):
        dispatch.extend(session.id)


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


def _interval_seconds(cluster: Cluster, *, is_silent: bool) -> float:
    """Fast while something is about to change, slow while all is quiet, and ever slower while nobody answers.

    Whoever does something meanwhile (``dispatch.poll_soon``) does not wait for it.
    """
    states = set(
        InteractiveSession.objects.filter(cluster=cluster.id, state__in=LIVE_STATES).values_list("state", flat=True)
    )
    usual = cluster.poll_fast_seconds if states - {SessionState.READY} else cluster.poll_slow_seconds
    since = selectors.silent_since(cluster.id) if is_silent else None
    if since is None:
        return usual
    # Half as long as it has been silent already; not all clusters in the same second.
    silent_seconds = (now() - since).total_seconds()
    return max(usual, min(silent_seconds / 2, LONGEST_PAUSE_SECONDS) * random.uniform(0.8, 1.0))  # noqa: S311  # a jitter is no secret
