"""The filter of a list: a form that is sent by GET, so that an address says what it leaves.

The audit log, all sessions and people have one; the first two can be narrowed down to days. Pages show it with
``includes/filter.html``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any, Generic, TypeVar

import django_filters
from django import forms
from django.core.exceptions import ValidationError
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


_ONE_DAY = dt.timedelta(days=1)


def _start_of(day: dt.date) -> dt.datetime:
    """The first moment of ``day`` where the reader is. The calendar's first and last day begin outside of it in some
    time zone; the ones next to them stand for them.
    """
    day = min(max(day, dt.date.min + _ONE_DAY), dt.date.max - _ONE_DAY)
    return timezone.make_aware(dt.datetime.combine(day, dt.time.min))


class DaysForm(forms.Form):
    """The form of a filter with days."""

    def clean(self) -> dict[str, Any]:
        """Refuse days the wrong way round, which leave nothing or, of what lasts, something that nobody asked for."""
        since, until = self.cleaned_data.get("since"), self.cleaned_data.get("until")
        if since and until and until < since:
            self.add_error("until", _("This day is before the one that the list begins with."))
        return self.cleaned_data


class DaysFilter(ListFilter[Row]):
    """A list of what was on some days: the reader's days, both included. A ``Meta`` takes the form from this one's."""

    since = _day(_("From"), "filter_since")
    until = _day(_("To"), "filter_until")

    class Meta:
        form = DaysForm

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
        day_after = min(day, dt.date.max - _ONE_DAY) + _ONE_DAY  # that of the calendar's last does not exist
        return self.before(rows, _start_of(day_after))

    def of_days(self, rows: QuerySet[Row]) -> QuerySet[Row]:
        """The rows of the given days, whatever else is asked for: what the form's choices may depend on."""
        for name in ("since", "until"):
            with contextlib.suppress(ValidationError):  # the form says so
                rows = self.filters[name].filter(rows, self.filters[name].field.clean(self.data.get(name)))
        return rows

    @property
    def asks_for_days(self) -> bool:
        """Whether some days are given, sensible or not."""
        return any(self.data.get(name) for name in ("since", "until"))

    @property
    def has_days(self) -> bool:
        """Whether the list was narrowed down to some days."""
        return self.is_bound and self.is_valid() and any(self.form.cleaned_data[name] for name in ("since", "until"))
