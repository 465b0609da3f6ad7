"""No process of the portal writes its memory to a file when it crashes: passwords and keys pass through it.

systemd's units say the same (``LimitCORE=0``); this is for every other way to start them. What the kernel hands to a
program instead (``core_pattern``) is that program's matter; systemd-coredump heeds the limit.
"""

from __future__ import annotations

import resource


def write_none() -> None:
    """From now on, in this process and those it starts. Cannot be taken back."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
