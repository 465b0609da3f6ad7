"""What an auditor can narrow the log down to: kind of event, person, session, days."""

from __future__ import annotations

import datetime as dt

import django_filters
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from portal.audit.events import REGISTRY
from portal.audit.models import AuditEvent
from portal.listfilter import DaysFilter


def _kinds() -> list[tuple[str, object]]:
    """Every event, by what people call it."""
    return sorted(((name, event.LABEL) for name, event in REGISTRY.items()), key=lambda pair: str(pair[1]))


class AuditFilter(DaysFilter[AuditEvent]):
    """All filters are exact, so that each can use an index."""

    name = django_filters.ChoiceFilter(label=_("Event"), choices=_kinds, empty_label=_("All events"))
    actor = django_filters.CharFilter(label=_("Person"), max_length=64)
    session = django_filters.CharFilter(label=_("Session"), field_name="session_id", max_length=32)

    class Meta(DaysFilter.Meta):
        model = AuditEvent
        fields: list[str] = []

    def not_before(self, events: QuerySet[AuditEvent], moment: dt.datetime) -> QuerySet[AuditEvent]:
        """See DaysFilter."""
        return events.filter(at__gte=moment)

    def before(self, events: QuerySet[AuditEvent], moment: dt.datetime) -> QuerySet[AuditEvent]:
        """See DaysFilter."""
        return events.filter(at__lt=moment)
