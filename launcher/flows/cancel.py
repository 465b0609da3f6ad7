"""Cancels a session's job. The session itself ends when the scheduler says that the job has."""

from __future__ import annotations

import structlog

from launcher import services
from launcher.flows.ask import ask
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands_loop
from launcher.schedulers.base import CancelOutcome
from launcher.ssh.budget import LONGEST_WAIT_SECONDS
from launcher.ssh.errors import HostKeyChanged, LoginRefused, TooBusy
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)


def cancel(session_id: str) -> None:
    """Ask the scheduler to end the job. When it does not answer, the poll round asks again."""
    session = InteractiveSession.objects.filter(pk=session_id).first()
    cluster = clusters().get(session.cluster) if session is not None else None
    if session is None or cluster is None or not services.needs_cancel(session):
        return
    try:
        outcome = hands_loop().run(
            ask(
                cluster,
                session.username,
                lambda scheduler: scheduler.cancel_command(session.job_id),
                lambda scheduler, result: scheduler.parse_cancel(result),
            ),
            cluster.connect_timeout_seconds * len(cluster.login_hosts)
            + LONGEST_WAIT_SECONDS
            + 2 * cluster.command_timeout_seconds,
        )
    except TooBusy as error:
        log.warning("cancel_postponed", session=session_id, error=error.code, detail=error.detail)
        return
    except FootbridgeError as error:
        log.warning("cancel_postponed", session=session_id, error=error.code, detail=error.detail)
        why = error.code if isinstance(error, LoginRefused | HostKeyChanged) else ""
        services.record_unreachable([session_id], code=why)
        return
    if outcome is not CancelOutcome.UNKNOWN:
        services.record_cancelled(session_id)
