"""The end of a session's log: from the cluster while the session lives, from the database afterwards.

Asked for by open pages every few seconds, so the answer is kept for a moment in the shared cache.
"""

from __future__ import annotations

from launcher.clusters import Cluster
from launcher.jobscript import LOG_NAME
from launcher.models import InteractiveSession
from launcher.parts import clusters, hands, hands_loop
from launcher.remember import remembered
from launcher.states import SessionState
from portal.errors import FootbridgeError

TAIL_BYTES = 16 * 1024
KEEP_SECONDS = 2
WAIT_SECONDS = 4


def log_of(session: InteractiveSession) -> str:
    """The last lines; empty when there are none yet or the cluster does not answer."""
    if session.state == SessionState.ENDED:
        return session.log_tail
    if not session.folder or session.started_at is None:
        return ""
    return remembered(f"log:{session.pk}", KEEP_SECONDS, lambda: _ask(session))


def _ask(session: InteractiveSession) -> str:
    cluster = clusters().get(session.cluster)
    if cluster is None:
        return ""
    try:
        return hands_loop().run(_tail(cluster, session), WAIT_SECONDS)
    except FootbridgeError:
        return ""


async def _tail(cluster: Cluster, session: InteractiveSession) -> str:
    async with hands().files(cluster, session.username, reason="log") as files:
        tail = await files.read_tail(f"{session.folder}/{LOG_NAME}", TAIL_BYTES)
    return tail.data.decode("utf-8", errors="replace").replace("\x00", "")
