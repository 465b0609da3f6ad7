"""Decides what one answer of the scheduler means for one session. Pure: no I/O, no clock of its own.

``launcher.flows.poll_ask`` asks the scheduler and calls this for every session; ``launcher.services`` writes the
outcome. Unknown never ends a session: only "finished", or two valid answers in a row that leave the job out, do.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from launcher.schedulers.base import JobState, JobStatus
from launcher.states import SessionState, may_move

MISSING_ANSWERS_TO_BELIEVE = 2
"""So many valid answers in a row must leave a job out before we believe that it is gone."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the decision needs to know of a session."""

    state: SessionState
    missing_count: int
    started_at: dt.datetime | None
    start_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a session after one valid answer."""

    move_to: SessionState | None = None  # a forward move, or None to stay
    has_ended: bool = False  # the job exists no more: find out why, then end the session
    missing_count: int = 0
    start_timed_out: bool = False  # it runs, but its server has not answered for too long


def decide(watched: Watched, status: JobStatus | None, now: dt.datetime) -> Decision:
    """The meaning of ``status`` (``None``: a valid answer left the job out) for a session that has a job."""
    if watched.state is SessionState.ENDED:
        return Decision()
    if status is None:
        missing = watched.missing_count + 1
        return Decision(missing_count=missing, has_ended=missing >= MISSING_ANSWERS_TO_BELIEVE)
    if status.state is JobState.FINISHED:
        return Decision(has_ended=True)
    move_to: SessionState | None = None
    if status.state in (JobState.QUEUED, JobState.HELD):
        move_to = SessionState.QUEUED
    elif status.state in (JobState.RUNNING, JobState.SUSPENDED, JobState.EXITING):
        move_to = SessionState.STARTING
    if move_to is not None and not may_move(watched.state, move_to):
        move_to = None
    timed_out = (
        watched.state is SessionState.STARTING
        and status.state is JobState.RUNNING
        and watched.started_at is not None
        and (now - watched.started_at).total_seconds() > watched.start_timeout_seconds
    )
    return Decision(move_to=move_to, start_timed_out=timed_out)
