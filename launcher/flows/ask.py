"""Asks a scheduler one thing as one user. Where the cluster's client turns out to be old, the adapter steps down and
the question is asked again: a command that was refused for its options has done nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from launcher.clusters import Cluster
from launcher.parts import hands, keep_scheduler, scheduler_of
from launcher.schedulers.base import Command, CommandResult, Scheduler, SchedulerError
from launcher.ssh.budget import LONGEST_WAIT_SECONDS

Answer = TypeVar("Answer")


async def ask(
    cluster: Cluster,
    account: str,
    build: Callable[[Scheduler], Command],
    parse: Callable[[Scheduler, CommandResult], Answer],
    *,
    longest_wait_seconds: float = LONGEST_WAIT_SECONDS,
) -> Answer:
    """The answer that ``parse`` makes of what ``build``'s command printed. Raises SchedulerError or SSHError.

    ``longest_wait_seconds``: for the command's turn in the budget (``launcher.ssh.budget``).
    """
    while True:
        scheduler = scheduler_of(cluster.id)
        result = await hands().run(cluster, account, build(scheduler), longest_wait_seconds=longest_wait_seconds)
        try:
            return parse(scheduler, result)
        except SchedulerError:
            older = scheduler.downgrade(result)
            if older is None:
                raise
            keep_scheduler(cluster.id, older)
