"""Submits a session's job, once.

The session is claimed by compare-and-set, so one worker works on it. The job carries the session's marker as its name:
before any second try the scheduler is asked for that name, and a job that is found is adopted. An answer that was lost
therefore never leads to a second ``qsub``.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from launcher import services
from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.flows.ask import ask
from launcher.jobscript import ScriptContext, render, session_files
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters, hands, hands_loop
from launcher.schedulers.base import JobRequest, NotPermitted, SubmitRejected
from launcher.sealing import unseal
from launcher.ssh.errors import RemoteFileError
from launcher.states import EndReason
from portal.conf import conf
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

SUBMIT_SECONDS = 150
"""The whole submission, well inside the time a claim holds (``services.CLAIM_SECONDS``)."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job exists."""

    job_id: str
    folder: str
    adopted: bool


def submit(session_id: str) -> None:
    """Bring the session's job into being, or find out that there is none to be had."""
    claim = services.claim_submission(session_id)
    if claim is None:
        return
    session = claim.session
    try:
        outcome = hands_loop().run(_submit(session, is_retry=claim.is_retry), SUBMIT_SECONDS)
    except (SubmitRejected, NotPermitted) as error:
        services.record_not_submitted(
            claim, reason=EndReason.SUBMIT_REJECTED, code=error.code, params=error.params, detail=error.detail
        )
    except RemoteFileError as error:
        services.record_not_submitted(
            claim, reason=EndReason.SUBMIT_REJECTED, code=error.code, params=error.params, detail=error.detail
        )
    except FootbridgeError as error:
        log.warning("submit_postponed", session=session.id, code=error.code, detail=error.detail)
        services.release_claim(claim, unreachable=True)
    except Exception:
        services.release_claim(claim, unreachable=False)
        raise
    else:
        if outcome is None:
            _end_without_job(claim)
        else:
            services.record_submitted(claim, job_id=outcome.job_id, folder=outcome.folder, adopted=outcome.adopted)


def _end_without_job(claim: services.Claim) -> None:
    reason = EndReason(claim.session.stop_reason or EndReason.STOPPED_BY_USER)
    services.record_not_submitted(claim, reason=reason, code=f"ended.{reason}", params={}, detail="")


async def _submit(session: InteractiveSession, *, is_retry: bool) -> Submitted | None:
    """The job, new or found; ``None`` when none exists and a stop was asked for."""
    cluster = clusters()[session.cluster]
    username = session.username
    stop_wanted = session.stop_requested_at is not None
    if stop_wanted and not is_retry:
        return None
    async with hands().files(cluster, username) as files:
        folder = f"{await files.home()}/{cluster.sessions_folder}/{session.id}"
        if is_retry:
            found = await ask(
                cluster,
                username,
                lambda scheduler: scheduler.find_command(name=session.job_name, user=username),
                lambda scheduler, result: scheduler.parse_find(result),
            )
            if found:
                return Submitted(job_id=found[0], folder=folder, adopted=True)
            if stop_wanted:
                return None
        request, context = _job(session, cluster, folder)
        await files.make_folders(folder, mode=0o700)
        for file in session_files(context, unseal(session.secret_encrypted)):
            await files.replace(f"{folder}/{file.relative_path}", file.data, file.mode)
    job_id = await ask(
        cluster,
        username,
        lambda scheduler: scheduler.submit_command(request),
        lambda scheduler, result: scheduler.parse_submit(result),
    )
    return Submitted(job_id=job_id, folder=folder, adopted=False)


def _job(session: InteractiveSession, cluster: Cluster, folder: str) -> tuple[JobRequest, ScriptContext]:
    choices = LaunchChoices.from_dict(session.choices)
    app = apps()[session.app]
    context = ScriptContext(
        session_id=session.id,
        session_folder=folder,
        base_url=session.base_url,
        listen_address=cluster.listen_address,
        choices=choices,
        idle_stop_seconds=app.idle_stop_seconds,
        portal_name=conf().site_name,
    )
    request = JobRequest(
        name=session.job_name,
        script=render(app, context),
        cores=choices.cores,
        memory_mib=choices.memory_mib,
        walltime_seconds=choices.walltime_seconds,
        gpus=choices.gpus,
        queue=choices.queue,
        account=cluster.account,
        output_path=f"{folder}/job.out",
    )
    return request, context
