"""Looks whether people work in their sessions: asks each Jupyter server, over the tunnel that the proxy would use.

A session in which work was seen cannot have been unused for its limit before that time has passed, so it is left alone
until shortly before its owner would have to be warned (``InteractiveSession.activity_check_at``). A look that fails
tells nothing, and nothing follows from it. This is no part of the poll round: a server that does not answer holds up
no answer of the scheduler.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Mapping

import structlog
from django.db.models import Q

from launcher import dispatch, selectors, services
from launcher.activity import LOOK_HEADER, MAX_BYTES, PATHS, Answer, NotUnderstood, unused_seconds
from launcher.clusters import Cluster
from launcher.connection import secret_headers
from launcher.flows.lock import held
from launcher.idle import limit_seconds, quiet_seconds, warning_seconds
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters, hands, hands_loop
from launcher.proxy.access_types import Target
from launcher.proxy.connection import Connection
from launcher.schedulers.base import JobState
from launcher.services import Look
from launcher.states import SessionState
from portal.clock import now
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

SIDE_BY_SIDE = 8
"""Sessions that are looked at at the same time."""
AT_ONCE = 48
"""After so many looks what they told is written down, so that it is still true then."""
LOOK_SECONDS = 10
"""One look takes no longer, the way to the server included. 48 of them, 8 at a time, take a minute at most."""
ROUND_SECONDS = 300
"""After that long a round leaves the rest to the next."""
LOCK_SECONDS = 20
"""The lock of a round is renewed while the round goes on."""
LEAST_SECONDS, MOST_SECONDS = 1.0, 15.0
"""Between two rounds of a cluster; for short limits, an eighth of the warning time."""
CLOCKS_DIFFER = dt.timedelta(seconds=5)
"""Between the clocks of two workers."""


def look_around(cluster_id: str) -> None:
    """One round over a cluster's sessions, unless another worker is at it."""
    lock = f"activity:lock:{cluster_id}"
    with held(lock, lock_seconds=LOCK_SECONDS, longest_seconds=ROUND_SECONDS + 120) as is_ours:
        if is_ours:
            _look_around(clusters()[cluster_id])


def _look_around(cluster: Cluster) -> None:
    limits = {app.id: limit for app in apps().values() if (limit := limit_seconds(app, cluster))}
    pauses = [warning_seconds(limit) / 8 for limit in limits.values()]
    dispatch.look_again_in(cluster.id, max(LEAST_SECONDS, min([MOST_SECONDS, *pauses])))
    ends_at = time.monotonic() + ROUND_SECONDS
    due = [session for app_id, limit in limits.items() for session in _due(cluster, app_id, limit)]
    due.sort(key=lambda session: session.activity_check_at or now())
    for start in range(0, len(due), AT_ONCE):
        if time.monotonic() > ends_at:
            log.warning("looks_cut_short", cluster=cluster.id, due=len(due), looked=start)
            break
        some = due[start : start + AT_ONCE]
        looks = hands_loop().run(_look_at_all(cluster, some), LOOK_SECONDS * (AT_ONCE / SIDE_BY_SIDE + 1))
        _write_down(some, looks, limits)


def _due(cluster: Cluster, app_id: str, limit: int) -> list[InteractiveSession]:
    """Sessions that it is time to look at. Those without a usable time get one first."""
    rows = InteractiveSession.objects.filter(
        cluster=cluster.id,
        app=app_id,
        state=SessionState.READY,
        ready_at__isnull=False,
        stop_requested_at__isnull=True,
        unreachable_since__isnull=True,  # a cluster that does not answer cannot be asked to stop anything either
    )
    latest = now() + dt.timedelta(seconds=quiet_seconds(limit)) + CLOCKS_DIFFER  # later: the rule was another one
    services.plan_looks(rows.filter(Q(activity_check_at__isnull=True) | Q(activity_check_at__gt=latest)), limit=limit)
    return list(rows.filter(activity_check_at__lte=now()))


def _write_down(sessions: list[InteractiveSession], looks: Mapping[str, Look], limits: Mapping[str, int]) -> None:
    for session in sessions:
        try:
            services.record_look(session, looks[session.pk], limit=limits[session.app])
        except Exception:  # one session must not take the others' looks away
            log.exception("look_not_kept", session=session.pk)


async def _look_at_all(cluster: Cluster, sessions: list[InteractiveSession]) -> dict[str, Look]:
    gate = asyncio.Semaphore(SIDE_BY_SIDE)
    looks: dict[str, Look] = {}

    async def look(session: InteractiveSession) -> None:
        async with gate:
            looks[session.pk] = await _look(cluster, session)

    await asyncio.gather(*(look(session) for session in sessions))
    return looks


async def _look(cluster: Cluster, session: InteractiveSession) -> Look:
    """One look; it never fails, but it may tell nothing."""
    looked_at = now()
    if session.job_state == JobState.SUSPENDED:  # nobody can use it, so nobody can be blamed for not doing it
        return Look(at=looked_at, unused_seconds=0.0)
    target = selectors.target_of(session)
    if target is None:
        return Look(at=looked_at, unused_seconds=None)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            answers = await ask_jupyter(target)
        return Look(at=looked_at, unused_seconds=unused_seconds(answers))
    except (FootbridgeError, OSError, TimeoutError) as error:
        log.info("look_told_nothing", session=session.pk, error=repr(error))
    except Exception:  # an answer that trips us is no answer
        log.exception("look_failed", session=session.pk)
    return Look(at=looked_at, unused_seconds=None)


class _Home:
    """Connections of looks are kept by nobody."""

    def forget(self, connection: Connection) -> None:
        """Nothing to do."""


async def ask_jupyter(target: Target) -> list[Answer]:
    """The answers to ``PATHS``, over one connection. Raises UpstreamError, SSHError, NotUnderstood."""
    transport, protocol = await hands().tunnel(
        target.cluster,
        target.username,
        target.host,
        target.port,
        lambda: Connection(_Home()),
        socket=target.socket,
        reason="activity",
    )
    try:
        if not isinstance(protocol, Connection):
            raise TypeError("the tunnel has another protocol than it was given")
        return [await _ask(protocol, target, path) for path in PATHS]
    finally:
        transport.abort()


async def _ask(connection: Connection, target: Target, path: str) -> Answer:
    headers = {"Host": "footbridge", LOOK_HEADER: "1", **secret_headers(target.flavor, target.secret)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    exchange = connection.start("GET", f"GET {target.base_url}{path} HTTP/1.1\r\n{head}\r\n".encode("ascii"))
    found = await exchange.head()
    body = b""
    while piece := await exchange.read():
        body += piece
        if len(body) > MAX_BYTES:
            raise NotUnderstood("the answer is too long")
    return Answer(found.status, found.get(b"date").decode("latin-1"), body)
