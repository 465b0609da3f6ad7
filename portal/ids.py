"""Names that nobody can guess. Pure; used for sessions, hosts, codes and secrets."""

from __future__ import annotations

import secrets

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""32 letters and digits, without those that look alike; safe in host names, paths and job names."""


def random_name(length: int) -> str:
    """``length`` random characters of five bits each. The first is a letter, so that it may begin a host name."""
    first = secrets.choice(_ALPHABET[:24])
    return first + "".join(secrets.choice(_ALPHABET) for _ in range(length - 1))


def session_id() -> str:
    """The public name of a session: 12 characters.

    With the prefix ``fb-`` it fits the 15-character job names of old PBS.
    """
    return random_name(12)


def host_label() -> str:
    """The first label of a session's own host name: 24 characters, about 120 bits."""
    return random_name(24)


def secret() -> str:
    """A secret of 32 random bytes, URL-safe text of 43 characters."""
    return secrets.token_urlsafe(32)
