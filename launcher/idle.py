"""The rule for sessions that nobody uses: how long, when to look, when to warn, when to stop. Pure.

``launcher.flows.activity`` looks, ``launcher.services.idling`` writes what this decides. A session is stopped only at a
moment that its owner was told of before, and only by a look made at that moment or later. A moment that the portal
missed, because it was away, is announced anew.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass

from launcher.appfile import App
from launcher.clusters import Cluster

MOST_WARNING_SECONDS = 600
"""The owner is told so long before the stop; for a limit below 40 minutes, a quarter of it."""
MISSED_SECONDS = 120
"""A stop that is later than this was missed; its owner may not have been able to say no."""
CLOSE_SECONDS = 2
"""Two looks may disagree by so much about the same work: servers give their time in whole seconds."""


def limit_seconds(app: App | None, cluster: Cluster | None) -> int:
    """How long a session of ``app`` on ``cluster`` may be unused before it is stopped; 0: for ever.

    An app or a cluster that is no longer offered says nothing.
    """
    of_app = app.idle_stop_seconds if app is not None else 0
    at_most = cluster.idle_stop_seconds if cluster is not None else None
    if at_most is None:
        return of_app
    return min(of_app, at_most) if of_app else at_most


def warning_seconds(limit: float) -> float:
    """How long before the stop the owner is told."""
    return min(MOST_WARNING_SECONDS, limit / 4)


def backstop_seconds(limit: int) -> int:
    """For the job's own rule, which counts from the portal's last look: more than ever passes between two of them."""
    return limit + max(600, limit // 4) if limit else 0


def quiet_seconds(limit: float) -> float:
    """After so long without work the owner is told, and not before; so there is no need to look before."""
    return limit - warning_seconds(limit)


class Step(enum.Enum):
    """What a look leads to."""

    WAIT = enum.auto()  # nothing is new
    RELAX = enum.auto()  # it had been announced, and somebody works again
    WARN = enum.auto()  # announce the stop
    STOP = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do after a look, and when to look again. ``stop_at``: the announced stop, where there is one."""

    step: Step
    stop_at: dt.datetime | None
    check_at: dt.datetime


def decide(limit: float, *, active_at: dt.datetime, stop_at: dt.datetime | None, looked_at: dt.datetime) -> Outcome:
    """The meaning of a look that found work at ``active_at`` last; ``stop_at`` is the stop announced so far."""
    warning, whole = dt.timedelta(seconds=warning_seconds(limit)), dt.timedelta(seconds=limit)
    quiet = whole - warning
    if looked_at < active_at + quiet:
        return Outcome(Step.RELAX if stop_at else Step.WAIT, None, active_at + quiet)
    if stop_at is None or _is_void(stop_at, active_at + whole, looked_at, warning):
        stop_at = max(active_at + whole, looked_at + warning)
        return Outcome(Step.WARN, stop_at, min(stop_at, looked_at + warning / 4))
    if looked_at < stop_at:
        return Outcome(Step.WAIT, stop_at, min(stop_at, looked_at + warning / 4))
    return Outcome(Step.STOP, stop_at, looked_at + warning)


def _is_void(stop_at: dt.datetime, due: dt.datetime, looked_at: dt.datetime, warning: dt.timedelta) -> bool:
    """Whether an announcement counts no more: somebody worked after it, or the portal missed its moment."""
    missed = looked_at > stop_at + max(warning, dt.timedelta(seconds=MISSED_SECONDS))
    return missed or stop_at + dt.timedelta(seconds=CLOSE_SECONDS) < due


def retry_seconds(limit: float) -> float:
    """When to look again after a look that told nothing."""
    return min(300.0, max(1.0, warning_seconds(limit) / 2))
