"""Seals secrets for the database with keys that are not in it (Fernet; several keys allow rotation)."""

from __future__ import annotations

import functools
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from portal.errors import FootbridgeError


class NoKeyFits(FootbridgeError):
    """A secret that none of the present keys opens: the key it was sealed with has been taken away."""

    code = "secret.no_key"


@functools.cache
def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(path.read_bytes().strip()) for path in settings.CONF.encryption_key_paths])


def seal(text: str) -> bytes:
    """``text`` encrypted with the newest key."""
    return _fernet().encrypt(text.encode())


def unseal(sealed: bytes | memoryview) -> str:
    """The text again. Raises NoKeyFits."""
    try:
        return _fernet().decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise NoKeyFits from None


def reseal(sealed: bytes | memoryview) -> bytes:
    """The same secret, sealed with the newest key. Raises NoKeyFits."""
    try:
        return _fernet().rotate(bytes(sealed))
    except InvalidToken:
        raise NoKeyFits from None


def digest(text: str) -> str:
    """SHA-256 in hexadecimal: what the database keeps of a random value it must recognise but never reveal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
