"""Connections that stay open, one (rarely more) per cluster and user, shared by everything this process does
as that user; and where the cluster is reached so, further ones through them to the execution hosts of the user's jobs.

A pool belongs to one event loop. It dials at most once at a time per user, holds off after failures instead
of letting every caller wait for the same timeout, closes what nobody uses, and replaces what broke. It never
repeats a command: only its caller knows whether that would be safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from launcher.clusters import Cluster
from launcher.ssh import fastpath, fastpath_check
from launcher.ssh.channels import MOST_UNANSWERED, channels_of
from launcher.ssh.connect import connect
from launcher.ssh.credentials import Credential
from launcher.ssh.errors import HostKeyChanged, LoginRefused, NodeKeyUnknown, NodeRefused, SSHError, Unreachable
from launcher.ssh.nodes import connect_node
from portal.clock import now

_FIRST_WAIT_SECONDS = 0.4
_LONGEST_WAIT_SECONDS = 30.0
_SETTLED_AFTER_SECONDS = 60.0
_NODE_IDLE_SECONDS = 30.0
_REFUSED_PASSWORD_SECONDS = 600.0
"""A password that an execution host refused is not offered to it again for so long: each time counts at a lockout."""
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Health:
    """How a cluster's login hosts look from this process."""

    connections: int
    channels: int
    failing_since: dt.datetime | None = None  # the first of the failures since the last success
    last_error: SSHError | None = None
    retry_in_seconds: float = 0.0  # until then, callers get ``last_error`` at once


@dataclass(slots=True)
class _BackOff:
    """Failures in a row, and until when nobody tries again."""

    error: SSHError | None = None
    failures: int = 0
    since: dt.datetime | None = None
    until: float = 0.0  # monotonic seconds

    def failed(self, error: SSHError, *, at_least_seconds: float = 0.0) -> None:
        self.error = error
        self.failures += 1
        self.since = self.since or now()
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(self.failures - 1, 16))
        # Jitter: after an outage a hundred processes shall not come back in step.
        self.until = time.monotonic() + max(at_least_seconds, longest * _random.uniform(0.5, 1.0))

    @property
    def wait_seconds(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def check(self) -> None:
        """Raise a copy of the last error while it is too early to try again."""
        if self.error is not None and self.wait_seconds:
            raise type(self.error)(self.error.detail, code=self.error.code, params=self.error.params)


@dataclass(slots=True)
class _Place:
    """What the pool knows about one user on one cluster."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    connections: list[asyncssh.SSHClientConnection] = field(default_factory=list)
    back_off: _BackOff = field(default_factory=_BackOff)
    adopted_at: float = -math.inf  # monotonic seconds


Refused = Callable[[Cluster, str, SSHError], Coroutine[Any, Any, None]]
"""Hears of each login that a host refused (LoginRefused), and of each wrong host key (HostKeyChanged)."""


class Pool:
    """See the module. ``credential_for`` chooses the kind of credential of a cluster.

    ``idle_seconds``: an unused connection is closed after that long. ``max_connections``: of all users
    together; the least recently used idle one makes room. ``max_channels_per_connection``: from there on a
    further connection of the same user is opened, because sshd's loop slows down with each channel. It is a
    threshold, not a limit: who has a connection may open more. ``max_connections_per_user``: on one cluster, with
    that many crowded ones the next caller is refused. ``refused`` hears of refusals
    before the caller does. ``companion`` runs from the first connection with a credential that can be taken
    back until the pool is closed; it is where news of that arrive. ``fast_path``: carry data the fast way (see
    ``launcher.ssh.fastpath``) where that can be trusted.
    """

    def __init__(
        self,
        credential_for: Callable[[Cluster], Credential],
        *,
        idle_seconds: float = 300.0,
        max_connections: int = 500,
        max_channels_per_connection: int = 250,
        max_connections_per_user: int = 16,
        refused: Refused | None = None,
        companion: Callable[[Pool], Coroutine[Any, Any, None]] | None = None,
        fast_path: bool = True,
    ) -> None:
        self._credential_for = credential_for
        self._idle_seconds = idle_seconds
        self._max_connections = max_connections
        self._max_channels = max_channels_per_connection
        self._max_per_user = max_connections_per_user
        self._refused = refused
        self._companion = companion
        self._fast_path = fast_path
        self._companion_task: asyncio.Task[None] | None = None
        self._places: dict[tuple[str, str, str], _Place] = {}  # by cluster, user, and execution host or ""
        self._jumps: set[asyncio.Task[None]] = set()
        self._clusters: dict[str, _BackOff] = {}
        self._dialling = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def connection(
        self, cluster: Cluster, username: str, *, node: str = "", reason: str = ""
    ) -> asyncssh.SSHClientConnection:
        """A living connection as ``username``, to a login host or through it to the execution host ``node``.

        It stays the pool's: use it, do not close it. Raises what ``connect`` and ``connect_node`` raise. After a
        failure the same error comes back at once until the next try is due: for the whole cluster if no login host was
        there or its key was wrong, for this user alone (at this execution host) otherwise.
        """
        self._check_loop()
        while True:
            place = self._places.setdefault((cluster.id, username, node), _Place())
            found = self._usable(place) or await self._dial(place, cluster, username, node, reason)
            if found is not None:
                return found

    async def _dial(
        self, place: _Place, cluster: Cluster, username: str, node: str, reason: str
    ) -> asyncssh.SSHClientConnection | None:
        """A new connection; ``None`` where ``close_user`` came in between, so that what it took back is not used."""
        async with place.lock:  # of callers racing for the same user, one dials and the others take what it got
            found = self._usable(place)
            if found is not None:
                return found
            if self._places.get((cluster.id, username, node)) is not place:
                return None
            whole_cluster = self._clusters.setdefault(cluster.id, _BackOff())
            whole_cluster.check()
            place.back_off.check()
            if len(place.connections) >= self._max_per_user:
                raise Unreachable(
                    f"{username} has {self._max_per_user} crowded SSH connections to {cluster.id}",
                    code="ssh.too_many_connections",
                )
            self._make_room()
            self._dialling += 1
            try:
                if node:
                    connection = await self._jump(cluster, username, node, reason)
                else:
                    connection = await connect(cluster, username, self._credential_for(cluster), reason=reason)
                if self._fast_path:
                    await fastpath_check.problem()
            except (Unreachable, HostKeyChanged) as error:
                if not node:  # the login host's own failure is known already
                    whole_cluster.failed(error)
                await self._tell(cluster, username, error)
                raise
            except SSHError as error:
                is_costly = isinstance(error, NodeRefused) and cluster.credential == "password"
                place.back_off.failed(error, at_least_seconds=_REFUSED_PASSWORD_SECONDS if is_costly else 0.0)
                await self._tell(cluster, username, error)
                raise
            finally:
                self._dialling -= 1
            if self._closed:
                connection.abort()
                raise Unreachable("the pool was closed")
            self._clusters[cluster.id] = _BackOff()
            place.back_off = _BackOff()
            if self._places.get((cluster.id, username, node)) is not place:
                connection.abort()
                return None
            self._take_in(place, cluster, connection)
            return connection

    async def _jump(self, cluster: Cluster, username: str, node: str, reason: str) -> asyncssh.SSHClientConnection:
        """On to an execution host. A way through is a channel of the connection it goes through."""
        login = await self.connection(cluster, username, reason=reason)
        channels = channels_of(login)
        channels.tunnel_opened()
        try:
            credential = self._credential_for(cluster)
            connection = await connect_node(cluster, login, username, node, credential, reason=reason)
        except BaseException:
            channels.tunnel_closed()
            raise

        async def wait() -> None:
            try:
                await connection.wait_closed()
            finally:
                channels.tunnel_closed()

        task = asyncio.create_task(wait(), name="ssh jump")
        self._jumps.add(task)
        task.add_done_callback(self._jumps.discard)
        return connection

    def adopt(self, cluster: Cluster, username: str, connection: asyncssh.SSHClientConnection) -> None:
        """Take over a connection that was made as ``username`` by other means, their password for one."""
        self._check_loop()
        place = self._places.setdefault((cluster.id, username, ""), _Place())
        place.back_off, place.adopted_at = _BackOff(), time.monotonic()
        self._take_in(place, cluster, connection)

    def _take_in(self, place: _Place, cluster: Cluster, connection: asyncssh.SSHClientConnection) -> None:
        place.connections.append(connection)
        if self._fast_path and fastpath_check.is_proven():
            fastpath.tune(connection)
        channels_of(connection).touch()
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep(), name="ssh pool sweeper")
        if self._companion is not None and self._companion_task is None and cluster.credential != "certificate":
            self._companion_task = asyncio.create_task(self._companion(self), name="ssh pool companion")

    async def _tell(self, cluster: Cluster, username: str, error: SSHError) -> None:
        if isinstance(error, NodeKeyUnknown):  # administrators hear of it as of a login host's
            error = HostKeyChanged(error.detail, params={"login_host": str(error.params.get("node", ""))})
        if self._refused is not None and isinstance(error, (LoginRefused, HostKeyChanged)):
            await self._refused(cluster, username, error)

    async def recheck(
        self, clusters: Iterable[Cluster], may_connect: Callable[[Cluster, str], Awaitable[bool]]
    ) -> None:
        """Close the connections of users who may not have them any more: news of that may have been missed.

        What was adopted a moment ago is left alone: by what right it stays is being settled.
        """
        self._check_loop()
        known = {cluster.id: cluster for cluster in clusters}
        for (cluster_id, username, _node), place in list(self._places.items()):
            is_settled = place.adopted_at < time.monotonic() - _SETTLED_AFTER_SECONDS
            if cluster_id in known and is_settled and not await may_connect(known[cluster_id], username):
                await self.close_user(cluster_id, username)

    def health(self, cluster_id: str) -> Health:
        """What is open to this cluster, and what went wrong last. Answers from memory; safe from any
        thread.
        """
        places = [place for key, place in list(self._places.items()) if key[0] == cluster_id]
        living = [
            connection for place in places for connection in list(place.connections) if not connection.is_closed()
        ]
        back_off = self._clusters.get(cluster_id, _BackOff())
        return Health(
            connections=len(living),
            channels=sum(channels_of(connection).open for connection in living),
            failing_since=back_off.since,
            last_error=back_off.error,
            retry_in_seconds=back_off.wait_seconds if back_off.error else 0.0,
        )

    async def close_user(self, cluster_id: str, username: str) -> None:
        """Close this user's connections with every tunnel over them, and forget past failures."""
        self._check_loop()
        for key in [key for key in self._places if key[:2] == (cluster_id, username)]:
            place = self._places.pop(key)
            await _close(place.connections)
            place.connections.clear()

    async def aclose(self) -> None:
        """Close everything. The pool cannot be used again."""
        self._check_loop()
        self._closed = True
        for task in (self._sweeper, self._companion_task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._sweeper = self._companion_task = None
        await _close([connection for place in self._places.values() for connection in place.connections])
        self._places.clear()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("an SSH pool belongs to one event loop; make one pool per loop")
        if self._closed:
            raise Unreachable("the pool is closed")

    def _usable(self, place: _Place) -> asyncssh.SSHClientConnection | None:
        """The living connection with the fewest channels, unless all are crowded or left without answers."""
        place.connections[:] = [connection for connection in place.connections if not connection.is_closed()]
        answering = [c for c in place.connections if channels_of(c).unanswered < MOST_UNANSWERED]
        found = min(answering, key=lambda connection: channels_of(connection).open, default=None)
        if found is None or channels_of(found).open >= self._max_channels:
            return None
        channels_of(found).touch()
        return found

    def _make_room(self) -> None:
        """Close the idle connection that was used longest ago, if there are too many. Raises Unreachable
        if none is idle.
        """
        everything = [
            (channels_of(connection).used_at, place, connection)
            for place in self._places.values()
            for connection in place.connections
        ]
        if len(everything) + self._dialling < self._max_connections:
            return
        idle = [entry for entry in everything if not channels_of(entry[2]).open]
        if not idle:
            raise Unreachable(
                f"all {self._max_connections} SSH connections of this process are in use",
                code="ssh.too_many_connections",
            )
        _, place, connection = min(idle, key=lambda entry: entry[0])
        place.connections.remove(connection)
        connection.close()

    async def _sweep(self) -> None:
        """Drop what broke, close what nobody used for long, forget users who have nothing open."""
        while True:
            await asyncio.sleep(min(15.0, self._idle_seconds / 4))
            for key, place in list(self._places.items()):
                idle_seconds = min(self._idle_seconds, _NODE_IDLE_SECONDS) if key[2] else self._idle_seconds
                oldest = time.monotonic() - idle_seconds
                for connection in list(place.connections):
                    channels = channels_of(connection)
                    if connection.is_closed():
                        place.connections.remove(connection)
                    elif not channels.open and channels.used_at < oldest:
                        place.connections.remove(connection)
                        connection.close()
                if not place.connections and not place.lock.locked() and not place.back_off.wait_seconds:
                    del self._places[key]


async def _close(connections: Iterable[asyncssh.SSHClientConnection]) -> None:
    connections = list(connections)
    for connection in connections:
        connection.abort()
    for connection in connections:
        with contextlib.suppress(asyncssh.Error, OSError):
            await connection.wait_closed()
