"""More time for a running session: write the wish down, ask the scheduler as the cluster's operator, keep its answer.

The person waits for the answer, which takes as long as one command. An answer that is lost leaves the wish in the row:
poll rounds see when the job has the time, and until then have a worker ask for the same total again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.core.cache import cache

from launcher import services
from launcher.flows.ask import ask
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands_loop
from launcher.schedulers.base import NotPermitted, SubmitRejected
from launcher.ssh.errors import HostKeyChanged, LoginRefused
from launcher.states import SessionState
from portal.accounts.models import User
from portal.errors import FootbridgeError
from portal.ids import random_name

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 15
"""So long a person waits; the wish goes on without them."""
TURN_SECONDS = ANSWER_SECONDS + 10
"""Whoever asks the scheduler has so long for it; a worker that died is no longer waited for."""


def extend(*, session: InteractiveSession, user: User, address: str, seen_walltime_seconds: int | None = None) -> None:
    """Ask for more time; what came of it is in the row. Raises ExtensionRefused by the site's rules.

    The answer may not have come: then ``extending_to_seconds`` is still there. See ``services.ask_extension``.
    """
    wanted = services.ask_extension(
        session=session, actor=user, address=address, seen_walltime_seconds=seen_walltime_seconds
    )
    if wanted is not None:
        _ask_scheduler(session.pk, wanted)


def needs_asking(session: InteractiveSession) -> bool:
    """Whether an extension is wanted whose answer nobody waits for."""
    if session.extending_to_seconds is None or session.stop_requested_at is not None:
        return False
    return session.state in (SessionState.STARTING, SessionState.READY) and cache.get(_turn_key(session.pk)) is None


def ask_again(session_id: str) -> None:
    """Ask the scheduler for what the row says, unless somebody does."""
    session = InteractiveSession.objects.filter(pk=session_id).first()
    if session is not None and session.extending_to_seconds is not None and needs_asking(session):
        _ask_scheduler(session_id, session.extending_to_seconds)


def _turn_key(session_id: str) -> str:
    return f"extend:turn:{session_id}"


@contextmanager
def _turn(session_id: str) -> Iterator[bool]:
    """Whether it is ours to ask; asking twice for the same total would do no harm, but help nobody."""
    mark = random_name(16)
    is_ours = cache.add(_turn_key(session_id), mark, TURN_SECONDS)
    try:
        yield is_ours
    finally:
        if is_ours and cache.get(_turn_key(session_id)) == mark:
            cache.delete(_turn_key(session_id))


def _ask_scheduler(session_id: str, wanted: int) -> None:
    session = InteractiveSession.objects.get(pk=session_id)
    cluster = clusters().get(session.cluster)
    if cluster is None or not cluster.operator:
        services.record_extension_refused(session_id, wanted, code="extend.not_offered", detail="")
        return
    with _turn(session_id) as is_ours:
        if not is_ours:
            return
        question = ask(
            cluster,
            cluster.operator,
            lambda scheduler: scheduler.extend_command(session.job_id, walltime_seconds=wanted),
            lambda scheduler, result: scheduler.parse_extend(result),
        )
        try:
            hands_loop().run(question, ANSWER_SECONDS)
        except (NotPermitted, SubmitRejected, LoginRefused) as error:
            log.warning("extension_refused", session=session_id, error=error.code, detail=error.detail)
            services.record_extension_refused(session_id, wanted, code=error.code, detail=error.detail)
        except FootbridgeError as error:
            if isinstance(error, HostKeyChanged):
                services.record_host_key_rejected(cluster.id, error)
            log.warning("extension_not_answered", session=session_id, error=error.code, detail=error.detail)
        else:
            services.record_extended(session_id, wanted)
