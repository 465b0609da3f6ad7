"""A visit to one cluster as one account: the connection that the checks share, and how they ask over it.

It has a pool of its own, so a check-up neither waits for what the process does otherwise nor holds it up; commands
count in the portal's budget as any other. Checks are synchronous and come one after another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from launcher.clusters import Cluster
from launcher.parts import hands_loop, new_pool, shared_turns
from launcher.schedulers import adapter
from launcher.schedulers.base import Command, CommandResult, Scheduler, SchedulerError
from launcher.ssh.hands import Hands

T = TypeVar("T")

REASON = "doctor"
STEP_SECONDS = 40.0
"""A check on a cluster is given up after so long."""


@dataclass(slots=True)
class Visit:
    """What the checks of one cluster work with, and what an earlier one leaves for a later one."""

    cluster: Cluster
    username: str
    hands: Hands
    scheduler: Scheduler
    with_job: bool = False
    named: list[str] = field(default_factory=list)  # login hosts whose names are found
    reachable: list[str] = field(default_factory=list)  # of those, the ones whose port answers

    def wait_for(self, coroutine: Coroutine[Any, Any, T], seconds: float = STEP_SECONDS - 1) -> T:
        """The result of ``coroutine`` on the loop of the hands; its errors are raised here."""
        return hands_loop().run(coroutine, seconds)

    def run(self, *argv: str, stdin: bytes = b"") -> CommandResult:
        """The answer of one command. Raises SSHError."""
        command = Command(argv, stdin=stdin)
        return self.wait_for(self.hands.run(self.cluster, self.username, command, reason=REASON))

    def ask(self, build: Callable[[Scheduler], Command], parse: Callable[[Scheduler, CommandResult], T]) -> T:
        """The scheduler's answer. Where its client turns out to be old, it is asked as such. Raises SchedulerError."""
        while True:
            command = build(self.scheduler)
            result = self.wait_for(self.hands.run(self.cluster, self.username, command, reason=REASON))
            try:
                return parse(self.scheduler, result)
            except SchedulerError:
                older = self.scheduler.downgrade(result)
                if older is None:
                    raise
                self.scheduler = older


@contextlib.contextmanager
def visit(cluster: Cluster, username: str, *, with_job: bool = False) -> Iterator[Visit]:
    """A visit; its connections are closed at the end."""
    pool = new_pool()
    scheduler = adapter(cluster.scheduler, cluster.commands_folder)
    try:
        yield Visit(cluster, username, Hands(pool, shared_turns()), scheduler, with_job)
    finally:
        with contextlib.suppress(Exception):  # whatever it is, the findings are made
            hands_loop().run(pool.aclose(), 10)
