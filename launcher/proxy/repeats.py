"""Heads that come again: with each request a browser's connection sends nearly the same fields.

What follows from the fields alone is found out once, by the strict way, and kept under exactly these bytes; only the
request line is read anew, unless the whole head came before, too. Kept for one connection, so that nothing passes from
one person to another. The permission is no part of it: that is asked for each request. What this brings is measured in
``fast.direct``.
"""

from __future__ import annotations

import re
from typing import Any

from launcher.proxy.framing import REQUEST_LINE
from launcher.proxy.headers import MAX_TARGET_BYTES

MOST_BLOCKS = 8
"""How many different blocks of fields are kept for a connection: pages, scripts, pictures and API calls differ."""
MOST_BYTES = 4096
"""The longest block that is kept."""
MOST_WHOLES = 4
"""How many whole heads are kept for a connection: what a page asks for again and again."""
MOST_WHOLE_BYTES = MOST_BYTES + 512
_PLAIN = frozenset((b"GET", b"HEAD"))


class Block:
    """The fields of a head without a body, as the parser read them. ``memo`` is the application's own."""

    __slots__ = ("fields", "memo")

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self.fields = fields
        self.memo: object = None


class Whole:
    """A whole head without a body, as an ASGI scope that is for reading only. ``memo`` is the application's own."""

    __slots__ = ("block", "memo", "scope")

    def __init__(self, block: Block, scope: Any) -> None:
        self.block = block
        self.scope = scope
        self.memo: object = None

    def own_scope(self) -> Any:
        """A scope that may be changed."""
        scope = self.scope
        return {**scope, "headers": list(scope["headers"]), "state": scope["state"].copy()}


class Blocks:
    """The blocks of one connection."""

    __slots__ = ("_kept", "_wholes", "whole")

    def __init__(self) -> None:
        self._kept: dict[bytes, Block] = {}
        self._wholes: dict[bytes, Whole] = {}
        self.whole = self._wholes.get  # by all bytes of a head

    def keep_whole(self, data: bytes, whole: Whole) -> None:
        """``find`` has found ``data``."""
        if len(data) <= MOST_WHOLE_BYTES:
            if len(self._wholes) >= MOST_WHOLES:
                del self._wholes[next(iter(self._wholes))]  # the oldest
            self._wholes[data] = whole

    def find(self, data: bytes) -> tuple[re.Match[bytes], Block] | None:
        """The request line and the block, when ``data`` is one whole head with a block that is known."""
        at = data.find(b"\r\n") + 2
        block = self._kept.get(data[at:])
        if block is None:
            return None
        line = REQUEST_LINE.match(data)
        if line is None or line.end() != at or line[3] != b"1" or line[1] not in _PLAIN:
            return None
        target = line[2]
        return (line, block) if target != b"*" and len(target) <= MAX_TARGET_BYTES else None

    def keep(self, data: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        """``data`` are the bytes behind the request line of HTTP/1.1, with the empty line, found strict and plain: no
        body, no upgrade, no expectation, a connection that stays.
        """
        if len(data) > MOST_BYTES:
            return
        if len(self._kept) >= MOST_BLOCKS:
            del self._kept[next(iter(self._kept))]  # the oldest
        self._kept[data] = Block(tuple(fields))
