"""Submits a session's job, once.

The session is claimed by compare-and-set, so one worker works on it. The job carries the session's marker as its name:
before any second try the scheduler is asked for that name, and a job that is found is adopted. An answer that was lost
therefore never leads to a second ``qsub``. Only while no job can exist does a refusal end the session.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from launcher import services
from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.flows.ask import ask
from launcher.idle import backstop_seconds, limit_seconds
from launcher.jobscript import JobScriptError, ScriptContext, render, session_files
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters, hands, hands_loop
from launcher.schedulers.base import JobRequest, NotPermitted, SubmitRejected
from launcher.sealing import NoKeyFits, unseal
from launcher.ssh.errors import HostKeyChanged, LoginRefused, RemoteFileError, SSHError, TimedOut, TooBusy
from launcher.states import EndReason
from portal.conf import conf
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

SUBMIT_SECONDS = 110
"""The whole submission."""

COMMAND_SECONDS = 60
"""The submit command ends itself after so long, at most, on the login host: with ``SUBMIT_SECONDS`` inside the time a
claim holds (``selectors.CLAIM_SECONDS``), so that nothing of one try can take effect after the next one has looked."""


class AppGone(FootbridgeError):
    """The session's app has left the catalog."""

    code = "ended.app_gone"


_REFUSALS = (SubmitRejected, NotPermitted, RemoteFileError, LoginRefused, JobScriptError, NoKeyFits, AppGone)
"""Trying again would meet the same."""


@dataclass(slots=True)
class Attempt:
    """One try to bring a session's job into being, and how far it got."""

    session: InteractiveSession
    is_retry: bool
    job_may_exist: bool
    may_still_land: bool = False  # the submit command may be at work, though nobody is connected to it any more
    folder: str = ""  # on the cluster
    job_id: str = ""  # empty at the end: no job exists and none is wanted
    adopted: bool = False


def submit(session_id: str) -> None:
    """Bring the session's job into being, or find out that there is none to be had."""
    claim = services.claim_submission(session_id)
    if claim is None:
        return
    if claim.session.cluster not in clusters():  # its entry may come back; until then a stop ends the session
        log.warning("submit_postponed", session=session_id, error="clusters.gone")
        services.release_claim(claim, unreachable=True, nothing_sent=not claim.is_retry)
        return
    attempt = Attempt(claim.session, claim.is_retry, job_may_exist=claim.is_retry)
    try:
        hands_loop().run(_submit_in_time(attempt), SUBMIT_SECONDS + 10)
    except FootbridgeError as error:
        if isinstance(error, _REFUSALS) and not attempt.job_may_exist:
            services.record_not_submitted(
                claim,
                reason=EndReason.SUBMIT_REJECTED,
                code=error.code,
                params=error.params,
                detail=error.detail,
                folder=attempt.folder,
            )
        else:
            if isinstance(error, HostKeyChanged):
                services.record_host_key_rejected(claim.session.cluster, error)
            log.warning("submit_postponed", session=session_id, error=error.code, detail=error.detail)
            why = error.code if isinstance(error, LoginRefused | HostKeyChanged) else ""
            _give_back(claim, attempt, unreachable=not isinstance(error, TooBusy), why_unreachable=why)
    except Exception:
        _give_back(claim, attempt, unreachable=False)
        raise
    else:
        _record(claim, attempt)


def _give_back(claim: services.Claim, attempt: Attempt, *, unreachable: bool, why_unreachable: str = "") -> None:
    wait_seconds = _command_seconds(clusters()[claim.session.cluster]) + 1 if attempt.may_still_land else 0
    services.release_claim(
        claim,
        unreachable=unreachable,
        nothing_sent=not attempt.job_may_exist,
        wait_seconds=wait_seconds,
        why_unreachable=why_unreachable,
    )


def _record(claim: services.Claim, attempt: Attempt) -> None:
    if not attempt.job_id:
        reason = EndReason(claim.session.stop_reason or EndReason.STOPPED_BY_USER)
        services.record_not_submitted(
            claim, reason=reason, code=f"ended.{reason}", params={}, detail="", folder=attempt.folder
        )
    elif not services.record_submitted(claim, job_id=attempt.job_id, folder=attempt.folder, adopted=attempt.adopted):
        _withdraw(attempt)


def _withdraw(attempt: Attempt) -> None:
    """Cancel a job that its session does not want: while this worker was held up, another took over."""
    session = attempt.session
    log.error("job_came_too_late", session=session.id, job=attempt.job_id)
    withdrawal = ask(
        clusters()[session.cluster],
        session.username,
        lambda scheduler: scheduler.cancel_command(attempt.job_id),
        lambda scheduler, result: scheduler.parse_cancel(result),
    )
    hands_loop().run(withdrawal, SUBMIT_SECONDS)


async def _submit_in_time(attempt: Attempt) -> None:
    try:
        async with asyncio.timeout(SUBMIT_SECONDS):
            await _submit(attempt)
    except TimeoutError:
        raise TimedOut(f"the job was not submitted within {SUBMIT_SECONDS} s") from None


async def _submit(attempt: Attempt) -> None:
    """Fills in the job, new or found."""
    session = attempt.session
    stop_wanted = session.stop_requested_at is not None
    if stop_wanted and not attempt.is_retry:
        return
    cluster, username = clusters()[session.cluster], session.username
    async with hands().files(cluster, username) as files:
        attempt.folder = f"{await files.home()}/{cluster.sessions_folder}/{session.id}"
        if attempt.is_retry:
            found = await ask(
                cluster,
                username,
                lambda scheduler: scheduler.find_command(name=session.job_name, user=username),
                lambda scheduler, result: scheduler.parse_find(result),
            )
            if found:
                attempt.job_id, attempt.adopted = found[0], True
                return
            attempt.job_may_exist = False
            if stop_wanted:
                return
        request, context = _job(session, cluster, attempt.folder)
        await files.make_folders(attempt.folder, mode=0o700)
        for file in session_files(context, unseal(session.secret_encrypted)):
            await files.replace(f"{attempt.folder}/{file.relative_path}", file.data, file.mode)
    attempt.job_may_exist = True
    try:
        attempt.job_id = await ask(
            cluster,
            username,
            lambda scheduler: replace(scheduler.submit_command(request), dies_after_seconds=_command_seconds(cluster)),
            lambda scheduler, result: scheduler.parse_submit(result),
        )
    except (SubmitRejected, NotPermitted, LoginRefused, TooBusy):
        attempt.job_may_exist = False
        raise
    except (SSHError, TimeoutError, asyncio.CancelledError):
        attempt.may_still_land = True
        raise


def _command_seconds(cluster: Cluster) -> float:
    return min(COMMAND_SECONDS, cluster.command_timeout_seconds)


def _job(session: InteractiveSession, cluster: Cluster, folder: str) -> tuple[JobRequest, ScriptContext]:
    choices = LaunchChoices.from_dict(session.choices)
    app = apps().get(session.app)
    if app is None:
        raise AppGone(session.app)
    context = ScriptContext(
        session_id=session.id,
        session_folder=folder,
        base_url=session.base_url,
        listen_address=cluster.bind_address,
        listen_on_socket=cluster.listens_on_socket,
        choices=choices,
        idle_stop_seconds=backstop_seconds(limit_seconds(app, cluster)),
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
