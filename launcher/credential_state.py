"""What the portal has to act as people on clusters, and what is wrong with it, for pages. Reads, never writes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from launcher import keyring
from launcher.clusters import ClustersError
from launcher.models import EnrolledKey
from launcher.parts import clusters
from portal.accounts.models import User


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


def rejected_host_keys() -> list[tuple[str, str]]:
    """(cluster's name, login host) for every cluster that lately showed a key that is not the known one."""
    try:
        known = clusters()
    except ClustersError:  # every page of an administrator shows this, and none may fail for it
        return []
    found = keyring.rejected_host_keys(list(known))
    return [(known[cluster_id].name, login_host) for cluster_id, login_host in sorted(found.items())]


def can_act(cluster_id: str, username: str) -> bool:
    """Whether the portal has what it needs to act as this account; without, its owner has to sign in again."""
    cluster = clusters().get(cluster_id)
    if cluster is None or cluster.credential == "certificate":
        return True
    if cluster.credential == "enrolled-key":
        return keyring.active_key(cluster_id, username) is not None
    return keyring.has_password(cluster_id, username)
