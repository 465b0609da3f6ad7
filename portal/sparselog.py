"""A log that cannot be flooded: the same cause is written at once, and then at most once a minute with a count.

Whoever makes the portal refuse something a thousand times a second should fill no disk. A cause is a short text of
ours, never of the visitor's; beyond a thousand causes in a minute the rest are counted together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

WINDOW_SECONDS = 60.0
MOST_CAUSES = 1000
_REST = "(other causes)"


class SparseLog:
    """Writes to ``log``. Each cause has a window, which begins when it is written."""

    def __init__(
        self, log: logging.Logger, *, level: int = logging.INFO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._level = level
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # by cause: the window's end, and how many were held back
        self._look_at = 0.0

    def note(self, cause: str) -> None:
        """This happened. Writes it, or counts it."""
        moment = self._clock()
        if moment >= self._look_at:
            self._close_windows(moment)
        if cause not in self._windows and len(self._windows) >= MOST_CAUSES:
            cause = _REST
        window = self._windows.get(cause)
        if window is None:
            self._windows[cause] = (moment + WINDOW_SECONDS, 0)
            self._log.log(self._level, "%s", cause)
        else:
            self._windows[cause] = (window[0], window[1] + 1)

    def _close_windows(self, moment: float) -> None:
        """Write the counts of windows that are over. Those of a cause that has stopped come with the next note."""
        self._look_at = moment + 1.0
        for cause, (end, held_back) in list(self._windows.items()):
            if end > moment:
                continue
            if held_back:
                self._windows[cause] = (moment + WINDOW_SECONDS, 0)
                self._log.log(self._level, "%s (%d more times in a minute)", cause, held_back)
            else:
                del self._windows[cause]
