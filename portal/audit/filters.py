"""What an auditor can narrow the log down to: kind of event, person, session, days."""

from __future__ import annotations

import datetime as dt

import django_filters
from django import forms
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.audit.events import REGISTRY
from portal.audit.models import AuditEvent
from portal.listfilter import ListFilter


def _kinds() -> list[tuple[str, object]]:
    """Every event, by what people call it."""
    return sorted(((name, event.LABEL) for name, event in REGISTRY.items()), key=lambda pair: str(pair[1]))


def _start_of(day: dt.date) -> dt.datetime:
    """The first moment of ``day`` where the reader is."""
    return timezone.make_aware(dt.datetime.combine(day, dt.time.min))


class AuditFilter(ListFilter[AuditEvent]):
    """All filters are exact, so that each can use an index. Days are the reader's, both included."""

    name = django_filters.ChoiceFilter(label=_("Event"), choices=_kinds, empty_label=_("All events"))
    actor = django_filters.CharFilter(label=_("Person"), max_length=64)
    session = django_filters.CharFilter(label=_("Session"), field_name="session_id", max_length=32)
    since = django_filters.DateFilter(
        label=_("From"),
        method="filter_since",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    until = django_filters.DateFilter(
        label=_("To"),
        method="filter_until",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )

    class Meta:
        model = AuditEvent
        fields: list[str] = []

    def filter_since(self, events: QuerySet[AuditEvent], _name: str, day: dt.date) -> QuerySet[AuditEvent]:
        """Events on ``day`` and later."""
        return events.filter(at__gte=_start_of(day))

    def filter_until(self, events: QuerySet[AuditEvent], _name: str, day: dt.date) -> QuerySet[AuditEvent]:
        """Events on ``day`` and before."""
        if day >= dt.date.max - dt.timedelta(days=2):
            return events  # the day after the calendar's last does not exist
        return events.filter(at__lt=_start_of(day + dt.timedelta(days=1)))

    @property
    def has_days(self) -> bool:
        """Whether the log was narrowed down to some days."""
        return self.is_bound and self.is_valid() and any(self.form.cleaned_data[name] for name in ("since", "until"))
