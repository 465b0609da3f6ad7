"""Turns for commands on login hosts, counted in Valkey for the whole portal, and what was counted, for people to see.

One script does it all in one step and by Valkey's own clock: no process can count wrong because its clock is, and three
that ask at once get three different turns. Called by the hands on their loop; it knows sessions and users not at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from launcher.ssh.budget import LONGEST_WAIT_SECONDS, Turn, TurnsAway, burst_seconds

log = structlog.get_logger(__name__)

PREFIX = "footbridge:turns:"
ANSWER_SECONDS = 1.0
"""Valkey answers within a millisecond; a command does not wait for one that hangs."""
AWAY_SECONDS = 2.0
"""After a failure each process goes by its own count for so long before it asks Valkey again."""

_MICROSECONDS = 1_000_000
_KEEP_MILLISECONDS = 600_000

# KEYS[1]: one host's hash. ARGV: interval, burst and longest wait, all in microseconds; how long the hash is kept; how
# far away the end of what was given can be. Returns 1 or 0 (given or not) and the wait. ``tat``: when the budget will
# be whole again; further away than can be, it was written before Valkey's clock was set back, and means nothing.
# Commands, the time they waited and refusals are counted for this minute and the one before.
TAKE_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local row = redis.call('HMGET', KEYS[1], 'tat', 'minute', 'commands', 'waited', 'refused')
local before = tonumber(row[1]) or 0
if before > now + tonumber(ARGV[5]) then before = 0 end
local tat = math.max(before, now - burst) + interval
local wait = math.max(0, tat - now)
local given = wait <= longest
local minute = math.floor(clock[1] / 60)
local last = tonumber(row[2]) or 0
local commands, waited, refused = tonumber(row[3]) or 0, tonumber(row[4]) or 0, tonumber(row[5]) or 0
if minute ~= last then
  local is_next = minute == last + 1
  redis.call('HSET', KEYS[1], 'minute', minute, 'commands_before', is_next and commands or 0,
    'waited_before', is_next and string.format('%.0f', waited) or 0, 'refused_before', is_next and refused or 0)
  commands, waited, refused = 0, 0, 0
end
if given then
  redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat), 'commands', commands + 1,
    'waited', string.format('%.0f', waited + wait), 'refused', refused)
else
  redis.call('HSET', KEYS[1], 'commands', commands, 'waited', string.format('%.0f', waited), 'refused', refused + 1)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {given and 1 or 0, string.format('%.0f', wait)}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one login host was asked in the last minute: this minute's part, and the share of the one before."""

    commands: float = 0.0
    waited_seconds: float = 0.0  # by all commands together
    refused: float = 0.0  # commands that were not asked because the wait would have been too long


class SharedTurns:
    """See the module; a ``launcher.ssh.budget.Turns``. Belongs to the event loop that first uses it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: redis.asyncio.Redis | None = None
        self._away_until = 0.0  # monotonic seconds

    async def take(self, host: str, per_second: float, longest_wait_seconds: float) -> Turn:
        """See ``Turns``: one trip to Valkey."""
        if time.monotonic() < self._away_until:
            raise TurnsAway
        farthest = 2 * max(longest_wait_seconds, LONGEST_WAIT_SECONDS)  # twice: a longer wait may have been asked for
        seconds = (1 / per_second, burst_seconds(per_second), longest_wait_seconds)
        args = [*(round(value * _MICROSECONDS) for value in seconds), _KEEP_MILLISECONDS, farthest * _MICROSECONDS]
        try:
            given, wait = await self._script()(keys=[PREFIX + host], args=args)
        except (RedisError, OSError) as error:
            log.warning("turns_not_shared", host=host, error=str(error))
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise TurnsAway from error
        return Turn(is_given=bool(int(given)), wait_seconds=int(wait) / _MICROSECONDS)

    async def load(self, hosts: Sequence[str]) -> dict[str, Load]:
        """The last minute of each host. Raises TurnsAway."""
        try:
            client = self._connected()
            seconds, microseconds = await client.time()
            rows = [await client.hgetall(PREFIX + host) for host in hosts]
        except (RedisError, OSError) as error:
            raise TurnsAway from error
        at = seconds + microseconds / _MICROSECONDS
        return {host: _load(_texts(row), at) for host, row in zip(hosts, rows, strict=True)}

    async def aclose(self) -> None:
        """Close the connections to Valkey. Whoever asks again opens new ones."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            client, self._client = self._client, None
            await client.aclose()

    def _connected(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections of another loop cannot be used here
            self._loop = loop
            self._client = redis.asyncio.Redis.from_url(
                self._url,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 1),  # a Valkey that was started anew has dropped our connection
                decode_responses=True,
            )
            self._take = self._client.register_script(TAKE_SCRIPT)
        return self._client

    def _script(self) -> redis.commands.core.AsyncScript:
        self._connected()
        return self._take


def _texts(row: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """A hash as the client gives it, which was told to decode."""
    return {str(name): str(value) for name, value in row.items()}


def _load(row: dict[str, str], at: float) -> Load:
    """The last sixty seconds, taking the minute before as even."""
    minutes_ago = int(at // 60) - int(row.get("minute", 0))
    if minutes_ago > 1:
        return Load()
    rest = 1 - at % 60 / 60  # how much of the minute before lies within the last sixty seconds

    def amount(name: str) -> float:
        if minutes_ago:
            return rest * float(row.get(name, 0))
        return float(row.get(name, 0)) + rest * float(row.get(f"{name}_before", 0))

    return Load(amount("commands"), amount("waited") / _MICROSECONDS, amount("refused"))
