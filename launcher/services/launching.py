"""A launch: the person's limit, the new row."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.db import transaction

from launcher import dispatch, sealing
from launcher.catalog import App, LaunchChoices
from launcher.clusters import Cluster
from launcher.models import InteractiveSession
from launcher.states import LIVE_STATES
from portal import ids
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now
from portal.errors import FootbridgeError


class LaunchRefused(FootbridgeError):
    """A launch that cannot be granted.

    ``fields``: (field, code, params) for every wrong value. ``existing``: the session that stands in the way.
    """

    code = "launch.refused"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "",
        params: Mapping[str, object] | None = None,
        fields: tuple[tuple[str, str, Mapping[str, object]], ...] = (),
        existing: InteractiveSession | None = None,
    ) -> None:
        super().__init__(detail, code=code, params=params)
        self.fields = fields
        self.existing = existing


def refuse_above_limit(user: User) -> None:
    """Raises LaunchRefused with code ``launch.limit_reached`` and the newest session when no further one is allowed."""
    live = InteractiveSession.objects.filter(owner=user, state__in=LIVE_STATES).order_by("-created_at")
    allowed = user.sessions_allowed if user.sessions_allowed is not None else settings.CONF.sessions_per_user
    if live.count() >= allowed:
        raise LaunchRefused(code="launch.limit_reached", params={"allowed": allowed}, existing=live.first())


def limit_refusal(user: User) -> LaunchRefused | None:
    """The refusal that a launch would meet now because of the person's limit."""
    try:
        refuse_above_limit(user)
    except LaunchRefused as refused:
        return refused
    return None


def create_session(
    *, owner: User, app: App, cluster: Cluster, choices: LaunchChoices, address: str
) -> InteractiveSession:
    """A new session in state ``submitting``; a worker is told after the commit.

    Raises LaunchRefused as ``refuse_above_limit`` does. Two launches at once are put in order by a lock on the
    person's row.
    """
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=owner.pk)
        refuse_above_limit(locked)
        session = InteractiveSession(
            owner=locked,
            username=locked.username,
            cluster=cluster.id,
            app=app.id,
            title=choices.title,
            choices=choices.as_dict(),
            created_at=now(),
            secret_encrypted=sealing.seal(ids.secret()),
        )
        session.full_clean()
        session.save(force_insert=True)
        record(
            events.SessionLaunched(
                app=app.id,
                cluster=cluster.id,
                title=choices.title,
                cores=choices.cores,
                memory_mib=choices.memory_mib,
                walltime_seconds=choices.walltime_seconds,
                gpus=choices.gpus,
                queue=choices.queue,
            ),
            actor=locked.username,
            address=address,
            session_id=session.id,
        )
        dispatch.submit(session.id)
        dispatch.tell_browsers(session)
    return session
