"""The arithmetic of the audit chain: what a row's hash covers, how the head is sealed, what breaks the chain.
Pure.

Each row carries the SHA-256 of its own contents and of the row before it. Hashes need no key, so an exported
file can be checked by anybody: every line of the JSON export hashes to its own ``hash`` once that member is
taken out.

Hashes alone would not stop somebody who can write to the database, who could compute them all anew. So the
*head*, a row of its own with the number of rows and the last hash, is sealed with an HMAC whose key is
derived from the portal's secret key, which is not in the database. Recording checks the seal before it goes
on: a forged head is never sealed anew unnoticed. One thing no database can show about itself: that it was put
back, head and all, to an earlier state. For that, keep the line that ``manage.py verifyaudit`` prints
elsewhere and give it back with ``--expect``.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import hmac
import json
from collections.abc import Sequence

GENESIS = "0" * 64
"""What stands in place of the hash before the first row."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_SEAL = b"footbridge audit head 1"


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """One row of the log, as it is stored. ``data_json`` is canonical JSON text."""

    sequence: int
    at: dt.datetime
    name: str
    version: int
    actor: str
    address: str
    session_id: str
    data_json: str
    previous_hash: str
    hash: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Tip:
    """The end of a chain: how many rows it has and the hash of the last."""

    count: int = 0
    hash: str = GENESIS


class Flaw(enum.StrEnum):
    """What is wrong with a row, or with the end of the log."""

    EDITED = "edited"  # the row's contents do not give its hash
    MISSING = "missing"  # no row has this number
    MISPLACED = "misplaced"  # the row does not follow the one before it
    EXTRA = "extra"  # the row is newer than the head says the newest is
    HEAD = "head"  # the head's hash is not that of the last row, or the head is gone
    SEAL = "seal"  # the head was not sealed with the portal's key
    REPORTED = "reported"  # the row is the portal's own note that it found the end changed
    UNEXPECTED = "unexpected"  # the row's hash is not the one that was kept elsewhere


@dataclasses.dataclass(frozen=True, slots=True)
class Break:
    """The first broken row: its number and what is wrong."""

    sequence: int
    flaw: Flaw


def canonical(value: object) -> str:
    """``value`` as JSON with sorted keys and no spaces: the one text for the one value. Raises ValueError for
    NaN.
    """
    return _CANONICAL.encode(value)


def utc_text(at: dt.datetime) -> str:
    """``at`` in UTC with all six digits of its microseconds, whatever zone the database gave it back in."""
    return at.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def document(link: Link) -> dict[str, object]:
    """The row as a JSON object, without its own hash. Raises ValueError when its data is no JSON."""
    return _document(link, json.loads(link.data_json))


def _document(link: Link, data: object) -> dict[str, object]:
    return {
        "sequence": link.sequence,
        "at": utc_text(link.at),
        "name": link.name,
        "version": link.version,
        "actor": link.actor,
        "address": link.address,
        "session_id": link.session_id,
        "data": data,
        "previous_hash": link.previous_hash,
    }


def row_hash(link: Link) -> str:
    """The SHA-256 of the row and, through ``previous_hash``, of all rows before it."""
    return _sha256(document(link))


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def head_seal(tip: Tip, key: str) -> str:
    """The HMAC-SHA256 of the head under a key made from the portal's secret key for this purpose alone."""
    own_key = hmac.digest(key.encode(), _SEAL, "sha256")
    return hmac.new(own_key, f"{tip.count}:{tip.hash}".encode(), "sha256").hexdigest()


def is_sealed(tip: Tip, seal: str, keys: Sequence[str]) -> bool:
    """Whether ``seal`` was made with one of ``keys``."""
    return any(hmac.compare_digest(head_seal(tip, key).encode(), seal.encode()) for key in keys)


def flaw_after(tip: Tip, link: Link) -> Break | None:
    """What is wrong with the row that is found after ``tip``; None when it is the right next row."""
    expected = tip.count + 1
    if link.sequence > expected:
        return Break(expected, Flaw.MISSING)
    if link.sequence < expected:
        return Break(link.sequence, Flaw.EXTRA)
    if not _is_whole(link):
        return Break(link.sequence, Flaw.EDITED)
    if link.previous_hash != tip.hash:
        return Break(link.sequence, Flaw.MISPLACED)
    return None


def _is_whole(link: Link) -> bool:
    """Whether the row's contents, to the letter, give its hash."""
    try:
        data = json.loads(link.data_json)
        return canonical(data) == link.data_json and _sha256(_document(link, data)) == link.hash
    except (ValueError, RecursionError):
        return False
