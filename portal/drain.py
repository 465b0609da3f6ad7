"""The end of a web process without a broken download: what happens between SIGTERM and the server's own shutdown.

While it drains, a process goes on answering, but says ``Connection: close``, takes no new WebSocket, and tells whoever
asks for its health that it is leaving. It ends as soon as nothing is under way, at the latest when its time is over;
WebSockets that are still open are then closed by the server with code 1012 (service restart): browsers come back.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

log = structlog.get_logger(__name__)

CLOSING_SECONDS = 3.0
"""What the server's own shutdown may take of the time; see ``WEB_OPTIONS`` in ``launcher.processes``."""
LOOK_SECONDS = 0.1


class Drain:
    """Counts what is under way, and holds SIGTERM back from the server. ``seconds``: in all, the shutdown included.

    ``others``: how much is under way that does not ``enter`` and ``leave``.
    """

    def __init__(self, seconds: float, *, others: Callable[[], int] = lambda: 0) -> None:
        self._seconds = seconds
        self._others = others
        self._under_way = 0
        self._shut_down: Callable[[], object] | None = None
        self.is_on = False

    def follow_signals(self) -> None:
        """Take SIGTERM from the server that runs this loop. Without effect where no server handles it."""
        server = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(server):
            return
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            if self.is_on:  # somebody is in a hurry
                server(number, frame)
            else:
                loop.call_soon_threadsafe(self.begin, lambda: server(number, None))

        signal.signal(signal.SIGTERM, handle)

    def begin(self, shut_down: Callable[[], object]) -> None:
        """Drain; ``shut_down`` is called once, when nothing is under way or the time is over."""
        if self.is_on:
            return
        self.is_on = True
        self._shut_down = shut_down
        log.info("draining", under_way=self._under_way + self._others(), seconds=self._seconds)
        wait_seconds = max(0.0, self._seconds - CLOSING_SECONDS)
        self._look(asyncio.get_running_loop().time() + wait_seconds)

    def enter(self) -> None:
        """A request or WebSocket begins."""
        self._under_way += 1

    def leave(self) -> None:
        """It is over."""
        self._under_way -= 1

    def _look(self, until: float) -> None:
        """Shut down when nothing is under way, or at ``until`` (the loop's time)."""
        loop = asyncio.get_running_loop()
        left = self._under_way + self._others()
        if left and loop.time() < until:
            loop.call_later(min(LOOK_SECONDS, until - loop.time()), self._look, until)
        elif self._shut_down is not None:
            log.info("drained", under_way=left)
            self._shut_down()
