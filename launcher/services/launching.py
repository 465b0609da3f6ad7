"""A launch: what the person may have, the new row."""

from __future__ import annotations

import math
from collections.abc import Mapping

from django.conf import settings
from django.db import transaction

from launcher import dispatch, sealing
from launcher.allowances import Held, reached
from launcher.catalog import App, LaunchChoices
from launcher.clusters import Cluster
from launcher.entitlements import entitlement_of
from launcher.models import InteractiveSession
from launcher.proxy.sites import path_of
from launcher.selectors import continuation_of
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


def refuse_above_limit(user: User, *, app: App, cluster: Cluster, continuing: InteractiveSession | None = None) -> None:
    """Raises LaunchRefused when ``user`` may not have a further session of ``app`` on ``cluster``.

    Its code is ``launch.limit_reached``, with the newest session that counts against this limit, or
    ``launch.none_allowed`` where the number is 0; ``params``: ``scope`` (``launcher.allowances.Scope``), ``allowed``
    and ``held``. The session that is to be continued does not stand in its continuation's way.
    """
    live = list(InteractiveSession.objects.filter(owner=user, state__in=LIVE_STATES).order_by("-created_at", "-id"))
    limit = reached(
        entitlement_of(user, app, cluster),
        [Held(session.pk, session.app, session.cluster, session.continues_id or "") for session in live],
        app=app.id,
        cluster=cluster.id,
        continuing=continuing.pk if continuing is not None else "",
    )
    if limit is None:
        return
    raise LaunchRefused(
        code="launch.limit_reached" if limit.in_the_way else "launch.none_allowed",
        params={"scope": limit.limit.scope.value, "allowed": limit.limit.sessions, "held": limit.held},
        existing=next((session for session in live if session.pk == limit.in_the_way), None),
    )


def limit_refusal(user: User, *, app: App, cluster: Cluster) -> LaunchRefused | None:
    """The refusal that a launch would meet now because of what the person may have."""
    try:
        refuse_above_limit(user, app=app, cluster=cluster)
    except LaunchRefused as refused:
        return refused
    return None


def _refuse_above_hours(user: User, app: App, cluster: Cluster, choices: LaunchChoices) -> None:
    """For choices that were checked when more was allowed, or that an earlier session was launched with."""
    most = entitlement_of(user, app, cluster).hours
    if most is not None and choices.walltime_seconds > math.ceil(most * 3600):
        raise LaunchRefused(code="launch.invalid", fields=(("hours", "hours.over_allowance", {"max": most}),))


def create_session(
    *,
    owner: User,
    app: App,
    cluster: Cluster,
    choices: LaunchChoices,
    address: str,
    continuing: InteractiveSession | None = None,
) -> InteractiveSession:
    """A new session in state ``submitting``; a worker is told after the commit.

    ``continuing``: the owner's session whose work it goes on with; where another one does already, that one is
    returned. Raises LaunchRefused as ``refuse_above_limit`` does, or at the field ``hours``; ValueError for somebody
    else's session. Two launches at once are put in order by a lock on the person's row.
    """
    if continuing is not None and continuing.owner_id != owner.pk:
        raise ValueError(f"{continuing.pk} is not a session of {owner.username}")
    with transaction.atomic():
        locked = User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        if continuing is not None:
            as_it_is_now = InteractiveSession.objects.get(pk=continuing.pk)
            if (going_on := continuation_of(as_it_is_now)) is not None:
                return going_on
        refuse_above_limit(locked, app=app, cluster=cluster, continuing=continuing)
        _refuse_above_hours(locked, app, cluster, choices)
        session = InteractiveSession(
            owner=locked,
            username=locked.username,
            cluster=cluster.id,
            app=app.id,
            title=choices.title,
            choices=choices.as_dict(),
            continues=continuing,
            created_at=now(),
            secret_encrypted=sealing.seal(ids.secret()),
        )
        if settings.CONF.session_addresses == "path":
            session.base_url = path_of(session.pk)
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
        if continuing is not None:
            event = events.SessionContinued(by=session.id)
            record(event, actor=locked.username, address=address, session_id=continuing.id)
            dispatch.tell_browsers(continuing)
        dispatch.submit(session.id)
        dispatch.tell_browsers(session)
    return session
