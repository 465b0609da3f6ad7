"""How many sessions a person may have at a time, and for how many hours each. Pure: entries in, limits out.

A launch is judged in four scopes: all sessions together, those on its cluster, those of its app, those of its app on
its cluster. In each scope an entry for the person counts before entries for groups, the most generous group's before
the site's own rule. A launch must pass every scope that says something: a narrow limit comes on top of a wide one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

MOST_SESSIONS = 1000
MOST_HOURS = 24 * 366
LEAST_HOURS = 0.05
"""What an administrator can write at all. Less than three minutes is too short for any app."""


class Scope(enum.StrEnum):
    """Which sessions a limit counts; narrowest first."""

    APP_ON_CLUSTER = "app_on_cluster"
    APP = "app"
    CLUSTER = "cluster"
    ALL = "all"

    @property
    def of_app(self) -> bool:
        """Whether only sessions of one app count."""
        return self in (Scope.APP, Scope.APP_ON_CLUSTER)

    @property
    def on_cluster(self) -> bool:
        """Whether only sessions on one cluster count."""
        return self in (Scope.CLUSTER, Scope.APP_ON_CLUSTER)


@dataclass(frozen=True, slots=True)
class Entry:
    """What an administrator allowed. Without ``group`` it is about the person; without ``app`` and ``cluster`` about
    all sessions. A number that is ``None`` says nothing."""

    group: str = ""
    app: str = ""
    cluster: str = ""
    sessions: int | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class SiteRule:
    """What counts where no entry says something else: settings, the clusters file, the app's file."""

    sessions: int
    app_sessions: int | None = None
    cluster_sessions: int | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many sessions at a time in this scope."""

    scope: Scope
    sessions: int


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What one person may have of one app on one cluster.

    ``limits``: narrowest first, all of which hold. ``hours``: the most that one session may ask for beside what queue
    and app allow; ``None``: those alone count.
    """

    limits: tuple[Limit, ...]
    hours: float | None

    def sessions(self, scope: Scope) -> int | None:
        """The most sessions in this scope; ``None``: it has no limit of its own."""
        return next((limit.sessions for limit in self.limits if limit.scope is scope), None)


def entitlement(
    entries: Collection[Entry], *, groups: Collection[str], app: str, cluster: str, site: SiteRule
) -> Entitlement:
    """What the rule gives a member of ``groups``. Entries for other groups, apps and clusters are passed over.

    Entries without a group are taken for the person's own: the caller leaves out everybody else's.
    """
    sessions_of_site = {
        Scope.ALL: site.sessions,
        Scope.CLUSTER: site.cluster_sessions,
        Scope.APP: site.app_sessions,
        Scope.APP_ON_CLUSTER: None,
    }
    limits: list[Limit] = []
    hours: list[float] = []
    for scope in Scope:
        wanted = (app if scope.of_app else "", cluster if scope.on_cluster else "")
        here = [entry for entry in entries if (entry.app, entry.cluster) == wanted]
        sessions = _deciding(here, groups, lambda entry: entry.sessions)
        allowed = int(sessions) if sessions is not None else sessions_of_site[scope]
        if allowed is not None:
            limits.append(Limit(scope, allowed))
        most = _deciding(here, groups, lambda entry: entry.hours)
        if most is None and scope is Scope.ALL:
            most = site.hours
        if most is not None:
            hours.append(most)
    return Entitlement(limits=tuple(limits), hours=min(hours, default=None))


def _deciding(
    entries: Collection[Entry], groups: Collection[str], number: Callable[[Entry], float | None]
) -> float | None:
    """The person's number, else the largest of their groups'; ``None`` when nobody wrote one."""
    own = [value for entry in entries if not entry.group and (value := number(entry)) is not None]
    of_groups = [value for entry in entries if entry.group in groups and (value := number(entry)) is not None]
    return max(own or of_groups, default=None)


@dataclass(frozen=True, slots=True)
class Held:
    """A session that has not ended. ``continues``: the id of the one whose work it goes on with."""

    id: str
    app: str
    cluster: str
    continues: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit that leaves no room. ``held``: how many sessions of its scope there are. ``in_the_way``: the newest that
    counts against it; empty when stopping one would not help, because nothing is allowed at all."""

    limit: Limit
    held: int
    in_the_way: str


def reached(
    entitled: Entitlement, held: Sequence[Held], *, app: str, cluster: str, continuing: str = ""
) -> Reached | None:
    """The limit that a launch of ``app`` on ``cluster`` would break, if any; ``held`` is newest first.

    The narrowest is named: a session that is stopped there makes room in the wider scopes, too. ``continuing``: the id
    of the session whose work the new one is to go on with, which then does not count; see ``_beside``.
    """
    for limit in reversed(entitled.limits):
        if limit.sessions == 0:
            return Reached(limit, held=len(_within(held, limit.scope, app, cluster)), in_the_way="")
    free = _beside(held, continuing)
    for limit in entitled.limits:
        within = _within(held, limit.scope, app, cluster)
        counted = [session for session in within if session.id not in free]
        if len(counted) >= limit.sessions:
            return Reached(limit, held=len(within), in_the_way=counted[0].id)
    return None


def _within(held: Sequence[Held], scope: Scope, app: str, cluster: str) -> list[Held]:
    return [
        session
        for session in held
        if (not scope.of_app or session.app == app) and (not scope.on_cluster or session.cluster == cluster)
    ]


def _beside(held: Sequence[Held], continuing: str) -> frozenset[str]:
    """Sessions that do not count when ``continuing`` is continued: itself, and others that are continued already.

    One continuation may stand beside its predecessor, nothing more: a session that already has a live continuation
    cannot have a second one this way, nor can a continuation be continued while its own predecessor still runs. An
    ordinary launch counts everything.
    """
    live = {session.id for session in held}
    continued = {session.continues for session in held} & live
    continuations = {session.id for session in held if session.continues in live}
    if continuing not in live or continuing in continued | continuations:
        return frozenset()
    return frozenset((continued - continuations) | {continuing})
