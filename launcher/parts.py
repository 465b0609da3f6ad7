"""The parts of this process that are made once: clusters, apps, schedulers, the SSH pool. Made when first asked for."""

from __future__ import annotations

import functools

from django.conf import settings

from launcher.catalog import App, load_apps
from launcher.clusters import Cluster, load_clusters
from launcher.schedulers import adapter
from launcher.schedulers.base import Scheduler
from launcher.ssh.ca import load_user_ca
from launcher.ssh.credentials import CertificateCredential, Credential
from launcher.ssh.hands import Hands
from launcher.ssh.loop import hands_loop
from launcher.ssh.pool import Pool
from launcher.turns import SharedTurns


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


@functools.cache
def _certificate() -> CertificateCredential:
    return CertificateCredential(load_user_ca(settings.CONF.ca_key_path), portal_name=settings.CONF.site_name)


def credential_of(cluster: Cluster) -> Credential:
    """What lets the portal act as a user on this cluster."""
    return _certificate()


def new_pool() -> Pool:
    """A pool of connections. It belongs to the event loop that first uses it."""
    return Pool(credential_of)


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
]
