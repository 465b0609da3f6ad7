"""A simulated cluster full of jobs, in a process of its own so that its work is not counted as the portal's.

    python -m tests.load.crowded_cluster ROOT USER_CA USERS JOBS

One order a line on stdin, one line of JSON as the answer: ``jobs`` (id and name of every job, and its state),
``asked`` (how many status commands there were since the last time), ``end N`` (N running jobs end; others start).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from launcher.democluster.cluster import DemoCluster
from launcher.democluster.pbs import service
from launcher.democluster.pbs.calls import Answer, Call
from launcher.democluster.pbs.job import State
from launcher.democluster.pbs.qsub import qsub
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.settings import Account, DemoSettings, Node

OPERATOR = "operator"
CORES_PER_NODE = 32
SHARE_RUNNING = 0.8


class Crowd:
    """The cluster, and what the test may ask of it."""

    def __init__(self, cluster: DemoCluster) -> None:
        self._cluster = cluster
        self._asked = 0
        self._qstat = service.COMMANDS["qstat"]

    async def qstat(self, call: Call, scheduler: Scheduler) -> Answer:
        """qstat, counted."""
        self._asked += 1
        return await self._qstat(call, scheduler)

    async def fill(self, users: list[Account], jobs: int) -> None:
        """So many jobs, dealt out to the users, each under a name as the portal gives it."""

        async def script() -> bytes:
            return b"#!/bin/sh\n"

        for number in range(jobs):
            user = users[number % len(users)]
            line = ("-N", f"fb-load{number}", "-l", "select=1:ncpus=1:mem=512mb", "-l", "walltime=08:00:00")
            home = str(self._cluster.settings.home(user.name))
            call = Call("qsub", line, home, user, {"HOME": home}, script)
            answer = await qsub(call, self._cluster.scheduler)
            if answer.exit_code:
                raise RuntimeError(answer.stderr)

    def obey(self, order: str) -> object:
        """The answer to an order."""
        scheduler = self._cluster.scheduler
        match order.split():
            case ["jobs"]:
                return [
                    (job.job_id, job.request.name, job.request.owner, job.state.value)
                    for job in scheduler.jobs.values()
                ]
            case ["asked"]:
                asked, self._asked = self._asked, 0
                return asked
            case ["end", count]:
                running = [job for job in scheduler.jobs.values() if job.state is State.RUNNING]
                for job in running[: int(count)]:
                    scheduler.delete(job, job.request.owner, force=True)
                return len(running[: int(count)])
        raise ValueError(order)


async def main() -> None:
    """Run until stdin is closed."""
    root, user_ca, user_count, jobs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    users = [Account(f"user{number}", f"secret-{number}") for number in range(user_count)]
    nodes = max(1, round(jobs * SHARE_RUNNING / CORES_PER_NODE))
    settings = DemoSettings(
        root=root,
        port=0,
        user_ca_public_key=user_ca,
        accounts=(*users, Account(OPERATOR, "secret-operator", is_operator=True)),
        nodes=tuple(Node(f"node{number}", cores=CORES_PER_NODE, memory_mib=64 * 1024) for number in range(nodes)),
        simulate=True,
    )
    async with DemoCluster(settings) as cluster:
        crowd = Crowd(cluster)
        service.COMMANDS = {**service.COMMANDS, "qstat": crowd.qstat}
        await crowd.fill(users, jobs)
        place = {
            "port": cluster.port,
            "host_key": cluster.host_public_key,
            "commands_folder": str(cluster.commands_folder),
        }
        sys.stdout.write(json.dumps(place) + "\n")
        sys.stdout.flush()
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while order := await orders.readline():
            sys.stdout.write(json.dumps(crowd.obey(order.decode())) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
