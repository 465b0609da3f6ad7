"""How often a person's programs may ask: a budget a minute, counted in Valkey for all web processes together.

Counted by person, whichever of their tokens or browsers asks; requests that nobody can be named for, by address. A
minute's worth may come at once; after that they come evenly. While Valkey is away, each process counts by itself.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import OrderedDict

import redis
from django.conf import settings
from django.utils.translation import gettext as _
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from launcher.api.answers import ApiError
from launcher.turns import TAKE_SCRIPT
from portal.sparselog import SparseLog

PREFIX = "footbridge:api:"
ANSWER_SECONDS = 1.0
MOST_COUNTED = 10_000
"""Callers that a process counts by itself while Valkey is away."""

_log = SparseLog(logging.getLogger(__name__), level=logging.WARNING)


class TooOften(ApiError):
    """The budget of this minute is used up."""

    def __init__(self, wait_seconds: float) -> None:
        message = _("That is more than the portal answers in a minute. Wait a little, then go on more slowly.")
        super().__init__(429, "too_often", message, retry_seconds=max(1, round(wait_seconds + 0.5)))


def take_turn(caller: str) -> None:
    """Count one request of ``caller``, a person or an address. Raises TooOften."""
    per_minute: int = settings.CONF.api_requests_per_minute
    try:
        wait_seconds = _take_shared(caller, per_minute)
    except (RedisError, OSError) as error:
        _log.note(f"The API's requests are not counted together: {type(error).__name__}")
        wait_seconds = _own.take(caller, per_minute)
    if wait_seconds > 0:
        _log.note(f"Too many requests to the API by {caller.split(':', 1)[0]}s")
        raise TooOften(wait_seconds)


class OwnTurns:
    """The same count in this process alone."""

    def __init__(self) -> None:
        self._whole_at: OrderedDict[str, float] = OrderedDict()  # by caller: when the budget is whole again, monotonic
        self._lock = threading.Lock()

    def take(self, caller: str, per_minute: int) -> float:
        """How long to wait; 0 when the turn is given."""
        with self._lock:
            moment = time.monotonic()
            whole_at = max(self._whole_at.get(caller, 0.0), moment - 60) + 60 / per_minute
            if whole_at > moment:
                return whole_at - moment
            self._whole_at[caller] = whole_at
            self._whole_at.move_to_end(caller)
            if len(self._whole_at) > MOST_COUNTED:
                self._whole_at.popitem(last=False)
            return 0.0


_own = OwnTurns()


def _take_shared(caller: str, per_minute: int) -> float:
    minute = 60_000_000
    arguments = [minute // per_minute, minute, 0, 120_000, 2 * minute]
    given, wait = _script(settings.CONF.valkey_url)(keys=[PREFIX + caller], args=arguments)
    return 0.0 if int(given) else max(1, int(wait)) / 1_000_000


@functools.cache
def _script(url: str) -> redis.commands.core.Script:
    client = redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1),  # a Valkey that was started anew has dropped our connection
    )
    return client.register_script(TAKE_SCRIPT)
