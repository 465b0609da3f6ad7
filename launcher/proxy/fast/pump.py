"""A request and its answer through the proxy by the extension ``footbridge.pump``: no event and no task for a piece.

The head goes through the application as always. Then the web server hands the body's bytes to the connection in the
job, and that connection the answer's to the browser's transport, as they come; where a body ends is what the strict
scanners on both sides say. A slow side stops the other from being read. One look-out for all requests under way
replaces a timer and a task for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from launcher.proxy.access import Hold
from launcher.proxy.access_types import Target
from launcher.proxy.answers import passing_fields
from launcher.proxy.connection import Connection
from launcher.proxy.errors import AccessEnded, ClientGone, UpstreamBroken
from launcher.proxy.exchange import Exchange, Head
from launcher.proxy.fast.lookout import Lookout
from launcher.proxy.headers import BadHead, OutgoingRequest
from launcher.proxy.http import CONTINUE_SECONDS, REPEATABLE
from launcher.proxy.outgoing import request_of
from launcher.proxy.repeats import Whole
from launcher.proxy.upstream import UpstreamPool
from launcher.proxy.visit import Visit
from portal.sparselog import SparseLog

breaks = SparseLog(logging.getLogger(__name__))

EXTENSION = "footbridge.pump"


class Offer(Protocol):
    """What the web server offers in a request's scope under ``EXTENSION``: the browser's side of one exchange."""

    is_bare: bool  # an HTTP/1.0 client: it knows no chunks
    whole: Whole | None  # of a request that can be answered at once

    def attach(self, relay: Relay) -> None:
        """Hand the body to ``relay``, from its beginning, and tell it of the browser's leaving and slowness."""

    def carry_on(self, app: Any) -> None:
        """Let ``app``, an ASGI application, answer in a task."""

    def detach(self) -> None:
        """Hand on nothing more; what is left of the body is thrown away."""

    def say_continue(self) -> None:
        """Ask the browser for the body, if it waits for that."""

    def answer(self, status: int, lines: bytes, *, keep_alive: bool) -> None:
        """Write the head; ``lines`` are whole header lines."""

    def answer_whole(self, status: int, lines: bytes, body: bytes) -> None:
        """As ``answer``, ``write`` and ``finish``, on a connection that may stay."""

    def write(self, data: bytes) -> None:
        """Write a piece of the body as it goes over the wire, behind the head."""

    def flush(self) -> None:
        """No piece came with the head: write that."""

    def finish(self) -> None:
        """The answer is complete."""

    def break_off(self) -> None:
        """The answer cannot be completed, and must not look so."""

    def pause_reading(self) -> None:
        """Take no more of the body for now."""

    def resume_reading(self) -> None:
        """Take more again."""


async def forward(
    visit: Visit, offer: Offer, *, pool: UpstreamPool, lookout: Lookout, failed: Relay | None = None
) -> None:
    """Carry one request. Raises BadHead, UpstreamError or AccessEnded only while nothing has been answered yet.

    ``failed`` is a first attempt that has been made already.
    """
    scope = visit.scope
    target = visit.access.target
    assert target is not None
    method: str = scope["method"]
    request = request_of(visit)
    fresh = False
    while True:
        relay = failed
        failed = None
        if relay is None:
            connection = None if fresh else pool.kept(visit.access.session_id, target)
            if connection is None:
                connection = await _reached(visit, target, pool, lookout, fresh)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            relay = Relay(connection, visit, offer, request, head_only=method == "HEAD", over=partial(_settle, done))
            lookout.add(relay)
            try:
                connection.start(method, request.head, exchange=relay)
                offer.attach(relay)
                await done
            except BaseException:
                if relay.has_head:
                    offer.break_off()
                raise
            finally:
                lookout.discard(relay)
                offer.detach()
                connection.on_writable = None
                pool.release(connection)
        error = relay.error
        if error is None or isinstance(error, ClientGone):
            return
        if relay.has_head:
            relay.broke_off()
            return
        if (
            fresh
            or request.has_body
            or method not in REPEATABLE
            or not isinstance(error, UpstreamBroken)
            or not relay.connection.was_used
            or relay.got_bytes
        ):
            raise error
        fresh = True


async def _reached(visit: Visit, target: Target, pool: UpstreamPool, lookout: Lookout, fresh: bool) -> Connection:
    """A connection, after a while perhaps: raises AccessEnded if the permission has not lasted as long."""
    ended: list[bool] = []
    hold = lookout.access.hold(visit.label, visit.cookie, visit.access, lambda: ended.append(True))
    try:
        connection = await pool.acquire(visit.access.session_id, target, fresh=fresh)
    finally:
        lookout.access.let_go(hold)
    if ended:
        pool.release(connection)
        raise AccessEnded
    return connection


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class Relay(Exchange):
    """An exchange that nobody reads: what comes goes on."""

    __slots__ = (
        "_continue_timer",
        "_is_chunked",
        "_offer",
        "_over",
        "_request",
        "_sent",
        "_wraps",
        "connection",
        "error",
        "hold",
        "visit",
    )

    def __init__(
        self,
        connection: Connection,
        visit: Visit,
        offer: Offer,
        request: OutgoingRequest,
        *,
        head_only: bool,
        over: Callable[[], object],
    ) -> None:
        super().__init__(connection, head_only=head_only)
        self.connection = connection
        self.visit = visit
        self._offer = offer
        self._request = request
        self._is_chunked = request.chunked
        self._wraps = False  # the answer's pieces become chunks
        self._sent = False  # some of the body
        self._continue_timer: asyncio.TimerHandle | None = None
        self._over = over  # called when it has ended, well or not
        self.error: Exception | None = None
        self.hold: Hold | None = None
        self.progress_at = 0.0
        self.request_sent = not request.has_body
        if request.has_body:
            loop = asyncio.get_running_loop()
            if request.expects_continue:
                self._continue_timer = loop.call_later(CONTINUE_SECONDS, self._ask)
            self.progress_at = loop.time()
            connection.on_writable = offer.resume_reading

    # From the browser

    def take_request(self, data: bytes) -> None:
        """A piece of the request's body, without its framing."""
        self._sent = True
        connection = self.connection
        connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        if connection.is_congested:
            self.progress_at = asyncio.get_running_loop().time()
            self._offer.pause_reading()

    def end_request(self) -> None:
        """The request's body is complete."""
        if self.request_sent:
            return
        if self._is_chunked:
            self.connection.write(b"0\r\n\r\n")
        self.request_sent = True
        self.progress_at = asyncio.get_running_loop().time()

    def _ask(self) -> None:
        """The server has not asked for the body in time: ask in its place."""
        if not self.has_head:
            self._offer.say_continue()

    # From the server

    def take_continue(self) -> None:
        self._offer.say_continue()

    def take_head(self, head: Head) -> None:
        if self.error is not None:
            return
        try:
            lines = passing_fields(head, self.visit).lines
        except BadHead as error:
            self.fail(error)
            return
        self._head = head
        keep_alive = self.request_sent or not self._request.expects_continue or self._sent
        if not (self.head_only or head.status in (204, 304)):
            bare = self._offer.is_bare
            self.takes_raw = head.length is not None or (head.chunked and not bare)
            self._wraps = head.length is None and not head.chunked and not bare
            if head.length is None:
                if bare:
                    keep_alive = False
                else:
                    lines += b"transfer-encoding: chunked\r\n"
        self._offer.answer(head.status, lines, keep_alive=keep_alive)

    def take_body(self, data: bytes) -> None:
        if self.error is None:
            self._offer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._wraps else data)

    def settle(self) -> None:
        self._offer.flush()

    def take_end(self) -> None:
        if self.error is not None or self.complete:
            return
        self.complete = True
        if self._wraps:
            self._offer.write(b"0\r\n\r\n")
        self._offer.finish()
        self._end()

    def fail(self, error: Exception) -> None:
        if self.error is None and not self.complete:
            self.error = error
            self._end()

    def _end(self) -> None:
        if self._continue_timer is not None:
            self._continue_timer.cancel()
        self._over()

    def broke_off(self) -> None:
        """It ended within the answer."""
        breaks.note(f"An answer broke off: {self.error or type(self.error).__name__}")
        self._offer.break_off()

    def end_access(self) -> None:
        """The permission has ended."""
        self.fail(AccessEnded())
