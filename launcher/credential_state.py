"""What the portal has to act as people on clusters, and what is wrong with it, for pages. Reads, never writes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from launcher import keyring
from launcher.clusters import Cluster, ClustersError
from launcher.models import EnrolledKey, InteractiveSession
from launcher.parts import clusters
from launcher.ssh.errors import KeyRefused, PasswordRefused
from portal.accounts.models import User

_REFUSED = frozenset({KeyRefused.code, PasswordRefused.code})


@dataclass(frozen=True, slots=True)
class AccountShown:
    """A person's account on a cluster that has no certificates, as pages show it."""

    cluster_id: str
    cluster_name: str
    credential: str
    is_connected: bool
    was_revoked: bool = False  # not connected, since its owner took the key back


@dataclass(frozen=True, slots=True)
class KeyShown:
    """A person's key on a cluster, as the profile page shows it."""

    pk: int
    cluster_name: str
    fingerprint: str
    enrolled_at: dt.datetime | None
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None


def keys_of(user: User) -> list[KeyShown]:
    """A person's keys on clusters: those in use, and those whose lines are still to be removed."""
    rows = EnrolledKey.objects.filter(owner=user, enrolled_at__isnull=False, removed_at__isnull=True)
    known = clusters()
    return [
        KeyShown(
            pk=key.pk,
            cluster_name=known[key.cluster].name if key.cluster in known else key.cluster,
            fingerprint=key.fingerprint,
            enrolled_at=key.enrolled_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )
        for key in rows.order_by("cluster", "-pk")
    ]


def connectable() -> dict[str, Cluster]:
    """The clusters on which people connect their accounts: on all others the portal's certificates do."""
    return {cluster.id: cluster for cluster in _known().values() if cluster.credential != "certificate"}


def accounts_of(username: str) -> list[AccountShown]:
    """The account on each of those clusters."""
    return [_account(cluster, username) for cluster in connectable().values()]


def unconnected(username: str, cluster_id: str | None = None, *, was_refused: bool = False) -> list[AccountShown]:
    """The account on this cluster, if the portal cannot act as it before it is connected; else nothing.

    ``cluster_id``: without, the one that sessions are launched on. ``was_refused``: the cluster has refused what the
    portal has.
    """
    cluster = connectable().get(cluster_id or next(iter(_known()), ""))
    account = _account(cluster, username) if cluster else None
    return [account] if account and (was_refused or not account.is_connected) else []


def to_connect_for(session: InteractiveSession) -> list[AccountShown]:
    """What its owner has to connect so that the portal can look after a session; also where the key is refused."""
    if not session.is_live:
        return []
    was_refused = session.unreachable_since is not None and session.unreachable_code in _REFUSED
    return unconnected(session.username, session.cluster, was_refused=was_refused)


def _account(cluster: Cluster, username: str) -> AccountShown:
    is_connected = can_act(cluster.id, username)
    revoked = EnrolledKey.objects.filter(cluster=cluster.id, username=username, revoked_at__isnull=False)
    return AccountShown(
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        credential=cluster.credential,
        is_connected=is_connected,
        was_revoked=not is_connected and cluster.credential == "enrolled-key" and revoked.exists(),
    )


def _known() -> dict[str, Cluster]:
    """The clusters; none while the clusters file is wrong, which pages must bear that need nothing of it."""
    try:
        return clusters()
    except ClustersError:
        return {}


def rejected_host_keys() -> list[tuple[str, str]]:
    """(cluster's name, login host) for every cluster that lately showed a key that is not the known one."""
    known = _known()
    found = keyring.rejected_host_keys(list(known))
    return [(known[cluster_id].name, login_host) for cluster_id, login_host in sorted(found.items())]


def can_act(cluster_id: str, username: str) -> bool:
    """Whether the portal has what it needs to act as this account; without, its owner has to connect it."""
    cluster = clusters().get(cluster_id)
    if cluster is None or cluster.credential == "certificate":
        return True
    if cluster.credential == "enrolled-key":
        return keyring.active_key(cluster_id, username) is not None
    return keyring.has_password(cluster_id, username)
