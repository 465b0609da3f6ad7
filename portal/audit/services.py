"""Records what was done. The only writer of the audit log; every service calls ``record``, or ``record_many``, inside
its own transaction.

A fact and the change it tells of are committed together or not at all. Recording holds the head until the
caller's transaction ends, so call it late and keep the transaction short.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import unicodedata
from collections.abc import Sequence

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet

from portal import clock
from portal.addresses import network_of
from portal.audit import chain
from portal.audit.chain import Flaw, Link, Tip
from portal.audit.events import AuditAccessDenied, AuditChainBroken, AuditExported, Event, fields_of
from portal.audit.models import AuditEvent, AuditHead
from portal.audit.selectors import Verification, last_sequence, sealing_keys

log = structlog.get_logger(__name__)

_LONGEST_TEXT = 2000
"""Characters of one field of an event; longer ones are cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An event, who did it (the account's name, or ``portal`` when nobody did), from where and in which session."""

    event: Event
    actor: str
    address: str = ""
    session_id: str = ""


def record(event: Event, *, actor: str, address: str = "", session_id: str = "") -> AuditEvent:
    """Append ``event`` to the log. See ``Entry`` for the words, ``record_many`` for the errors."""
    return record_many([Entry(event, actor, address, session_id)])[0]


def record_many(entries: Sequence[Entry]) -> list[AuditEvent]:
    """Append the events to the log, in their order. For one it costs as much as for many.

    Raises TransactionManagementError outside a transaction.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("an audit event is recorded in the transaction of what it tells")
    if not entries:
        return []
    head = _locked_head()
    tip, note = _where_to_go_on(head)
    notes = []
    if note is not None:
        log.error("audit.chain_broken", cause=note.cause, noted_rows=note.noted_rows, found_rows=note.found_rows)
        notes.append(Entry(note, actor="portal"))
    rows = []
    for entry in (*notes, *entries):
        rows.append(_row_after(tip, entry))
        tip = _tip(rows[-1])
    AuditEvent.objects.append(rows)
    head.count, head.hash, head.seal = tip.count, tip.hash, chain.head_seal(tip, sealing_keys()[0])
    head.save(update_fields=["count", "hash", "seal"])
    return rows[len(notes) :]


def record_once(
    event: Event,
    *,
    actor: str,
    address: str = "",
    session_id: str = "",
    every_seconds: int = 600,
    of_each_network: bool = False,
) -> AuditEvent | None:
    """As ``record``, but None when ``actor`` has the same event for the same session in the last
    ``every_seconds``. ``of_each_network``: and from the same address or, of IPv6, the same network.

    For what a person could repeat at will, so that nobody fills the log by holding down a key. Of two at the same
    moment both may be recorded, unless the caller holds a lock.
    """
    lately = clock.now() - dt.timedelta(seconds=every_seconds)
    same = AuditEvent.objects.filter(
        actor=_one_line(actor, 64), name=event.NAME, session_id=_one_line(session_id, 32), at__gte=lately
    )
    before = same.filter(data_json=_data_json(event)).values_list("address", flat=True)
    if of_each_network:
        network = network_of(_one_line(address, 64))
        is_known = any(network_of(one) == network for one in before.distinct().order_by())
    else:
        is_known = before.exists()
    if is_known:
        return None
    return record(event, actor=actor, address=address, session_id=session_id)


def record_denied(*, page: str, actor: str, address: str) -> None:
    """Keep that somebody without the right wanted to see the log."""
    with transaction.atomic():
        record_once(AuditAccessDenied(page=page[:200]), actor=actor, address=address)


def record_export(*, events: QuerySet[AuditEvent], file_format: str, actor: str, address: str) -> int:
    """Keep that ``actor`` takes ``events`` away. Returns the number of the last row that belongs to the
    export.
    """
    with transaction.atomic():
        up_to = last_sequence()
        rows = events.filter(sequence__lte=up_to).count()
        record(AuditExported(format=file_format, rows=rows), actor=actor, address=address)
    return up_to


def note_verification(result: Verification) -> None:
    """Keep the outcome of a check of the whole chain for the audit page."""
    AuditHead.objects.filter(pk=AuditHead.ONLY).update(
        verified_at=clock.now(),
        verified_count=result.tip.count,
        broken_at=result.broken.sequence if result.broken else None,
    )


def _locked_head() -> AuditHead:
    """The head, locked; made when this is the first event of all."""
    head = AuditHead.load(locked=True)
    if head is None:
        try:
            with transaction.atomic():
                AuditHead.objects.create(pk=AuditHead.ONLY, count=0, hash=chain.GENESIS, seal="")
        except IntegrityError:
            pass  # another process made it at this moment
        head = AuditHead.load(locked=True)
    if head is None:
        raise RuntimeError("the head of the audit log cannot be written")
    return head


def _where_to_go_on(head: AuditHead) -> tuple[Tip, AuditChainBroken | None]:
    """The row to go on from, and a note when the end of the log is not as the portal left it."""
    noted = Tip(head.count, head.hash)
    last = AuditEvent.objects.order_by("-sequence").first()
    found = _tip(last) if last else Tip()
    if not head.seal and noted == found == Tip():
        return noted, None
    if not head.seal and noted == Tip():
        cause: str = Flaw.HEAD
    elif not chain.is_sealed(noted, head.seal, sealing_keys()):
        cause = Flaw.SEAL
    elif found.count > noted.count:
        cause = "rows"
    else:  # rows missing at the end are left to show as a gap: their numbers are not given again
        return noted, None
    return found, AuditChainBroken(cause=cause, noted_rows=noted.count, found_rows=found.count)


def _row_after(tip: Tip, entry: Entry) -> AuditEvent:
    link = Link(
        sequence=tip.count + 1,
        at=clock.now(),
        name=entry.event.NAME,
        version=entry.event.VERSION,
        actor=_one_line(entry.actor, 64),
        address=_one_line(entry.address, 64),
        session_id=_one_line(entry.session_id, 32),
        data_json=_data_json(entry.event),
        previous_hash=tip.hash,
    )
    link = dataclasses.replace(link, hash=chain.row_hash(link))
    return AuditEvent(**{field.name: getattr(link, field.name) for field in dataclasses.fields(link)})


def _tip(row: AuditEvent) -> Tip:
    return Tip(row.sequence, row.hash)


def _data_json(event: Event) -> str:
    values = fields_of(event)
    return chain.canonical({key: _storable(v) if isinstance(v, str) else v for key, v in values.items()})


def _storable(text: str) -> str:
    """``text`` as every database keeps it: cut, without NUL and without halves of surrogate pairs."""
    cut = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    return cut.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _one_line(text: str, longest: int) -> str:
    """``text`` without control characters and not longer than its column; a stranger may have chosen it."""
    clean = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c
        for c in text[: longest + 1]
    )
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"
