"""Poll rounds over a crowd of sessions: how many commands, how much of the worker's processor, and whether it is right.

LOAD_SESSIONS   how many sessions (400; `make load`: 2000), of a tenth as many users
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.utils import timezone

from launcher import parts
from launcher.flows.poll import poll
from launcher.flows.poll_ask import BATCH, SIDE_BY_SIDE
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.selectors import verify
from portal.conf import PROJECT
from tests.conftest import toml_value
from tests.load.crowded_cluster import OPERATOR
from tests.settings import FOLDER
from tests.waiting import wait_for

SESSIONS = int(os.environ.get("LOAD_SESSIONS", "400"))
USERS = SESSIONS // 10
CHANGES = SESSIONS // 100
"""Jobs that end between two rounds; as many others start."""
MOST_CPU_SECONDS = 2.0

pytestmark = [pytest.mark.load, pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

RIGHT = {
    "Q": {SessionState.QUEUED},
    "R": {SessionState.STARTING, SessionState.READY},
    "E": {SessionState.STARTING, SessionState.READY},
    "F": {SessionState.ENDED},
}
"""What a card may show for each state of its job."""


class Crowd:
    """The crowded cluster, from here."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.place = self._line()

    def ask(self, order: str) -> object:
        """See ``crowded_cluster``."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> object:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def jobs(self) -> list[tuple[str, str, str, str]]:
        """Id, name, owner and state of every job."""
        return [tuple(job) for job in self.ask("jobs")]  # type: ignore[attr-defined]  # a list of lists


@pytest.fixture
def crowd(user_ca: Path, valkey: None, tmp_path: Path) -> Iterator[Crowd]:
    """A simulated cluster with as many jobs as there will be sessions."""
    command = [sys.executable, "-m", "tests.load.crowded_cluster", str(tmp_path), str(user_ca), str(USERS)]
    with subprocess.Popen(
        [*command, str(SESSIONS)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Crowd(process)
        finally:
            parts.hands_loop().run(parts.hands().pool.aclose(), 60)
            parts.hands.cache_clear()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(60)


def write_clusters_file(crowd: Crowd, *, operator: str) -> None:
    """The clusters file of the crowded cluster."""
    place = crowd.place
    assert isinstance(place, dict)
    values: dict[str, object] = {
        "name": "Crowded",
        "login_hosts": [f"127.0.0.1:{place['port']}"],
        "host_keys": [place["host_key"]],
        "commands_folder": place["commands_folder"],
        "operator": operator,
        "commands_per_second": 100,
    }
    lines = "\n".join(f"{name} = {toml_value(value)}" for name, value in values.items())
    (FOLDER / "clusters.toml").write_text(f'[clusters.demo]\n{lines}\n[[clusters.demo.queues]]\nname = "workq"\n')
    parts.forget()


def make_sessions(crowd: Crowd) -> None:
    """A session for every job, as it is after a while: those whose job runs are ready."""
    wait_for(
        lambda: [job for job in crowd.jobs() if job[3] == "R"] and crowd.jobs()[0][3] == "R",
        what="jobs to run",
    )
    jobs = crowd.jobs()
    owners = {name: User(username=name, password="!") for name in {owner for _, _, owner, _ in jobs}}
    User.objects.bulk_create(owners.values())
    moment = timezone.now()
    InteractiveSession.objects.bulk_create(
        InteractiveSession(
            id=name.removeprefix("fb-"),
            owner=owners[owner],
            username=owner,
            cluster="demo",
            app="jupyter",
            state=SessionState.READY if state == "R" else SessionState.QUEUED,
            created_at=moment,
            submitted_at=moment,
            started_at=moment if state == "R" else None,
            ready_at=moment if state == "R" else None,
            job_id=job_id,
            folder=f"/nowhere/{name}",
            upstream_host="node0" if state == "R" else "",
            upstream_port=8888 if state == "R" else None,
        )
        for job_id, name, owner, state in jobs
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round took."""

    commands: int
    cpu_seconds: float
    seconds: float


def connect(accounts: list[str]) -> None:
    """Open the connections that the rounds will use, as a worker does once in its life."""

    async def connect_all() -> None:
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def connect_one(account: str) -> None:
            async with gate:
                await parts.hands().pool.connection(parts.clusters()["demo"], account)

        await asyncio.gather(*(connect_one(account) for account in accounts))

    parts.hands_loop().run(connect_all(), 60)


def cost_of(crowd: Crowd, work: Callable[[], None]) -> Cost:
    """What ``work`` takes. Processor time is that of this whole process: the worker's threads and its loop."""
    crowd.ask("asked")
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    asked = crowd.ask("asked")
    assert isinstance(asked, int)
    return Cost(asked, cpu, clock)


def one_round(crowd: Crowd) -> Cost:
    """The cost of a poll round."""
    return cost_of(crowd, lambda: poll("demo"))


def wrong_cards(crowd: Crowd) -> list[tuple[str, str, str]]:
    """Sessions whose state is not that of their job."""
    states = dict(InteractiveSession.objects.values_list("job_id", "state"))
    return [
        (job_id, state, states[job_id]) for job_id, _, _, state in crowd.jobs() if states[job_id] not in RIGHT[state]
    ]


@pytest.mark.parametrize("operator", [OPERATOR, ""], ids=["operator", "each user"])
def test_a_poll_round_costs_a_command_a_batch_and_little_processor_and_is_right_within_two_rounds(
    crowd: Crowd, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clusters_file(crowd, operator=operator)
    make_sessions(crowd)
    batches = math.ceil(SESSIONS / BATCH) if operator else USERS
    accounts = [operator] if operator else [f"user{number}" for number in range(USERS)]
    connecting = cost_of(crowd, lambda: connect(accounts))
    first, quiet = one_round(crowd), one_round(crowd)
    assert not InteractiveSession.objects.filter(job_comment="").exists()  # every row was written in the first
    assert wrong_cards(crowd) == []
    crowd.ask(f"end {CHANGES}")
    wait_for(
        lambda: (
            sum(state == "F" for *_, state in crowd.jobs()) == CHANGES
            and sum(state == "E" for *_, state in crowd.jobs()) == 0
        ),
        what="jobs to end",
    )
    changed, afterwards = one_round(crowd), one_round(crowd)
    wrong = wrong_cards(crowd)
    with capsys.disabled():
        sys.stdout.write(f"\n  {SESSIONS} sessions of {USERS} users, {operator or 'each user asks'}\n")
        rounds = (
            ("connecting", connecting),
            ("all rows change", first),
            ("quiet", quiet),
            (f"{CHANGES} jobs ended", changed),
        )
        for name, cost in (*rounds, ("the one after", afterwards)):
            sys.stdout.write(
                f"  {name:<24}{cost.commands:>5} commands {cost.cpu_seconds:7.2f} s CPU {cost.seconds:7.2f} s\n"
            )
    assert wrong == []
    assert [cost.commands for cost in (first, quiet, changed, afterwards)] == [batches] * 4
    assert max(cost.cpu_seconds for cost in (first, quiet, changed, afterwards)) < MOST_CPU_SECONDS
    assert verify().broken is None
