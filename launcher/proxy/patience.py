"""How long a browser's connection may stay open without a request: uvicorn's rule, with fewer timers.

uvicorn makes a timer after each answer and cancels it with the next request. Here one timer for a connection looks at
the time of the last answer.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PatientProtocol(HttpToolsProtocol):
    """See the module. Whoever takes bytes sets ``idle_since`` to 0."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle_since = 0.0  # loop time of the last answer's end; 0 while something is under way

    def on_response_complete(self) -> None:
        """uvicorn's, but for the timer: one that looks at the time costs less than a new one after each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self.idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_next(self.timeout_keep_alive)

    def _await_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for so long; look again later at any other."""
        self.timeout_keep_alive_task = None
        if self.idle_since:
            left = self.idle_since + self.timeout_keep_alive - self.loop.time()
            if left > 0:
                self._await_next(left)
            else:
                super().timeout_keep_alive_handler()

    def stop_keepalive(self) -> None:
        """The connection is gone, or another protocol's."""
        super()._unset_keepalive_if_required()

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn's wish to stop the timer: it sees by itself that something is under way."""
