"""News that access was taken away, from whoever took it to every web process: plain publish and subscribe on Valkey.

Not through the channel layer: it waits for all its readers of a process under one lock, up to five seconds a time, and
this news must arrive at once. It may be lost all the same; cached access runs out by itself a few seconds later.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import redis
import redis.asyncio
from django.conf import settings

CHANNEL = "footbridge:access"


@dataclass(frozen=True, slots=True)
class AccessDropped:
    """Forget what is cached of this session or this person, and close what they have open. Neither: of everybody."""

    session_id: str = ""
    user_id: int | None = None


@functools.cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.CONF.valkey_url, socket_timeout=5, socket_connect_timeout=5)


def publish(news: AccessDropped) -> None:
    """Tell every web process. Raises redis.RedisError when Valkey is away."""
    _client().publish(CHANNEL, json.dumps(asdict(news)))


async def listen() -> AsyncIterator[AccessDropped]:
    """The news as it comes, beginning with "of everybody", for what was missed before. Ends with redis.RedisError."""
    url = settings.CONF.valkey_url
    async with (
        redis.asyncio.Redis.from_url(url, socket_timeout=None, health_check_interval=30) as client,
        client.pubsub() as subscription,
    ):
        await subscription.subscribe(CHANNEL)
        yield AccessDropped()
        async for message in subscription.listen():
            if message["type"] == "message":
                yield AccessDropped(**json.loads(message["data"]))
