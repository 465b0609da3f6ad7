"""Other systems' words, for the log: on one line, and never with what somebody typed in secret.

A directory or a login host may repeat a password in its complaint. Words that have so much as a piece of it are left
out altogether: a hole of the password's shape would tell its place and its length.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_LETTERS = 300
PIECE_LETTERS = 5
"""Shared by chance hardly ever; a shorter secret counts as a whole."""
LEFT_OUT = "(left out: they may repeat what was typed)"


def quoted(words: str, *, without: Iterable[str]) -> str:
    """``words`` as a log may have them, or a remark in their place."""
    line = "".join(letter if letter.isprintable() else " " for letter in words)
    if any(_is_repeated(_bare(secret), _bare(line)) for secret in without):
        return LEFT_OUT
    return " ".join(line.split())[:MOST_LETTERS]


def _bare(text: str) -> str:
    """Without what a system may have changed on the way: spaces, and the case of letters."""
    return "".join(text.split()).casefold()


def _is_repeated(secret: str, text: str) -> bool:
    """Whether a piece of the secret is there: the words may have been cut in the midst of it."""
    length = min(PIECE_LETTERS, len(secret))
    return length > 0 and any(secret[at : at + length] in text for at in range(len(secret) - length + 1))
