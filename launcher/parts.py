"""The parts of this process that are made once: clusters, apps, schedulers, the SSH pool. Made when first asked for."""

from __future__ import annotations

import asyncio
import functools
import random

import structlog
from django.conf import settings

from launcher import keyring, revocation
from launcher.catalog import App, load_apps
from launcher.clusters import Cluster, ClustersError, load_clusters
from launcher.schedulers import adapter
from launcher.schedulers.base import Scheduler
from launcher.ssh.ca import load_user_ca
from launcher.ssh.credentials import (
    CertificateCredential,
    Credential,
    EnrolledKeyCredential,
    StoredPasswordCredential,
)
from launcher.ssh.hands import Hands
from launcher.ssh.loop import hands_loop
from launcher.ssh.pool import Pool
from launcher.turns import SharedTurns

log = structlog.get_logger(__name__)
_random = random.SystemRandom()


@functools.cache
def clusters() -> dict[str, Cluster]:
    """Clusters by id, from the clusters file. Raises ClustersError."""
    return load_clusters(settings.CONF.clusters_file)


@functools.cache
def apps() -> dict[str, App]:
    """Apps by id, from the apps folders. Raises CatalogError."""
    return load_apps(settings.CONF.apps_folders)


_schedulers: dict[str, Scheduler] = {}


def scheduler_of(cluster_id: str) -> Scheduler:
    """The adapter that speaks to this cluster's scheduler."""
    if cluster_id not in _schedulers:
        cluster = clusters()[cluster_id]
        _schedulers[cluster_id] = adapter(cluster.scheduler, cluster.commands_folder)
    return _schedulers[cluster_id]


def keep_scheduler(cluster_id: str, scheduler: Scheduler) -> None:
    """Use this adapter from now on: the cluster's client lacks something that the first one relied on."""
    _schedulers[cluster_id] = scheduler


def forget() -> None:
    """Make everything anew: the files have changed. For tests."""
    clusters.cache_clear()
    _schedulers.clear()


def sign_in_cluster() -> Cluster:
    """The cluster whose password people sign in with. Raises ClustersError where the settings name one that is not."""
    known = clusters()
    chosen = settings.CONF.auth_cluster or next(iter(known))
    if chosen not in known:
        raise ClustersError(
            f"PORTAL_AUTH_CLUSTER names {chosen!r}, which is not in the clusters file; name one of: {', '.join(known)}"
        )
    return known[chosen]


@functools.cache
def _certificate() -> CertificateCredential:
    conf = settings.CONF
    return CertificateCredential(
        load_user_ca(conf.ca_key_path), portal_name=conf.site_name, source_addresses=conf.source_addresses
    )


_STORED: dict[str, Credential] = {
    "enrolled-key": EnrolledKeyCredential(keyring.find_key),
    "password": StoredPasswordCredential(keyring.borrow_password),
}


def credential_of(cluster: Cluster) -> Credential:
    """What lets the portal act as a user on this cluster."""
    return _STORED.get(cluster.credential) or _certificate()


def new_pool() -> Pool:
    """A pool of connections. It belongs to the event loop that first uses it."""
    return Pool(
        credential_of,
        refused=keyring.note_refusal,
        companion=_follow_news,
        fast_path=settings.CONF.ssh_fast_path,
    )


async def _follow_news(pool: Pool) -> None:
    """Close what was taken back, wherever that was done. While no news can come, all is checked again and again."""
    while True:
        try:
            async for news in revocation.listen_for_connections():
                if news.username:
                    await pool.close_user(news.cluster, news.username)
                else:
                    await _recheck(pool)
        except Exception as error:  # whatever it is: news must be heard again
            log.warning("connection_news_interrupted", error=str(error))
            await asyncio.sleep(_random.uniform(1, 2))  # jitter: not all processes at once


async def _recheck(pool: Pool) -> None:
    revocable = [cluster for cluster in clusters().values() if cluster.credential != "certificate"]
    await pool.recheck(revocable, keyring.may_connect)


@functools.cache
def shared_turns() -> SharedTurns:
    """The portal's count of commands on login hosts; it lives on the loop thread."""
    return SharedTurns(settings.CONF.valkey_url)


@functools.cache
def hands() -> Hands:
    """The hands of this process for synchronous callers; they live on the loop thread (``hands_loop``)."""
    return Hands(new_pool(), shared_turns())


__all__ = [
    "apps",
    "clusters",
    "credential_of",
    "forget",
    "hands",
    "hands_loop",
    "keep_scheduler",
    "new_pool",
    "scheduler_of",
    "shared_turns",
    "sign_in_cluster",
]
