"""What administrators allow persons and groups, each change in one transaction with its audit event."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from launcher.models import Allowance
from portal.accounts.models import User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now


def set_allowance(
    *,
    user: User | None,
    group: str = "",
    app: str = "",
    cluster: str = "",
    sessions: int | None,
    hours: float | None,
    actor: User,
    address: str,
) -> None:
    """Allow a person, or without one the members of ``group``, so many sessions and hours in this scope.

    It takes the place of what was allowed there before; when both numbers are ``None``, nothing is allowed any more
    beside the site's rule. Raises ValidationError for values that no record can hold.
    """
    with transaction.atomic():
        row = _locked(user, group, app, cluster)
        _keep(row, sessions=sessions, hours=hours, actor=actor, address=address)


def set_sessions_of(*, user: User, sessions: int | None, actor: User, address: str) -> None:
    """Let ``user`` have so many sessions in all; ``None`` gives the site's number back. Their hours stay."""
    with transaction.atomic():
        row = _locked(user, "", "", "")
        _keep(row, sessions=sessions, hours=row.hours, actor=actor, address=address)


def remove_allowance(allowance_id: int, *, actor: User, address: str) -> None:
    """Take an allowance back; one that is gone already is no mistake."""
    with transaction.atomic():
        row = Allowance.objects.select_for_update(no_key=True).filter(pk=allowance_id).first()
        if row is not None:
            _keep(row, sessions=None, hours=None, actor=actor, address=address)


def _locked(user: User | None, group: str, app: str, cluster: str, *, tries: int = 5) -> Allowance:
    """The row of this scope, locked; made without numbers when there is none, so that two changes come in order.

    Locks the person before it, as a launch does: at the commit, after the head of the audit log, it would be too late.
    """
    if user is not None:
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
    try:
        with transaction.atomic():
            row, _ = Allowance.objects.select_for_update(no_key=True).get_or_create(
                user=user, group=group, app=app, cluster=cluster, defaults={"changed_at": now()}
            )
    except IntegrityError:
        # somebody made the row after we looked for it, and somebody removed it before we looked again
        if tries == 1:
            raise
        return _locked(user, group, app, cluster, tries=tries - 1)
    return row


def _keep(row: Allowance, *, sessions: int | None, hours: float | None, actor: User, address: str) -> None:
    """Give ``row`` these numbers, or remove it when it says nothing any more."""
    before = (row.sessions, row.hours)
    if (sessions, hours) != before:
        username = row.user.username if row.user else ""
        record(
            events.LimitChanged(
                username=username,
                group=row.group,
                app=row.app,
                cluster=row.cluster,
                sessions_before=row.sessions,
                sessions=sessions,
                hours_before=row.hours,
                hours=hours,
            ),
            actor=actor.username,
            address=address,
        )
    if sessions is None and hours is None:
        row.delete()
    elif (sessions, hours) != before:
        row.sessions, row.hours, row.changed_at = sessions, hours, now()
        row.full_clean()
        row.save()
