"""How often one address may ask with a cookie or a code that turns out to be nobody's.

Each such guess costs a look-up in the database, which no cache spares: the next one is another. Guessing is hopeless
(the values are random and long), but the look-ups of everybody else would wait behind it. What was asked for lately is
not counted, so the tabs of a campus behind one address, which ask again and again after a sign-out, stay below it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from portal.addresses import network_of

BURST = 300
"""Guesses of one address at once."""
PER_SECOND = 10.0
"""Further ones."""
MOST_KEPT = 10_000


class Guesses:
    """Counts wrong guesses by address. Belongs to one event loop."""

    def __init__(self) -> None:
        self._free_at: OrderedDict[str, float] = OrderedDict()  # loop time at which nothing is counted any more

    def refuses(self, client: str) -> bool:
        """Whether an address has guessed too often to be looked up now."""
        if not client or not self._free_at:
            return False
        left_seconds = self._free_at.get(network_of(client), 0.0) - asyncio.get_running_loop().time()
        return left_seconds * PER_SECOND > BURST - 1

    def count(self, client: str) -> None:
        """One more wrong guess."""
        origin = network_of(client)
        moment = asyncio.get_running_loop().time()
        self._free_at[origin] = max(moment, self._free_at.get(origin, 0.0)) + 1 / PER_SECOND
        self._free_at.move_to_end(origin)
        while len(self._free_at) > MOST_KEPT:
            self._free_at.popitem(last=False)
