"""When an owner is warned of a session's end. Pure.

People choose minutes once for all sessions, also for short ones: 30 minutes before the end of a session of half an hour
is its beginning. So a number counts for a session only when it is at most half of its whole time. Where somebody chose
numbers and none counts, there is one warning when a quarter of the time is left.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Mapping

MOST_MINUTES = 24 * 60
MOST_WARNINGS = 5
SAME_END = dt.timedelta(minutes=2)
"""A cluster may tell the same end a little differently each time: so small a move is no new end."""


def minutes_for(chosen: Collection[int], *, whole: dt.timedelta) -> list[int]:
    """The minutes before the end at which somebody is warned in a session of this length, largest first."""
    fitting = sorted({minutes for minutes in chosen if dt.timedelta(minutes=2 * minutes) <= whole}, reverse=True)
    if fitting or not chosen:
        return fitting
    quarter = math.floor(whole.total_seconds() / 240)
    return [quarter] if quarter >= 1 else []


def due(chosen: Collection[int], *, begun_at: dt.datetime | None, ends_at: dt.datetime, at: dt.datetime) -> int | None:
    """Which of the warnings is due at this moment: the last one whose time has come. None: none, or it is over.

    After a pause of the portal the earlier ones are left out; they would say the same in the same minute.
    """
    if begun_at is None or at >= ends_at:
        return None
    left = ends_at - at
    passed = [m for m in minutes_for(chosen, whole=ends_at - begun_at) if left <= dt.timedelta(minutes=m)]
    return min(passed, default=None)


def end_in(params: Mapping[str, object]) -> dt.datetime | None:
    """The moment that a notice is about, if it is about one."""
    value = params.get("ends_at")
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def is_same_end(params: Mapping[str, object], ends_at: dt.datetime | None) -> bool:
    """Whether a notice with these parameters told this end."""
    told = end_in(params)
    return told is not None and ends_at is not None and abs(told - ends_at) < SAME_END


def is_told(params: Mapping[str, object], minutes: int, ends_at: dt.datetime) -> bool:
    """Whether a notice with these parameters was this warning, or a later one of the same end."""
    told = params.get("minutes")
    return isinstance(told, int) and told <= minutes and is_same_end(params, ends_at)
