"""Seals every secret of the database anew, with the newest key, so that an older one can be taken away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import structlog
from django.db import models

from launcher import sealing
from launcher.models import EnrolledKey, InteractiveSession, KeptPassword
from portal.accounts.models import SecondFactor

log = structlog.get_logger(__name__)

SEALED: tuple[tuple[type[models.Model], str], ...] = (
    (InteractiveSession, "secret_encrypted"),
    (EnrolledKey, "private_key_encrypted"),
    (KeptPassword, "key_encrypted"),
    (SecondFactor, "secret_encrypted"),
)
"""Every column that holds a sealed secret."""

ROWS_AT_ONCE = 200


class Resealed(NamedTuple):
    """What a run has done."""

    sealed: int
    unreadable: int  # no present key opens them


def reseal_everything() -> Resealed:
    """Seal every secret with the newest key. May be repeated, and interrupted, at any time."""
    sealed = unreadable = 0
    for model, column in SEALED:
        for pk, old in _secrets(model, column):
            try:
                new = sealing.reseal(old)
            except sealing.NoKeyFits:
                log.error("secret_without_key", table=model._meta.db_table, row=pk)
                unreadable += 1
                continue
            # a secret that was wiped or replaced in the meantime stays as it is now
            sealed += model._default_manager.filter(pk=pk, **{column: old}).update(**{column: new})
    return Resealed(sealed, unreadable)


def _secrets(model: type[models.Model], column: str) -> Iterator[tuple[object, bytes]]:
    rows = model._default_manager.exclude(**{column: b""}).order_by("pk")
    for pk, sealed in rows.values_list("pk", column).iterator(ROWS_AT_ONCE):
        yield pk, bytes(sealed)
