"""Finds out why a job ended: what the scheduler says, and the end of the session's log. Wipes the secret's file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from launcher import joblog
from launcher.clusters import Cluster
from launcher.jobscript import LOG_NAME, SECRET_NAME
from launcher.models import InteractiveSession
from launcher.parts import hands
from launcher.schedulers.base import JobState, JobStatus
from launcher.schedulers.endings import Ending, ending
from launcher.ssh.errors import SSHError
from launcher.ssh.files import RemoteFiles
from launcher.states import EndReason

log = structlog.get_logger(__name__)

TAIL_BYTES = 16 * 1024
READ_SECONDS = 30
"""A home that hangs does not keep a session whose job has ended."""


@dataclass(frozen=True, slots=True)
class EndingFound:
    """Why a session ended, and the proof."""

    reason: EndReason
    code: str
    params: Mapping[str, object]
    detail: str
    log_tail: str


async def find_ending(cluster: Cluster, session: InteractiveSession, status: JobStatus | None) -> EndingFound:
    """Never fails: without the log the scheduler's word alone has to do."""
    tail = ""
    if session.folder:
        try:
            async with asyncio.timeout(READ_SECONDS), hands().files(cluster, session.username) as files:
                tail = await _tail(files, f"{session.folder}/{LOG_NAME}")
                tail += await _tail(files, f"{session.folder}/job.out")  # where the scheduler itself writes
                await files.replace(f"{session.folder}/{SECRET_NAME}", b"", 0o600)
        except Exception as error:  # whatever it is: the job has ended, and so must its session
            log.warning("log_not_read", session=session.id, error=repr(error))
    stopped_by = EndReason(session.stop_reason) if session.stop_reason else None
    found = (None if stopped_by else said_by_script(status, tail)) or ending(
        status, tail, last_seen=_last_seen(session), stopped_by=stopped_by, stop_code=session.end_code
    )
    return EndingFound(found.reason, found.code, found.params, status.comment if status else "", tail)


def _last_seen(session: InteractiveSession) -> JobStatus:
    """What the row remembers of the job: a scheduler without history forgets it together with its end."""
    state = JobState(session.job_state or JobState.UNKNOWN)
    return JobStatus(session.job_id, state, owner=session.username, comment=session.job_comment)


def said_by_script(status: JobStatus | None, tail: str) -> Ending | None:
    """The script's own word for why it gave up, where the exit status agrees or is not known."""
    exit_status = status.exit_status if status else None
    if exit_status in (None, 0) and joblog.stopped_when_idle(tail):
        return Ending(EndReason.IDLE, "ended.idle")
    said = joblog.failure(tail)
    if said is None or exit_status not in (None, joblog.ExitCode[said.word.upper()]):
        return None
    return Ending(EndReason.FAILED, f"ended.{said.word}", {"subject": said.subject[:200]})


async def _tail(files: RemoteFiles, path: str) -> str:
    try:
        tail = await files.read_tail(path, TAIL_BYTES)
    except SSHError:
        return ""
    return tail.data.decode("utf-8", errors="replace")
