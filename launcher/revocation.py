"""News that access was taken away, from whoever took it to every process: plain publish and subscribe on Valkey.

Not through the channel layer: it waits for all its readers of a process under one lock, up to five seconds a time, and
this news must arrive at once. It may be lost all the same; cached access runs out by itself a few seconds later.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

CHANNEL = "footbridge:access"
CONNECTIONS_CHANNEL = "footbridge:connections"


@dataclass(frozen=True, slots=True)
class AccessDropped:
    """Forget what is cached of this session or this person, and close what they have open. Neither: of everybody."""

    session_id: str = ""
    user_id: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionsDropped:
    """Close every SSH connection of this account: what opened it was taken back. Empty: news may have been missed."""

    cluster: str = ""
    username: str = ""


@functools.cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.CONF.valkey_url, socket_timeout=5, socket_connect_timeout=5)


def publish(news: AccessDropped) -> None:
    """Tell every web process. Raises redis.RedisError when Valkey is away."""
    _client().publish(CHANNEL, json.dumps(asdict(news)))


def publish_connections(news: ConnectionsDropped) -> None:
    """Tell every process that has SSH connections. Raises redis.RedisError when Valkey is away."""
    _client().publish(CONNECTIONS_CHANNEL, json.dumps(asdict(news)))


async def listen() -> AsyncIterator[AccessDropped]:
    """The news as it comes, beginning with "of everybody", for what was missed before. Ends with redis.RedisError."""
    async with contextlib.aclosing(_messages(CHANNEL)) as messages:
        async for values in messages:
            yield AccessDropped(**values)


async def listen_for_connections() -> AsyncIterator[ConnectionsDropped]:
    """As ``listen``, for SSH connections: the first news is empty, for what was missed before."""
    async with contextlib.aclosing(_messages(CONNECTIONS_CHANNEL)) as messages:
        async for values in messages:
            yield ConnectionsDropped(**values)


async def _messages(channel: str) -> AsyncGenerator[dict[str, Any], None]:
    url = settings.CONF.valkey_url
    async with (
        redis.asyncio.Redis.from_url(url, socket_timeout=None, health_check_interval=30) as client,
        client.pubsub() as subscription,
    ):
        await subscription.subscribe(channel)
        yield {}
        async for message in subscription.listen():
            if message["type"] == "message":
                yield json.loads(message["data"])
