"""The web server's protocol class with a pump for each request: see ``pump``. Used by name, in the server's options.

Behind the strict gate of ``guard``; an application that answers by ASGI events finds all as uvicorn has it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from launcher.proxy.cycle import end_of, head_of
from launcher.proxy.errors import ClientGone
from launcher.proxy.fast.pump import EXTENSION, Relay
from launcher.proxy.guard import GuardedProtocol
from launcher.proxy.repeats import Whole
from launcher.ssh.sockets import bound_unsent

HIGH_WATER_BYTES = 512 * 1024
"""What may wait for a browser that takes less than the server gives, before the server waits too."""
BREAK_SECONDS = 1.0
"""How long the rest of an answer that broke off may take to a browser that takes nothing."""


class FastProtocol(GuardedProtocol):
    """See the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._newest: Pump | None = None  # whose body is coming
        self.pumping: Pump | None = None  # who is answering
        self._has_length = False  # the body that is coming
        self._bypasses = False  # the parser has not seen all of it
        self._at_once = getattr(self.app, "at_once", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Let some more wait than asyncio does by itself: that costs fewer stops."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        bound_unsent(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The browser has left."""
        super().connection_lost(exc)
        for pump in (self.pumping, self._newest):
            if pump is not None and pump.relay is not None:
                pump.relay.fail(ClientGone())
        self._newest = None

    def pause_writing(self) -> None:
        """The browser takes less than it gets."""
        super().pause_writing()
        if self.pumping is not None and self.pumping.relay is not None:
            self.pumping.relay.connection.pause_reading()

    def resume_writing(self) -> None:
        """The browser has caught up."""
        super().resume_writing()
        if self.pumping is not None and self.pumping.relay is not None:
            self.pumping.relay.connection.resume_reading()

    def on_headers_complete(self) -> None:
        """Offer a pump, before the application's task has its first turn."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._has_length = self._body_left > 0
            self._bypasses = False
            self._newest = Pump(self, self.cycle)
            self.scope["extensions"] = {EXTENSION: self._newest}  # type: ignore[dict-item]  # an object, not a table

    def _begin(self, cycle: RequestResponseCycle, whole: Whole) -> None:
        """Let the application begin at once, where it can, without a task and its turns."""
        self._has_length = self._bypasses = False
        self._newest = pump = Pump(self, cycle, whole)
        if self._at_once is None or not self._at_once(cycle.scope, pump):
            self.scope = cycle.scope = whole.own_scope()
            self.scope["extensions"] = {EXTENSION: pump}  # type: ignore[dict-item]  # an object, not a table
            self._start_asgi_task(cycle, self.app)

    def carry_on(self, cycle: RequestResponseCycle, whole: Whole, app: Any) -> None:
        """What began at once needs a task after all: ``app`` answers."""
        self.scope = cycle.scope = whole.own_scope()
        self._start_asgi_task(cycle, app)

    def _hand_on(self, piece: bytes) -> None:
        """A piece of a body of known length goes past the parser, which is then replaced."""
        pump = self._newest
        if self._has_length and pump is not None and (self._bypasses or pump.relay is not None):
            self._bypasses = True
            if pump.relay is not None:
                pump.relay.take_request(piece)
            if not self._body_left:
                self._bypasses = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.on_message_complete()
        else:
            super()._hand_on(piece)

    def on_body(self, body: bytes) -> None:
        """A piece of a chunked body."""
        pump = self._newest
        if pump is None or pump.relay is None:
            super().on_body(body)
        else:
            pump.relay.take_request(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        pump = self._newest
        if pump is None or pump.relay is None:
            super().on_message_complete()
        else:
            self.cycle.more_body = False
            pump.relay.end_request()

    def _refuse_body(self, status: int, cause: str) -> None:
        super()._refuse_body(status, cause)
        if self._newest is not None and self._newest.relay is not None:
            self._newest.relay.fail(ClientGone())


class Pump:
    """One request's ``Offer``."""

    __slots__ = ("_cycle", "_protocol", "_unsent", "is_bare", "relay", "whole")

    def __init__(self, protocol: FastProtocol, cycle: RequestResponseCycle, whole: Whole | None = None) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._unsent = b""  # a head that waits for the piece of the body that came with it: one write for both
        self.relay: Relay | None = None
        self.whole = whole
        self.is_bare = whole is None and cycle.scope["http_version"] == "1.0"

    def attach(self, relay: Relay) -> None:
        cycle = self._cycle
        if cycle.disconnected or cycle.response_complete:
            relay.fail(ClientGone())
            return
        self.relay = relay
        self._protocol.pumping = self
        if cycle.body:
            body, cycle.body = bytes(cycle.body), bytearray()
            relay.take_request(body)
        if not cycle.more_body:
            relay.end_request()
        elif not relay.connection.is_congested:
            self.resume_reading()
        if self._protocol.flow.write_paused:
            relay.connection.pause_reading()

    def carry_on(self, app: Any) -> None:
        if not self._cycle.disconnected and self.whole is not None:
            self._protocol.carry_on(self._cycle, self.whole, app)

    def detach(self) -> None:
        self.relay = None
        if self._protocol.pumping is self:
            self._protocol.pumping = None

    def say_continue(self) -> None:
        cycle = self._cycle
        if cycle.waiting_for_100_continue and not cycle.disconnected:
            cycle.waiting_for_100_continue = False
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answer(self, status: int, lines: bytes, *, keep_alive: bool) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.waiting_for_100_continue = False
        if not keep_alive:
            cycle.keep_alive = False
        self._unsent = head_of(cycle, status, lines)

    def answer_whole(self, status: int, lines: bytes, body: bytes) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.transport.write(head_of(cycle, status, lines) + body)
        self._end()

    def write(self, data: bytes) -> None:
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if not self._cycle.disconnected:
            self._cycle.transport.write(data)

    def flush(self) -> None:
        if self._unsent:
            self.write(b"")

    def finish(self) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        self.flush()
        self._end()

    def _end(self) -> None:
        self.detach()
        end_of(self._cycle)

    def break_off(self) -> None:
        cycle = self._cycle
        if cycle.disconnected or cycle.response_complete:
            return
        cycle.disconnected = True
        if self.is_bare:  # its end is the connection's end, so that must not look proper
            cycle.transport.abort()
        else:
            cycle.transport.close()
            self._protocol.loop.call_later(BREAK_SECONDS, cycle.transport.abort)

    def pause_reading(self) -> None:
        self._protocol.flow.pause_reading()

    def resume_reading(self) -> None:
        if not self._cycle.disconnected and not self._protocol.transport.is_closing():
            self._protocol.flow.resume_reading()
