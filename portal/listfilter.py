"""The filter of a list: a form that is sent by GET, so that an address says what it leaves.

The audit log, all sessions and people have one. Pages show it with ``includes/filter.html``.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import django_filters
from django.db.models import Model, QuerySet

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
