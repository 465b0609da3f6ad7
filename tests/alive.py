"""What is still there, for tests that say what is forgotten."""

from __future__ import annotations

import gc
from typing import TypeVar

T = TypeVar("T")


def alive(kind: type[T]) -> list[T]:
    """The objects of exactly this class that something still holds."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]  # isinstance would wake lazy objects of others
