"""Who may pass, decided in one place for every request and every WebSocket handshake.

``AccessCache`` stands before the database: an answer is kept for at most five seconds, so a warm request costs a
dictionary look-up and no task switch. It also knows every connection that stays open (``hold``): when an answer is
dropped (stop, revoke, sign-out) or has grown old, it asks again and ends those that may not stay.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from launcher.proxy.access_types import Access, Target, Verdict
from portal.clock import now

log = logging.getLogger(__name__)

MAX_COOKIE_LENGTH = 256
"""A longer cookie is none of ours and is not worth a place in the cache."""


class Lookup(Protocol):
    """Asks the database. May raise anything; nothing is then known."""

    async def __call__(self, *, label: str, cookie_value: str) -> Access: ...


@dataclass(slots=True, eq=False)
class Hold:
    """A connection that stays open: a WebSocket, or a request that takes long."""

    key: tuple[str, str]
    access: Access
    end: Callable[[], None]  # called once, when the connection may not stay
    confirmed_at: float  # monotonic


@dataclass(frozen=True, slots=True)
class Durations:
    """How long answers are trusted, in seconds."""

    keep_seconds: float = 5.0  # open and ended
    keep_refusal_seconds: float = 1.0  # everything else: it changes soon, when somebody signs in or the job starts
    recheck_seconds: float = 5.0  # for connections that stay open
    blind_seconds: float = 60.0  # how long an open connection outlives a database that does not answer


@dataclass(slots=True)
class _Entry:
    access: Access
    fresh_until: float = field(default=0.0)


class AccessCache:
    """Answers by (label, cookie), and the connections that live by them. Belongs to one event loop."""

    def __init__(
        self,
        lookup: Lookup,
        *,
        durations: Durations = Durations(),
        size: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._durations = durations
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._flights: dict[tuple[str, str], asyncio.Task[Access]] = {}
        self._drops = 0  # counts drops, so that a look-up notices one that happened meanwhile
        self._holds: set[Hold] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def cached(self, label: str, cookie_value: str) -> Access | None:
        """The answer if it is known and fresh. Never waits."""
        key = (label, cookie_value)
        entry = self._entries.get(key)
        if entry is None or entry.fresh_until <= self._clock():
            return None
        self._entries.move_to_end(key)
        return entry.access

    def has_met(self, label: str, cookie_value: str) -> bool:
        """Whether this was asked for lately, whatever the answer was and however old it is."""
        return (label, cookie_value) in self._entries

    async def look_up(self, label: str, cookie_value: str) -> Access:
        """The answer, asked for once however many wait for it. Raises what the look-up raises."""
        if len(cookie_value) > MAX_COOKIE_LENGTH:
            cookie_value = ""
        access = self.cached(label, cookie_value)
        if access is not None:
            return access
        key = (label, cookie_value)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fetch(key))
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    async def _fetch(self, key: tuple[str, str]) -> Access:
        for _ in range(3):
            drops = self._drops
            access = await self._lookup(label=key[0], cookie_value=key[1])
            if drops == self._drops:
                self._keep(key, access)
                break
        return access

    def _landed(self, key: tuple[str, str], flight: asyncio.Task[Access]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; nobody waiting is no reason for a warning

    def _keep(self, key: tuple[str, str], access: Access) -> None:
        seconds = (
            self._durations.keep_seconds
            if access.verdict in (Verdict.OPEN, Verdict.ENDED)
            else self._durations.keep_refusal_seconds
        )
        if access.expires_at is not None:
            seconds = min(seconds, (access.expires_at - now()) / dt.timedelta(seconds=1))
        self._entries[key] = _Entry(access, self._clock() + seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, *, session_id: str = "", user_id: int | None = None) -> None:
        """Forget what is known of a session or a person, and ask again for their open connections at once.

        Without arguments: of everybody.
        """
        self._drops += 1

        def concerns(access: Access) -> bool:
            if not session_id and user_id is None:
                return True
            if session_id and access.session_id == session_id:
                return True
            return user_id is not None and access.user_id == user_id

        for key in [key for key, entry in self._entries.items() if concerns(entry.access)]:
            del self._entries[key]
        concerned = [hold for hold in self._holds if concerns(hold.access)]
        if concerned:
            self._start(self._recheck(concerned))

    # Connections that stay open

    def hold(self, label: str, cookie_value: str, access: Access, end: Callable[[], None]) -> Hold:
        """Note that a connection stays open; ``end`` is called when it may not stay. Pair with ``let_go``."""
        hold = Hold((label, cookie_value), access, end, self._clock())
        self._holds.add(hold)
        if self.cached(label, cookie_value) is not access:
            # The answer was dropped between the decision and now, and perhaps asked for again by somebody else.
            self._start(self._recheck([hold]))
        if self._timer is None:
            self._arm()
        return hold

    def let_go(self, hold: Hold) -> None:
        """The connection has ended."""
        self._holds.discard(hold)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._durations.recheck_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._holds:
            self._start(self._recheck(list(self._holds)))
            self._arm()

    def _start(self, recheck: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(recheck)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recheck(self, holds: Iterable[Hold]) -> None:
        by_key: dict[tuple[str, str], list[Hold]] = {}
        for hold in holds:
            by_key.setdefault(hold.key, []).append(hold)
        for key, same in by_key.items():
            try:
                access = await self.look_up(*key)
            except Exception as error:
                log.warning("Access could not be checked again: %s", type(error).__name__)
                horizon = self._clock() - self._durations.blind_seconds
                self._end(hold for hold in same if hold.confirmed_at < horizon)
                continue
            for hold in same:
                if access.verdict is Verdict.OPEN and same_place(access.target, hold.access.target):
                    hold.confirmed_at = self._clock()
                else:
                    self._end([hold])

    def _end(self, holds: Iterable[Hold]) -> None:
        for hold in list(holds):
            if hold in self._holds:
                self._holds.discard(hold)
                hold.end()

    @property
    def open_connections(self) -> int:
        """How many connections stay open at this moment."""
        return len(self._holds)

    async def aclose(self) -> None:
        """Stop asking. Open connections are left to whoever owns them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in [*self._tasks, *self._flights.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._flights.values(), return_exceptions=True)


def same_place(one: Target | None, other: Target | None) -> bool:
    """Whether two answers lead to the same server."""
    return (
        one is not None
        and other is not None
        and (one.host, one.port, one.socket, one.username, one.cluster.id)
        == (other.host, other.port, other.socket, other.username, other.cluster.id)
    )
