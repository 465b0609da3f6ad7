"""A process that asks for as many turns as it gets until a moment, and prints when it got each: for test_turns.

Run as ``python -m tests.integration.turns_process URL HOST PER_SECOND``: it says "ready" and reads the moment.
"""

from __future__ import annotations

import asyncio
import sys
import time

from launcher.ssh.budget import Budget
from launcher.turns import SharedTurns

SIDE_BY_SIDE = 4


async def hammer(url: str, host: str, per_second: float, until: float) -> None:
    """Take turns side by side until ``until`` (seconds since 1970)."""
    shared = SharedTurns(url)
    budget = Budget(shared)

    async def one() -> None:
        while time.time() < until:
            await budget.take_turn(host, per_second)
            sys.stdout.write(f"{time.time()}\n")

    await asyncio.gather(*(one() for _ in range(SIDE_BY_SIDE)))
    await shared.aclose()


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    asyncio.run(hammer(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.stdin.readline())))
