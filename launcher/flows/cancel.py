"""Cancels a session's job. The session itself ends when the scheduler says that the job has."""

from __future__ import annotations

import structlog

from launcher import services
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands, hands_loop, scheduler_of
from launcher.schedulers.base import CancelOutcome
from launcher.states import SessionState
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)


def cancel(session_id: str) -> None:
    """Ask the scheduler to end the job. When it does not answer, the poll round asks again."""
    session = InteractiveSession.objects.filter(pk=session_id, state=SessionState.STOPPING).exclude(job_id="").first()
    if session is None or session.cancelled_at is not None:
        return
    cluster, scheduler = clusters()[session.cluster], scheduler_of(session.cluster)
    try:
        result = hands_loop().run(
            hands().run(cluster, session.username, scheduler.cancel_command(session.job_id)),
            cluster.connect_timeout_seconds + cluster.command_timeout_seconds,
        )
        outcome = scheduler.parse_cancel(result)
    except FootbridgeError as error:
        log.warning("cancel_postponed", session=session_id, code=error.code, detail=error.detail)
        services.record_unreachable([session_id])
        return
    if outcome is not CancelOutcome.UNKNOWN:
        services.record_cancelled(session_id)
