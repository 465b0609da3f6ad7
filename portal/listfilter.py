"""The filter of a list: a form that is sent by GET, so that an address says what it leaves.

The audit log, all sessions and people have one; the first two can be narrowed down to days. Pages show it with
``includes/filter.html``.
"""

from __future__ import annotations

import datetime as dt
from typing import Generic, TypeVar

import django_filters
from django import forms
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

Row = TypeVar("Row", bound=Model)


class ListFilter(django_filters.FilterSet, Generic[Row]):  # type: ignore[misc]  # django-filter carries no types
    """A filter over rows of one kind."""

    @property
    def chosen(self) -> QuerySet[Row]:
        """The rows that were asked for; none while a value makes no sense, which the form then says."""
        rows: QuerySet[Row] = self.qs if self.is_valid() or not self.is_bound else self.queryset.none()
        return rows

    @property
    def is_used(self) -> bool:
        """Whether less than everything is asked for."""
        return any(self.data.get(name, "").strip() for name in self.filters)


def _day(label: object, method: str) -> django_filters.DateFilter:
    return django_filters.DateFilter(
        label=label, method=method, widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    )


def _start_of(day: dt.date) -> dt.datetime:
    """The first moment of ``day`` where the reader is."""
    return timezone.make_aware(dt.datetime.combine(day, dt.time.min))


class DaysFilter(ListFilter[Row]):
    """A list of what was on some days: the reader's days, both included."""

    since = _day(_("From"), "filter_since")
    until = _day(_("To"), "filter_until")

    @classmethod
    def get_filters(cls) -> dict[str, django_filters.Filter]:
        """All filters, by name; the days come last."""
        filters: dict[str, django_filters.Filter] = dict(super().get_filters())
        return filters | {name: filters.pop(name) for name in ("since", "until")}

    def not_before(self, rows: QuerySet[Row], moment: dt.datetime) -> QuerySet[Row]:
        """The rows of this moment and later."""
        raise NotImplementedError

    def before(self, rows: QuerySet[Row], moment: dt.datetime) -> QuerySet[Row]:
        """The rows of before this moment."""
        raise NotImplementedError

    def filter_since(self, rows: QuerySet[Row], _name: str, day: dt.date) -> QuerySet[Row]:
        """The rows of ``day`` and later."""
        return self.not_before(rows, _start_of(day))

    def filter_until(self, rows: QuerySet[Row], _name: str, day: dt.date) -> QuerySet[Row]:
        """The rows of ``day`` and before."""
        # the day after the calendar's last does not exist
        last = min(day, dt.date.max - dt.timedelta(days=2))
        return self.before(rows, _start_of(last + dt.timedelta(days=1)))

    @property
    def has_days(self) -> bool:
        """Whether the list was narrowed down to some days."""
        return self.is_bound and self.is_valid() and any(self.form.cleaned_data[name] for name in ("since", "until"))
