"""Reads the audit log: pages, exports, the state of the chain, and the check of all of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterator

from django.conf import settings
from django.db.models import Max, Q, QuerySet

from portal.audit import chain
from portal.audit.chain import Break, Flaw, Link, Tip
from portal.audit.events import AuditChainBroken, label_of
from portal.audit.models import AuditEvent, AuditHead

PAGE = 50
"""Rows of one page of the list."""

_LINK_FIELDS = tuple(field.name for field in dataclasses.fields(Link))

_BATCH = 2000
"""Rows read at a time where all are read."""


@dataclasses.dataclass(frozen=True, slots=True)
class AuditRow:
    """One event as the list shows it. ``details``: its fields, in the order of their names, as text."""

    sequence: int
    at: dt.datetime
    name: str
    label: str
    actor: str
    address: str
    session_id: str
    details: tuple[tuple[str, str], ...]
    hash_start: str


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some rows, newest first. ``next_cursor``: the ``before`` of the next page, or None on the last."""

    rows: tuple[AuditRow, ...]
    next_cursor: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class ChainState:
    """What the portal knows of the chain without walking it.

    ``verified_at``, ``verified_count``, ``broken_at``: when the whole was last checked, up to which row, and
    the first broken row of that check.
    """

    count: int
    head: str
    verified_at: dt.datetime | None
    verified_count: int | None
    broken_at: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of a check: the last row that was right, and the first that was not."""

    tip: Tip
    broken: Break | None


def page(events: QuerySet[AuditEvent], *, before: int | None = None, size: int = PAGE, by_time: bool = False) -> Page:
    """The newest ``size`` of ``events`` that are older than row ``before``. No offset: page 20,000 costs as
    page 1.

    ``by_time``: in the order of their times, for events of certain days, which the index of times then finds at once.
    Where the clock was never put back, that is the order of their numbers.
    """
    rows = events.order_by("-at", "-sequence") if by_time else events.order_by("-sequence")
    if before is not None:
        rows = _older(rows, before) if by_time else rows.filter(sequence__lt=before)
    found = list(rows[: size + 1])
    return Page(
        rows=tuple(_row(event) for event in found[:size]),
        next_cursor=found[size - 1].sequence if len(found) > size else None,
    )


def _older(events: QuerySet[AuditEvent], before: int) -> QuerySet[AuditEvent]:
    """Those that come after row ``before`` where the newest comes first; none when there is no such row."""
    at = AuditEvent.objects.filter(sequence=before).values_list("at", flat=True).first()
    if at is None:
        return events.none()
    return events.filter(Q(at__lt=at) | Q(sequence__lt=before), at__lte=at)


def batches(events: QuerySet[AuditEvent], *, up_to: int) -> Iterator[list[Link]]:
    """All of ``events`` up to row ``up_to``, oldest first, in lists: no cursor of the database stays open
    between them."""
    rows = events.filter(sequence__lte=up_to).order_by("sequence").values_list(*_LINK_FIELDS)
    after = 0
    while links := [Link(*row) for row in rows.filter(sequence__gt=after)[:_BATCH]]:
        yield links
        after = links[-1].sequence


def last_sequence() -> int:
    """The number of the newest row; 0 when there is none."""
    newest: int | None = AuditEvent.objects.aggregate(newest=Max("sequence"))["newest"]
    return newest or 0


def chain_state() -> ChainState:
    """What the audit page says about the chain."""
    head = AuditHead.load()
    if head is None:
        return ChainState(count=0, head="", verified_at=None, verified_count=None, broken_at=None)
    return ChainState(
        count=head.count,
        head=head.hash[:16],
        verified_at=head.verified_at,
        verified_count=head.verified_count,
        broken_at=head.broken_at,
    )


def verify(*, expect: Tip | None = None, known: Collection[int] = ()) -> Verification:
    """Walk the whole chain while others go on recording.

    ``expect``: an end of the log that was kept elsewhere and must still be in it. ``known``: numbers of the
    portal's own notes of a break that somebody has looked into. Takes half a
    minute of one processor for a million rows.
    """
    before_the_first = AuditEvent.objects.filter(sequence__lt=1).order_by("sequence").first()
    if before_the_first:
        return Verification(Tip(), Break(before_the_first.sequence, Flaw.EXTRA))
    tip = Tip()
    while True:
        head = AuditHead.load()  # read before the rows: all it speaks of are committed
        noted = Tip(head.count, head.hash) if head else Tip()
        tip, broken = _walk(tip, up_to=noted.count, expect=expect, known=known)
        broken = broken or _end_flaw(tip, noted, head.seal if head else None)
        if broken:
            return Verification(tip, broken)
        newest = last_sequence()
        head = AuditHead.load()  # read after the rows: whatever was recorded meanwhile, it speaks of
        if newest > (head.count if head else 0):
            return Verification(tip, Break(tip.count + 1, Flaw.EXTRA if head else Flaw.HEAD))
        if head is None or head.count == tip.count:
            break
    if expect and tip.count < expect.count:
        return Verification(tip, Break(tip.count + 1, Flaw.MISSING))
    return Verification(tip, None)


def _walk(tip: Tip, *, up_to: int, expect: Tip | None, known: Collection[int]) -> tuple[Tip, Break | None]:
    """Follow the chain from ``tip`` to row ``up_to``; returns the last right row and the first break."""
    for links in batches(AuditEvent.objects.filter(sequence__gt=tip.count), up_to=up_to):
        for link in links:
            if broken := chain.flaw_after(tip, link):
                return tip, broken
            tip = Tip(link.sequence, link.hash)
            if link.name == AuditChainBroken.NAME and link.sequence not in known:
                return tip, Break(link.sequence, Flaw.REPORTED)
            if expect and tip.count == expect.count and tip.hash != expect.hash:
                return tip, Break(tip.count, Flaw.UNEXPECTED)
    return tip, None


def _end_flaw(tip: Tip, noted: Tip, seal: str | None) -> Break | None:
    """What is wrong when the walk up to ``noted``, which the head says is the end, came to ``tip``."""
    if tip.count < noted.count:
        return Break(tip.count + 1, Flaw.MISSING)
    if tip.hash != noted.hash:
        return Break(tip.count, Flaw.HEAD)
    if seal is not None and not chain.is_sealed(noted, seal, sealing_keys()):
        return Break(tip.count, Flaw.SEAL)
    return None


def sealing_keys() -> list[str]:
    """The portal's secret key, which seals the head, and those before it, whose seals still count."""
    return [str(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def _row(event: AuditEvent) -> AuditRow:
    return AuditRow(
        sequence=event.sequence,
        at=event.at,
        name=event.name,
        label=label_of(event.name),
        actor=event.actor,
        address=event.address,
        session_id=event.session_id,
        details=tuple((key, "" if value is None else str(value)) for key, value in sorted(event.data.items())),
        hash_start=event.hash[:16],
    )
