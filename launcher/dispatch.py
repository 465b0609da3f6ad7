"""Sends work to the workers and news to the browsers, after the transaction that caused it. Only ids travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
import structlog
from channels.layers import get_channel_layer
from django.core.cache import cache
from django.db import transaction

from launcher import revocation
from launcher.models import InteractiveSession
from launcher.ssh.loop import hands_loop

log = structlog.get_logger(__name__)

WATCHERS_GROUP = "watchers"
"""Open pages of administrators and auditors."""


def user_group(user_id: int) -> str:
    """The group of a person's open pages."""
    return f"user.{user_id}"


def submit(session_id: str, *, delay_seconds: float = 0) -> None:
    """Have a worker submit the session's job. Safe to ask twice: the submission itself is claimed."""
    from launcher import tasks

    transaction.on_commit(lambda: _send(tasks.submit, session_id, delay_seconds))


def cancel(session_id: str) -> None:
    """Have a worker cancel the session's job."""
    from launcher import tasks

    transaction.on_commit(lambda: _send(tasks.cancel, session_id, 0))


def extend(session_id: str) -> None:
    """Have a worker ask the scheduler again for an extension whose answer nobody knows."""
    from launcher import tasks

    transaction.on_commit(lambda: _send(tasks.extend, session_id, 0))


def mail(notice_id: int) -> None:
    """Have a worker send the notice by e-mail. Safe to ask twice: the sending itself is claimed."""
    from launcher import tasks

    transaction.on_commit(lambda: _send(tasks.mail, notice_id, 0))


def _send(task: Any, pk: str | int, delay_seconds: float) -> None:
    try:
        task.apply_async(args=[pk], countdown=delay_seconds or None, retry=False)
    except Exception as error:  # the broker is away: a later round finds the row again and sends it anew
        log.warning("broker_unreachable", row=pk, error=str(error))


def _next_poll_key(cluster_id: str) -> str:
    return f"poll:next:{cluster_id}"


def poll_soon(cluster_id: str) -> None:
    """Something changed: the next poll round of this cluster is due now."""
    transaction.on_commit(lambda: _hurry(cluster_id))


def _hurry(cluster_id: str) -> None:
    try:
        cache.delete(_next_poll_key(cluster_id))
    except redis.RedisError as error:  # the round comes a little later
        log.warning("poll_not_hurried", cluster=cluster_id, error=str(error))


def poll_again_in(cluster_id: str, seconds: float) -> None:
    """The next poll round of this cluster is due in so many seconds."""
    cache.set(_next_poll_key(cluster_id), 1, timeout=max(1, seconds))


def poll_is_due(cluster_id: str) -> bool:
    """Whether this cluster should be polled now."""
    return cache.get(_next_poll_key(cluster_id)) is None


def look_again_in(cluster_id: str, seconds: float) -> None:
    """The next round of looks at whether this cluster's sessions are used is due in so many seconds."""
    cache.set(f"activity:next:{cluster_id}", 1, timeout=max(1, seconds))


def look_is_due(cluster_id: str) -> bool:
    """Whether it is time to look whether this cluster's sessions are used."""
    return cache.get(f"activity:next:{cluster_id}") is None


def tell_browsers(*sessions: InteractiveSession) -> None:
    """Tell the owners' open pages, and those who watch all sessions, that these changed: one message for each group."""
    if not sessions:
        return
    states: dict[str, dict[str, str]] = {WATCHERS_GROUP: {}}
    for session in sessions:
        states[WATCHERS_GROUP][session.id] = str(session.state)
        if session.owner_id is not None:
            states.setdefault(user_group(session.owner_id), {})[session.id] = str(session.state)
    news = {group: {"type": "sessions.changed", "states": of_group} for group, of_group in states.items()}
    transaction.on_commit(lambda: _broadcast(news))


def tell_notice(session: InteractiveSession) -> None:
    """Tell the owner's open pages that there is something new to be told. What it is, they ask."""
    if session.owner_id is not None:
        group = user_group(session.owner_id)
        transaction.on_commit(lambda: _broadcast({group: {"type": "notice.made"}}))


def drop_access(*, session_id: str = "", user_id: int | None = None) -> None:
    """Tell every web process to forget what it cached of this session or person, and to close their open sockets."""
    transaction.on_commit(lambda: _publish(revocation.AccessDropped(session_id=session_id, user_id=user_id)))


def _publish(news: revocation.AccessDropped) -> None:
    try:
        revocation.publish(news)
    except redis.RedisError as error:  # access is re-checked every few seconds: the news may be lost
        log.warning("access_news_lost", error=str(error))


def drop_connections(cluster_id: str, username: str) -> None:
    """Have every process close its SSH connections of this account."""
    transaction.on_commit(lambda: _publish_connections(revocation.ConnectionsDropped(cluster_id, username)))


def _publish_connections(news: revocation.ConnectionsDropped) -> None:
    try:
        revocation.publish_connections(news)
    except redis.RedisError as error:  # every process checks its connections when it hears of Valkey again
        log.warning("connection_news_lost", error=str(error))


def _broadcast(news: Mapping[str, Mapping[str, object]]) -> None:
    """Send each group its message."""
    layer = get_channel_layer()

    async def send() -> None:
        for group, message in news.items():
            await layer.group_send(group, message)

    try:
        hands_loop().run(send(), 5)
    except Exception as error:  # pages also poll, and access is re-checked every few seconds: news may be lost
        log.warning("live_update_lost", error=str(error))
