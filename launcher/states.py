"""The states of a session, why it can end, and which moves are allowed. Pure.

States are ordered: a late answer never moves a session back. "The scheduler does not answer" is no state but a flag
with a time (``InteractiveSession.unreachable_since``).
"""

from __future__ import annotations

import enum


class SessionState(enum.StrEnum):
    """Where a session is on its way from the form to its end."""

    SUBMITTING = "submitting"  # the row exists; whether a job exists is not yet known
    QUEUED = "queued"  # the scheduler has the job and has not started it
    STARTING = "starting"  # the job runs; its server has not answered yet
    READY = "ready"  # the server answered an HTTP request
    STOPPING = "stopping"  # somebody asked for the end; the scheduler has not confirmed it
    ENDED = "ended"  # no job of this session exists any more

    @property
    def is_live(self) -> bool:
        """Whether the session still counts against its owner's limit."""
        return self is not SessionState.ENDED


class EndReason(enum.StrEnum):
    """Why a session ended: one word for machines; people read a sentence made from it."""

    STOPPED_BY_USER = "stopped_by_user"
    STOPPED_BY_ADMIN = "stopped_by_admin"
    IDLE = "idle"
    COMPLETED = "completed"
    WALLTIME = "walltime"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"
    NODE_FAILED = "node_failed"
    SUBMIT_REJECTED = "submit_rejected"
    LOST = "lost"


LIVE_STATES: tuple[SessionState, ...] = tuple(state for state in SessionState if state.is_live)

_RANK = {state: rank for rank, state in enumerate(SessionState)}


def may_move(old: SessionState, new: SessionState) -> bool:
    """Whether a session in ``old`` may become ``new``: forward only, and never out of ``ended``."""
    return _RANK[new] > _RANK[old]
