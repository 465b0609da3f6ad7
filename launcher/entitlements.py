"""What a person may have, from the records, the settings and the files: where the pure rule gets its facts.

Forms, API and services ask here, so that what is shown and what is enforced are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.db.models import OuterRef, Q, QuerySet, Subquery

from launcher import selectors
from launcher.allowances import Entitlement, Entry, SiteRule, entitlement
from launcher.catalog import App
from launcher.clusters import Cluster
from launcher.models import Allowance
from portal.accounts.models import User


def entries_of(user: User) -> Sequence[Entry]:
    """All that administrators allow ``user``, a member of the groups known since the last sign-in."""
    rows = Allowance.objects.filter(Q(user=user) | Q(group__in=_groups_of(user)))
    return [Entry(row.group, row.app, row.cluster, row.sessions, row.hours) for row in rows]


def entitlement_of(user: User, app: App, cluster: Cluster, entries: Sequence[Entry] | None = None) -> Entitlement:
    """What ``user`` may have of ``app`` on ``cluster``. ``entries``: from ``entries_of``, where many are asked for."""
    return entitlement(
        entries_of(user) if entries is None else entries,
        groups=_groups_of(user),
        app=app.id,
        cluster=cluster.id,
        site=SiteRule(
            sessions=settings.CONF.sessions_per_user,
            app_sessions=app.sessions_per_user,
            cluster_sessions=cluster.sessions_per_user,
            hours=settings.CONF.hours_per_session,
        ),
    )


def _groups_of(user: User) -> list[str]:
    return [group for group in user.groups_on_cluster if isinstance(group, str) and group]


def allowances() -> QuerySet[Allowance]:
    """All that administrators have allowed: persons by name, then groups."""
    return Allowance.objects.select_related("user").order_by("group", "user__username", "app", "cluster")


def people_with_numbers() -> QuerySet[User]:
    """Everybody who has signed in, each with ``sessions_allowed``: the number set for all their sessions together."""
    own = Allowance.objects.filter(user=OuterRef("pk"), app="", cluster="")
    return selectors.people().annotate(sessions_allowed=Subquery(own.values("sessions")[:1]))
