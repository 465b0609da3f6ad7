"""Codes from an app, as RFC 6238 has them: six digits, SHA-1, a new one every 30 seconds. Pure.

These are the parameters that every app knows; several ignore any others that the address names.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

STEP_SECONDS = 30
DRIFT_STEPS = 1
"""So many steps before and after are accepted, too: clocks differ, and typing takes time."""
_DIGITS = 6
_SECRET_BYTES = 20


@dataclass(frozen=True, slots=True)
class QRCode:
    """A QR code as one path of unit squares, for an SVG of ``size`` by ``size``, its quiet zone included."""

    size: int
    path: str


def new_secret() -> str:
    """A secret in Base32, as apps take it."""
    return base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def code_at(secret: str, step: int) -> str:
    """The code of this step. Raises ValueError for a secret that is none."""
    try:
        key = base64.b32decode(secret)
    except binascii.Error as error:
        raise ValueError("not Base32") from error
    return HOTP(key, _DIGITS, SHA1()).generate(step).decode()  # noqa: S303  (what RFC 6238 and every app take)


def step_of(secret: str, code: str, *, seconds: float, after: int = 0) -> int | None:
    """The step after ``after`` whose code this is at the time ``seconds``; ``None`` when there is none.

    All candidates are computed and compared, so that the time taken tells nothing.
    """
    typed = re.sub(r"[\s-]", "", code)
    if not re.fullmatch(r"[0-9]{6}", typed, re.ASCII):
        return None
    now = int(seconds) // STEP_SECONDS
    candidates = range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1)
    matching = [step for step in candidates if hmac.compare_digest(code_at(secret, step), typed) and step > after]
    return max(matching, default=None)


def address_of_secret(secret: str, *, account: str, issuer: str) -> str:
    """What the QR code holds: the ``otpauth`` address that apps read."""
    label = quote(f"{issuer}:{account}", safe="")
    return f"otpauth://totp/{label}?{urlencode({'secret': secret, 'issuer': issuer}, quote_via=quote)}"


def qr_code(text: str) -> QRCode:
    """``text`` as a QR code."""
    quiet = 4
    rows = list(segno.make(text, error="m", micro=False).matrix)
    squares = [
        f"M{x + quiet} {y + quiet}h1v1h-1z" for y, row in enumerate(rows) for x, is_dark in enumerate(row) if is_dark
    ]
    return QRCode(size=len(rows) + 2 * quiet, path="".join(squares))
