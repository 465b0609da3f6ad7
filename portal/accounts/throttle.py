"""Holds back guessing: a few wrong tries, then nobody is asked for a while. Counted in Valkey for all web processes.

The window slides: each try counts for ten minutes from its own moment, by Valkey's clock. A try is counted before it is
judged, or many at once would all pass; one that nobody could judge is given back, a right one clears the slate. Refused
tries count nowhere, so whoever goes on trying is not kept out longer than somebody who waits.

An account's tries count together wherever they come from. This lets a stranger keep an account's owner out for as long
as the guessing goes on, and is the choice all the same: tries counted by address would let a stranger with many of
them lock the account at the cluster itself, for everything and until somebody there unlocks it.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from portal.addresses import network_of
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 600
ADDRESS_FACTOR = 10
"""Several people may share an address, so it may fail this many times as often as one account."""
PREFIX = "footbridge:tries:"
ANSWER_SECONDS = 2.0

# KEYS: the counters, then one key for "somebody was told", for each counter. ARGV: this try, the window in
# microseconds, then how many tries each counter allows. Returns whether the try is given, and if not, whether it is the
# first refusal since the window of that counter filled up.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local counters = #KEYS / 2
local window = tonumber(ARGV[2])
for i = 1, counters do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now - window))
  redis.call('ZREMRANGEBYSCORE', KEYS[i], string.format('(%.0f', now), '+inf')
end
for i = 1, counters do
  if redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[2 + i]) then
    local oldest = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
    local rest = math.max(1, math.ceil((tonumber(oldest) + window - now) / 1000))
    local first = redis.call('SET', KEYS[counters + i], '1', 'NX', 'PX', string.format('%.0f', rest))
    return {0, first and 1 or 0}
  end
end
for i = 1, counters do
  redis.call('ZADD', KEYS[i], string.format('%.0f', now), ARGV[1])
  redis.call('PEXPIRE', KEYS[i], string.format('%.0f', window / 1000))
end
return {1, 0}
"""


class ThrottleAway(FootbridgeError):
    """Nobody can count now, so nothing may be tried."""

    code = "sign_in.cannot_count"
    transient = True


class Counter(NamedTuple):
    """What is counted, and how many tries it allows in a window."""

    key: str
    allowed: int


def counter(kind: str, value: str, allowed: int) -> Counter:
    """A counter for one account, address or person. The value itself is not kept, it may be anything."""
    return Counter(f"{PREFIX}{kind}:{hashlib.sha256(value.encode(errors='replace')).hexdigest()}", allowed)


@dataclass(frozen=True, slots=True)
class Try:
    """One try, counted or refused."""

    counters: Sequence[Counter]
    id: str
    granted: bool  # it may be judged
    is_first_refusal: bool  # worth an entry in the log; those after it are not

    def give_back(self) -> None:
        """Nobody could judge it: it was none."""
        _forgiving(lambda: [_client().zrem(each.key, self.id) for each in self.counters])

    def was_right(self) -> None:
        """Clear the first counter, and take this try off the others."""
        first, *others = self.counters
        _forgiving(lambda: [_client().delete(first.key), *(_client().zrem(each.key, self.id) for each in others)])


def take(*counters: Counter) -> Try:
    """Count a try. Raises ThrottleAway."""
    name = secrets.token_hex(8)
    keys = [each.key for each in counters] + [f"{each.key}:told" for each in counters]
    try:
        given, first = _script()(
            keys=keys, args=[name, WINDOW_SECONDS * 1_000_000, *(each.allowed for each in counters)]
        )
    except (RedisError, OSError) as error:
        raise ThrottleAway(str(error)) from error
    return Try(counters, name, granted=bool(given), is_first_refusal=bool(first))


def take_sign_in(username: str, address: str, allowed: int) -> Try:
    """Count a sign-in of an account from an address. Raises ThrottleAway."""
    place = counter("address", network_of(address), allowed * ADDRESS_FACTOR)
    return take(counter("account", username.lower(), allowed), place)


def forget(one: Counter) -> None:
    """Start to count anew."""
    _forgiving(lambda: _client().delete(one.key))


def _forgiving(act: Callable[[], object]) -> None:
    """The person is right already: a count that stays is a nuisance of ten minutes, an error would be worse."""
    try:
        act()
    except (RedisError, OSError) as error:
        log.warning("tries_not_forgotten", error=str(error))


@functools.cache
def _client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1),  # a Valkey that was started anew has dropped our connection
    )


def _client() -> redis.Redis:
    return _client_of(settings.CONF.valkey_url)


def _script() -> redis.commands.core.Script:
    return _client().register_script(_TAKE)
