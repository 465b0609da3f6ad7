"""The audit log's own work for the workers."""

from __future__ import annotations

from celery import shared_task

from portal.audit import selectors, services


@shared_task(name="audit.verify", ignore_result=True)
def verify() -> None:
    """Check the whole chain, once a day, and keep the outcome for the audit page."""
    services.note_verification(selectors.verify())
