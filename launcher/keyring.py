"""What the portal keeps to act as a user where it has no certificates: enrolled keys, and passwords of the signed in.

Read by the SSH pools of every process while they connect. An enrolled key lies sealed in the database. A password is
in two halves: encrypted in the shared cache, and the key to it sealed in the database, so that neither of them, nor a
backup of both, gives it away without the portal's own key; losing either half is enough to be rid of it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from channels.db import database_sync_to_async
from cryptography.fernet import Fernet, InvalidToken
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from redis import RedisError

from launcher import sealing
from launcher.clusters import Cluster
from launcher.models import EnrolledKey, KeptPassword
from launcher.ssh.credentials import LentPassword
from launcher.ssh.errors import HostKeyChanged, SSHError
from portal import ids
from portal.accounts.models import WebSession
from portal.audit import events
from portal.audit.services import record, record_once
from portal.clock import now

log = structlog.get_logger(__name__)

T = TypeVar("T")

PORTAL_ITSELF = "portal"
LAST_USED_SECONDS = 300
"""A key's last use is noted so often at most."""
TURN_SECONDS = 30
"""A login with a kept password that neither succeeds nor is refused holds the others up for so long at most."""
HOST_KEY_SECONDS = 3600
"""A wrong host key is shown to administrators for so long after it was last met."""


async def _aside(function: Callable[..., T], *arguments: object) -> T:
    """Run what waits for the database or the cache, off the event loop."""
    result: T = await database_sync_to_async(function, thread_sensitive=False)(*arguments)
    return result


async def may_connect(cluster: Cluster, username: str) -> bool:
    """Whether what opened the connections of this account has not been taken back since."""
    return await _aside(_may_connect, cluster, username)


def _may_connect(cluster: Cluster, username: str) -> bool:
    if cluster.credential == "enrolled-key":
        return active_key(cluster.id, username) is not None
    # not the cache: where that has lost the password, nobody has taken it back
    return cluster.credential == "certificate" or bool(_passwords(cluster.id, username))


# enrolled keys


def active_key(cluster_id: str, username: str) -> EnrolledKey | None:
    """The key that the portal uses for this account."""
    return EnrolledKey.objects.filter(
        cluster=cluster_id, username=username, revoked_at__isnull=True, enrolled_at__isnull=False
    ).first()


async def find_key(cluster_id: str, username: str) -> str | None:
    """The private half of the account's key, for a login; its use is noted."""
    return await _aside(_find_key, cluster_id, username)


def _find_key(cluster_id: str, username: str) -> str | None:
    key = active_key(cluster_id, username)
    if key is None:
        return None
    before = now() - dt.timedelta(seconds=LAST_USED_SECONDS)
    EnrolledKey.objects.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lt=before), pk=key.pk).update(
        last_used_at=now()
    )
    try:
        return sealing.unseal(key.private_key_encrypted)
    except sealing.NoKeyFits:
        log.error("enrolled_key_without_key", cluster=cluster_id, user=username)
        return None


# passwords of people who are signed in


def keep_password(
    *, cluster_id: str, username: str, password: str, web_session_key: str, seconds: int, address: str
) -> None:
    """Keep ``password`` until this portal session is signed out, at most for ``seconds``, in place of the last one.

    Nothing is kept where the session is signed out already.
    """
    session = sealing.digest(web_session_key)
    key = Fernet.generate_key()
    cache_key = f"password:{ids.random_name(32)}"
    cache.set(cache_key, Fernet(key).encrypt(password.encode()), seconds)
    moment = now()
    with transaction.atomic():
        # Locked: a sign-out at this moment either sees what is kept here, or is seen.
        if not WebSession.objects.select_for_update(no_key=True).filter(key_digest=session):
            return
        kept = KeptPassword.objects.create(
            username=username,
            cluster=cluster_id,
            cache_key=cache_key,
            key_encrypted=sealing.seal(key.decode()),
            web_session_digest=session,
            created_at=moment,
            expires_at=moment + dt.timedelta(seconds=seconds),
        )
        record(events.PasswordKept(cluster=cluster_id), actor=username, address=address)
    drop_passwords(Q(cluster=cluster_id, username=username, web_session_digest=session) & ~Q(pk=kept.pk))


def has_password(cluster_id: str, username: str) -> bool:
    """Whether somebody is signed in with this account's password."""
    return any(cache.get(row.cache_key) is not None for row in _passwords(cluster_id, username))


def _passwords(cluster_id: str, username: str) -> list[KeptPassword]:
    """Newest first: after a change of password, the one that was typed last is right."""
    rows = KeptPassword.objects.filter(cluster=cluster_id, username=username, expires_at__gt=now())
    return list(rows.order_by("-created_at", "-pk"))


def drop_passwords(rows: Q) -> list[tuple[str, str]]:
    """Throw these away, both halves. Returns the accounts, as (cluster, username), that have no other one."""
    with transaction.atomic():
        found = list(KeptPassword.objects.filter(rows))
        KeptPassword.objects.filter(pk__in=[row.pk for row in found]).delete()
    try:
        cache.delete_many([row.cache_key for row in found])
    except RedisError:  # what lies there is unreadable from now on, and runs out by itself
        log.warning("password_left_in_cache", passwords=len(found))
    accounts = sorted({(row.cluster, row.username) for row in found})
    return [account for account in accounts if not _passwords(*account)]


async def borrow_password(cluster: Cluster, username: str) -> LentPassword | None:
    """The account's password for one login, when no other process is trying it at this moment.

    One at a time, so that a password that has become wrong meets the cluster's lockout once, not once a process.
    """
    turn = _turn(cluster.id, username)
    deadline = time.monotonic() + TURN_SECONDS
    while not await _aside(cache.add, turn, 1, TURN_SECONDS) and time.monotonic() < deadline:  # noqa: ASYNC110 - another process has it
        await asyncio.sleep(0.1)
    password = await _aside(_find_password, cluster.id, username)
    if password is None:
        await _aside(cache.delete, turn)
        return None
    loop = asyncio.get_running_loop()
    return LentPassword(password, accepted=lambda: _forget_soon(loop, turn))


def _forget_soon(loop: asyncio.AbstractEventLoop, turn: str) -> None:
    loop.run_in_executor(None, _give_turn, turn)


def _give_turn(turn: str) -> None:
    try:
        cache.delete(turn)
    except RedisError:
        log.info("turn_runs_out", turn=turn)  # by itself


def _turn(cluster_id: str, username: str) -> str:
    return f"password-turn:{cluster_id}:{sealing.digest(username)}"


def _find_password(cluster_id: str, username: str) -> str | None:
    for row in _passwords(cluster_id, username):
        sealed = cache.get(row.cache_key)
        try:
            if sealed is not None:
                return Fernet(sealing.unseal(row.key_encrypted)).decrypt(sealed).decode()
        except (InvalidToken, sealing.NoKeyFits):
            log.error("kept_password_without_key", cluster=cluster_id, user=username)
    return None


# what login hosts say


async def note_refusal(cluster: Cluster, username: str, error: SSHError) -> None:
    """Keep that a login host refused, or is not the one we know. Never fails: the refusal itself matters more."""
    try:
        await _aside(record_refusal, cluster, username, error)
    except Exception:
        log.exception("refusal_not_recorded", cluster=cluster.id, user=username)


def record_refusal(cluster: Cluster, username: str, error: SSHError) -> None:
    """As ``note_refusal``. A refused password is thrown away before anybody can try it again."""
    if isinstance(error, HostKeyChanged):
        record_host_key_rejected(cluster.id, error)
        return
    if error.code in ("ssh.not_enrolled", "ssh.no_password", "ssh.bad_username"):
        return  # no login host was asked
    if cluster.credential == "password":
        drop_passwords(Q(cluster=cluster.id, username=username))
        _give_turn(_turn(cluster.id, username))
    with transaction.atomic():
        record_once(
            events.CredentialRefused(cluster=cluster.id, credential=cluster.credential, cause=error.code),
            actor=username,
        )


def record_host_key_rejected(cluster_id: str, error: HostKeyChanged) -> None:
    """A login host was not the one we know. Kept once an hour; administrators see it on every page meanwhile."""
    login_host = str(error.params.get("login_host", ""))
    try:
        cache.set(f"host-key:{cluster_id}", login_host, HOST_KEY_SECONDS)
    except RedisError:
        log.warning("host_key_not_shown", cluster=cluster_id)
    with transaction.atomic():
        record_once(
            events.HostKeyRejected(cluster=cluster_id, login_host=login_host), actor=PORTAL_ITSELF, every_seconds=3600
        )


def host_key_accepted(cluster_id: str) -> None:
    """The cluster answered again."""
    try:
        cache.delete(f"host-key:{cluster_id}")
    except RedisError:
        log.info("host_key_shown_longer", cluster=cluster_id)


def rejected_host_keys(cluster_ids: list[str]) -> dict[str, str]:
    """Login hosts that lately showed a wrong key, by cluster. Nothing where the cache is away."""
    try:
        found = cache.get_many([f"host-key:{cluster_id}" for cluster_id in cluster_ids])
    except RedisError:
        return {}
    return {key.removeprefix("host-key:"): str(login_host) for key, login_host in found.items()}
