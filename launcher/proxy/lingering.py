"""The end of a connection on which an answer was given before the client had sent all: RFC 9112, 9.6.

Closed at once, what still arrives would have the system answer with a reset, and that may destroy the answer before the
client has read it. So the answer says that it is the last, our direction is closed, and what comes is thrown away for
some time and up to some size; from then on it is no longer read, which stops the client without a reset. Used by
``guard`` for both lanes and for the portal's own pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from launcher.proxy.patience import PatientProtocol

LINGER_SECONDS = 2.0
"""After the refusal of a head."""
UPLOAD_LINGER_SECONDS = 10.0
"""After an answer in the middle of a body: so long the rest of it, or the client's own end, may take."""
LINGER_BYTES = 4 * 1024 * 1024
"""How much is read and thrown away: the rest of a piece of an upload, as JupyterLab sends them, fits well."""


class Leftovers:
    """What comes on a connection after its last request."""

    __slots__ = ("_count", "lingers")

    def __init__(self) -> None:
        self._count = 0
        self.lingers = False  # the last answer has been written

    def begin(self) -> None:
        """The last answer has been written: count anew."""
        self._count = 0
        self.lingers = True

    def take(self, data: bytes, transport: asyncio.Transport) -> None:
        """Throw ``data`` away."""
        self._count += len(data)
        if self._count <= LINGER_BYTES or transport.is_closing():
            return
        if self.lingers:
            transport.pause_reading()  # the time limit ends it
        else:
            transport.abort()  # it must be read, to notice the client's leaving; but not without end


class LingeringTransport:
    """The transport as the cycle of a request sees it while the body comes: its closing after the answer waits."""

    __slots__ = ("_cycle", "_leave", "_transport", "abort", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle, leave: Callable[[], None]) -> None:
        self._transport = transport
        self._cycle = cycle
        self._leave = leave
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.abort = transport.abort

    def close(self) -> None:
        """Close: at once where the answer broke off, and after a while where it is whole."""
        if self._cycle.response_complete and not self._transport.is_closing():
            self._leave()
        else:
            self._transport.close()


class LingeringProtocol(PatientProtocol):
    """Says when a connection ends in this way, and how. Its one timer is also for whatever else has to come in time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_over = False  # nothing more is read
        self._leftovers = Leftovers()  # what comes nevertheless
        self._may_stay = True  # the connection, after the request whose body is coming
        self._timer: asyncio.TimerHandle | None = None

    def _begin_body(self, cycle: RequestResponseCycle) -> None:
        """Until the body has come, an answer is the connection's last."""
        self._may_stay = cycle.keep_alive
        cycle.keep_alive = False
        cycle.transport = LingeringTransport(self.transport, cycle, self._leave)  # type: ignore[assignment]  # what a cycle uses of it

    def _end_body(self, cycle: RequestResponseCycle) -> None:
        """It has come."""
        cycle.transport = self.transport
        if not cycle.response_started:
            cycle.keep_alive = self._may_stay
        if not cycle.keep_alive:
            self._is_over = True

    def _leave(self) -> None:
        """The answer is written, and the body still comes."""
        self._is_over = True
        self.cycle.transport = self.transport
        self._linger(UPLOAD_LINGER_SECONDS)

    def shutdown(self) -> None:
        """The web server stops: what is under way may end."""
        self._may_stay = False
        super().shutdown()

    def _linger(self, seconds: float) -> None:
        """Close, but not before the client could read the answer."""
        self._leftovers.begin()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._expect(seconds)

    def timeout_keep_alive_handler(self) -> None:
        """Not while the connection lingers, which has a limit of its own."""
        if self._leftovers.lingers:
            self.timeout_keep_alive_task = None
        else:
            super().timeout_keep_alive_handler()

    def _expect(self, seconds: float | None) -> None:
        """Something must come within ``seconds``; None: nothing is waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """It did not come."""
        raise NotImplementedError
