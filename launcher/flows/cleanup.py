"""Removes session folders from the users' homes some time after the end. A cluster that cannot be reached, or has left
the clusters file, holds nothing up: its folders stay and are tried again another day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import structlog

from launcher import services
from launcher.clusters import Cluster
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands, hands_loop
from launcher.ssh.errors import SSHError
from launcher.states import SessionState
from portal.clock import now

log = structlog.get_logger(__name__)

AT_A_TIME = 200
"""Folders of a cluster in one run; the rest comes with the next one."""

USER_SECONDS = 60


def clean_up() -> None:
    """Remove the folders that have been kept long enough, user by user."""
    for cluster in clusters().values():
        for username, sessions in _due(cluster).items():
            try:
                removed = hands_loop().run(_remove(cluster, username, sessions), USER_SECONDS)
            except SSHError as error:
                log.warning("folders_not_removed", cluster=cluster.id, user=username, error=error.code)
                continue
            for session_id in removed:
                services.record_folder_removed(session_id)


def _due(cluster: Cluster) -> dict[str, list[InteractiveSession]]:
    kept_until = now() - dt.timedelta(days=cluster.keep_folders_days)
    due: dict[str, list[InteractiveSession]] = {}
    rows = InteractiveSession.objects.filter(
        cluster=cluster.id,
        state=SessionState.ENDED,
        ended_at__isnull=False,  # as the index of these folders has it
        ended_at__lt=kept_until,
        folder_removed_at__isnull=True,
    )
    # in any order: folders that cannot be removed, of accounts that are closed, must not be all that is ever tried
    for session in rows.exclude(folder="").order_by("?")[:AT_A_TIME]:
        due.setdefault(session.username, []).append(session)
    return due


async def _remove(cluster: Cluster, username: str, sessions: Iterable[InteractiveSession]) -> list[str]:
    """Ids of the sessions whose folder is gone now. One that cannot be removed does not stop the others."""
    removed: list[str] = []
    async with hands().files(cluster, username, reason="clean-up") as files:
        root = f"{await files.home()}/{cluster.sessions_folder}"
        for session in sessions:
            try:
                await files.remove_tree(f"{root}/{session.id}", root=root)
            except SSHError as error:
                log.warning("folder_not_removed", session=session.id, error=error.code)
                continue
            removed.append(session.id)
    return removed
