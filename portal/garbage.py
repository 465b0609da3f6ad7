"""How often Python looks for garbage in a web process: seldom, and not among what was there from the start.

Requests leave no cycles behind, but each makes some dozens of objects, and Python's usual rhythm then walks over all
that Django has loaded again and again. Measured: a fifth of the processor time of a request in the portable lane.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 20_000, 10, 50
"""After how many new objects the youngest are looked through, and every how many times the older ones too. So up to
some megabytes of garbage lie about; what is not in a cycle is freed at once, as always."""


def look_seldom() -> None:
    """Leave what exists now alone for good, and look through the rest seldom. Call it when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
