"""The audit log's rows and its head. Only ``portal.audit.services`` writes them, and no row is ever written
again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Never

from django.core.exceptions import ObjectDoesNotExist
from django.db import models


class ImmutableError(TypeError):
    """Code tried to change or delete a recorded fact. This is a mistake in the code, never of a person."""


class AuditEvents(models.QuerySet["AuditEvent"]):
    """Reads as every query does; refuses to change or delete."""

    def update(self, **kwargs: Any) -> Never:
        raise ImmutableError("audit events are never changed")

    def delete(self) -> Never:
        raise ImmutableError("audit events are never deleted")

    def bulk_create(self, *args: Any, **kwargs: Any) -> Never:
        raise ImmutableError("audit events are recorded by portal.audit.services, which knows what the chain is")

    def append(self, rows: Sequence[AuditEvent]) -> None:
        """Insert new rows with one statement. Raises IntegrityError when one of their numbers is taken."""
        super().bulk_create(rows)

    def bulk_update(self, *args: Any, **kwargs: Any) -> Never:
        raise ImmutableError("audit events are never changed")


class AuditEvent(models.Model):
    """One fact. It names people and sessions by text, so that it outlives them."""

    sequence = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    name = models.CharField(max_length=64)
    version = models.PositiveSmallIntegerField()
    actor = models.CharField(max_length=64)
    address = models.CharField(max_length=64, blank=True)
    session_id = models.CharField(max_length=32, blank=True)
    # text, not JSONField: PostgreSQL's jsonb gives numbers back in another spelling, which the hash covers
    data_json = models.TextField()
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    objects: ClassVar[models.Manager[AuditEvent]] = AuditEvents.as_manager()

    class Meta:
        ordering = ["-sequence"]
        indexes = [
            models.Index(fields=["actor", "-sequence"], name="audit_by_actor"),
            models.Index(fields=["session_id", "-sequence"], name="audit_by_session"),
            models.Index(fields=["name", "-sequence"], name="audit_by_name"),
        ]

    def __str__(self) -> str:
        return f"{self.sequence} {self.name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the row. Raises ImmutableError when it is there already."""
        if not self._state.adding:
            raise ImmutableError(f"audit event {self.sequence} is recorded and never changes")
        super().save(force_insert=True)

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        """Raises ImmutableError."""
        raise ImmutableError(f"audit event {self.sequence} is recorded and never deleted")

    @property
    def data(self) -> dict[str, Any]:
        """The event's fields. Empty when somebody changed the row so that they cannot be read."""
        try:
            data = json.loads(self.data_json)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


class AuditHead(models.Model):
    """The end of the log, apart from the rows, so that rows missing at the end are noticed. There is one."""

    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    count = models.BigIntegerField()
    hash = models.CharField(max_length=64)
    seal = models.CharField(max_length=64)
    # the last check of the whole chain: for display, and no part of the seal
    verified_at = models.DateTimeField(null=True, blank=True)
    verified_count = models.BigIntegerField(null=True, blank=True)
    broken_at = models.BigIntegerField(null=True, blank=True)  # the first broken row that it found

    def __str__(self) -> str:
        return f"{self.count} rows, {self.hash[:16]}"

    @classmethod
    def load(cls, *, locked: bool = False) -> AuditHead | None:
        """The head, or None before the first event. ``locked``: no other transaction may record until this
        one ends.
        """
        rows = cls._default_manager.select_for_update(no_key=True) if locked else cls._default_manager
        try:
            return rows.get(pk=cls.ONLY)
        except ObjectDoesNotExist:
            return None
