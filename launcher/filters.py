"""What administrators can narrow their lists down to: sessions by who, where, how and when; people by who they are.

Texts are looked for anywhere in a column, which no index helps: live sessions are few, and so are people and the
sessions of a day.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import django_filters
from django import forms
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from launcher import selectors, wording
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters
from launcher.states import LIVE_STATES, SessionState
from portal.accounts.models import User
from portal.listfilter import DaysFilter, ListFilter

PAUSED = "paused"
"""No state of its own, but what people read of a running job that the cluster lets stand still."""


def _search_field() -> forms.TextInput:
    return forms.TextInput(
        attrs={"type": "search", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
    )


def _states(states: Iterable[SessionState]) -> list[tuple[str, str]]:
    """What the list calls these states of its sessions, and the one that people read instead of some."""
    return [*((state.value, wording.state_label(state)) for state in states), (PAUSED, wording.paused_label())]


class SessionFilter(DaysFilter[InteractiveSession]):
    """Live sessions or, with days, all that ran on one of them. ``owner`` has no field: links to one person's sessions
    set it, and it is exact.
    """

    text = django_filters.CharFilter(
        label=_("Account, title, host or job id"), method="filter_text", max_length=255, widget=_search_field()
    )
    state = django_filters.ChoiceFilter(label=_("State"), method="filter_state", empty_label=_("All states"))
    cluster = django_filters.ChoiceFilter(label=_("Cluster"), empty_label=_("All clusters"))
    app = django_filters.ChoiceFilter(label=_("App"), empty_label=_("All apps"))
    owner = django_filters.CharFilter(field_name="username", max_length=64, widget=forms.HiddenInput)

    class Meta(DaysFilter.Meta):
        model = InteractiveSession
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Clusters and apps are the configured ones, and those that some live session or one of the days still has, by
        their ids. Only with days there are sessions that have ended.
        """
        super().__init__(*args, queryset=selectors.everybodys_sessions(), **kwargs)
        self.filters["state"].extra["choices"] = _states(SessionState if self.asks_for_days else LIVE_STATES)
        used_clusters, used_apps = selectors.clusters_and_apps_of(self._of_interest())
        cluster_names = {cluster.id: cluster.name for cluster in clusters().values()}
        self._app_names = {app.id: wording.translated(app.name) for app in apps().values()}
        self.filters["cluster"].extra["choices"] = [*_with_ids(cluster_names, used_clusters).items()]
        self.filters["app"].extra["choices"] = [*_with_ids(self._app_names, used_apps).items()]

    def _of_interest(self) -> QuerySet[InteractiveSession]:
        everybodys = InteractiveSession.objects.all()
        return self.of_days(everybodys) if self.asks_for_days else selectors.live(everybodys)

    def filter_queryset(self, sessions: QuerySet[InteractiveSession]) -> QuerySet[InteractiveSession]:
        """Those that the form leaves, of what it is about; the newest first."""
        of_interest = selectors.last_begun_first(sessions) if self.has_days else selectors.live(sessions)
        found: QuerySet[InteractiveSession] = super().filter_queryset(of_interest)
        return found

    def not_before(self, sessions: QuerySet[InteractiveSession], moment: dt.datetime) -> QuerySet[InteractiveSession]:
        """See DaysFilter."""
        return selectors.running_after(sessions, moment)

    def before(self, sessions: QuerySet[InteractiveSession], moment: dt.datetime) -> QuerySet[InteractiveSession]:
        """See DaysFilter."""
        return selectors.running_before(sessions, moment)

    def filter_text(
        self, sessions: QuerySet[InteractiveSession], _name: str, text: str
    ) -> QuerySet[InteractiveSession]:
        """Those in which ``text`` occurs. A session without a title of its own is shown with its app's name."""
        folded = text.casefold()
        named_so = [app_id for app_id, name in self._app_names.items() if folded in name.casefold()]
        return sessions.filter(
            Q(username__icontains=text)
            | Q(title__icontains=text)
            | Q(title="", app__in=named_so)
            | Q(execution_host__icontains=text)
            | Q(job_id__icontains=text)
        )

    def filter_state(
        self, sessions: QuerySet[InteractiveSession], _name: str, state: str
    ) -> QuerySet[InteractiveSession]:
        """Those that the list shows in this state."""
        if state == PAUSED:
            return sessions.filter(selectors.PAUSED)
        return sessions.filter(state=state).exclude(selectors.PAUSED)


def _with_ids(names: dict[str, str], used: set[str]) -> dict[str, str]:
    """``names`` by id, and after them the ids in use that have none."""
    return names | {unnamed: unnamed for unnamed in sorted(used - names.keys())}


class PeopleFilter(ListFilter[User]):
    """Everybody who has signed in."""

    text = django_filters.CharFilter(
        label=_("Account, name or e-mail"), method="filter_text", max_length=254, widget=_search_field()
    )

    class Meta:
        model = User
        fields: list[str] = []

    def filter_text(self, people: QuerySet[User], _name: str, text: str) -> QuerySet[User]:
        """Those in which ``text`` occurs."""
        return people.filter(Q(username__icontains=text) | Q(display_name__icontains=text) | Q(email__icontains=text))
