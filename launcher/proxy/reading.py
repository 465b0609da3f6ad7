"""What the fields of a request say to the proxy, found out once for fields that come again.

Nothing here is a permission: the cookie is only what the permission is asked for with, for each request. Kept under
exactly the same fields, the cookie among them, and the same client; so what one person sends is never another's.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.proxy.sites import Place
from launcher.proxy.visit import Prepared

MOST_READINGS = 1024
"""How many are kept in a process. When there are more, all are forgotten: they are soon found again."""
MOST_BYTES = 4096
"""The longest fields that are kept."""

Key = tuple[str, tuple[tuple[bytes, bytes], ...]]


class Reading:
    """See the module."""

    __slots__ = ("client", "cookie", "fields", "place", "prepared")

    def __init__(self, fields: dict[bytes, bytes], place: Place, cookie: str, client: str) -> None:
        self.fields = fields
        self.place = place
        self.cookie = cookie
        self.client = client
        self.prepared = Prepared()


class Readings:
    """The readings of a process. Only those for sessions with a host of their own: elsewhere the path has a say."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Key, Reading] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def find(self, key: Key) -> Reading | None:
        """What was read of the same fields from the same client."""
        return self._kept.get(key)

    def keep(self, key: Key, reading: Reading) -> None:
        """Keep what was read, if it is worth it."""
        if reading.place.label and reading.place.origin.path == b"/" and _size(key[1]) <= MOST_BYTES:
            if len(self._kept) >= MOST_READINGS:
                self._kept.clear()
            self._kept[key] = reading


def _size(fields: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)
