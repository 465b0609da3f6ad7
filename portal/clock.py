"""The time, from one place, so that tests can hold the clock. Every moment in Footbridge is aware and in UTC."""

from __future__ import annotations

import datetime as dt


def now() -> dt.datetime:
    """The present moment, aware, in UTC."""
    return dt.datetime.now(dt.UTC)
