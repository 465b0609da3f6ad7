"""The SSH server of a real Slurm's login host is killed, with every connection, while people launch and stop sessions.

The demo's chaos (``test_chaos``) kills the portal's own processes and lets the demo cluster's login host vanish; here
OpenSSH's sshd and all its children get SIGKILL. What they ran goes on by itself, as on any login host: an sbatch whose
connection is gone may still bring a job into being. CHAOS_LAUNCHES and CHAOS_SEED mean the same as there.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections

from launcher import parts, services
from launcher.flows.cancel import cancel
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.selectors import verify
from tests.settings import FOLDER
from tests.slurm import CLUSTER_ID, SlurmSite, slurm_site, why_not
from tests.story import allow, events_of
from tests.waiting import wait_for

LAUNCHES = int(os.environ.get("CHAOS_LAUNCHES", "6"))
LIVE_AT_ONCE = 4
WORKERS = 4
COMMAND_SECONDS = 5
"""Of patience with one command; a submission that was cut off is tried again after that."""
KILL_EVERY_SECONDS = (0.2, 3.0)
FEWEST_KILLS = 3
SETTLE_SECONDS = 150

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.chaos,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.timeout(300 + 20 * LAUNCHES),
]

RAW: dict[str, object] = {"cores": "1", "memory": "512 MB", "hours": "1", "title": "Chaos"}


@pytest.fixture
def slurm(user_ca: Path, valkey: None) -> Iterator[SlurmSite]:
    """A Slurm that may be left in any state."""
    with slurm_site(user_ca, {"alice": "a password of alice", "bob": "a password of bob"}) as site:
        if found := site.unreadable("alice"):
            pytest.skip(f"an ordinary account cannot run this Python and its packages: {found[-200:]}")
        text = site.toml(command_timeout_seconds=COMMAND_SECONDS, commands_per_second=100)
        (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
        parts.forget()
        yield site
        parts.hands_loop().run(parts.hands().pool.aclose(), 10)
        parts.hands_loop().run(parts.shared_turns().aclose(), 10)
        parts.hands.cache_clear()


class Killer(threading.Thread):
    """Kills the SSH server, with all connections, and starts it again, until it is told to stop."""

    def __init__(self, slurm: SlurmSite, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._slurm, self._dice, self._is_over = slurm, dice, threading.Event()

    def run(self) -> None:
        """Harm."""
        while not self._is_over.wait(self._dice.uniform(*KILL_EVERY_SECONDS)):
            self._slurm.kill_ssh_server()
            self.kills += 1
            self._is_over.wait(self._dice.uniform(0, 1.5))
            self._slurm.start_ssh_server()

    def stop(self) -> None:
        """The server is there again when this returns."""
        self._is_over.set()
        self.join(30)
        assert not self.is_alive()


class Book:
    """Every job that Slurm ever showed: it forgets those that ended some minutes ago."""

    def __init__(self, slurm: SlurmSite) -> None:
        self._slurm = slurm
        self.names: dict[str, str] = {}  # by job id
        self.live: set[str] = set()  # names

    def look(self) -> None:
        """Take down what there is now."""
        lines = self._slurm.root("squeue", "--noheader", "--states=all", "--format=%A %j %T").splitlines()
        jobs = [line.split() for line in lines]
        self.names |= {job_id: name for job_id, name, _ in jobs}
        ended = {"CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
        self.live = {name for _, name, state in jobs if state not in ended}

    @property
    def duplicates(self) -> list[str]:
        """Names that more than one job has carried."""
        return [name for name, count in collections.Counter(self.names.values()).items() if count > 1]


def rows() -> list[InteractiveSession]:
    return list(InteractiveSession.objects.order_by("created_at"))


def work_once(pool: concurrent.futures.Executor) -> None:
    """What the workers do about everything there is, side by side."""

    def does(flow: Callable[[str], None], subject: str) -> None:
        try:
            flow(subject)
        finally:
            connections.close_all()

    tasks = [pool.submit(does, poll, CLUSTER_ID)]
    for session in rows():
        if session.state == SessionState.SUBMITTING:
            tasks.append(pool.submit(does, submit, session.pk))
        if session.state == SessionState.STOPPING:
            tasks.append(pool.submit(does, cancel, session.pk))
    for task in tasks:
        task.result(120)


def wanted() -> list[InteractiveSession]:
    return [session for session in rows() if session.is_live and session.stop_requested_at is None]


def launch_or_stop(people: list[User], dice: random.Random) -> None:
    """Launch while there is room; else stop a session that is ready, and now and then one that is not."""
    if len(wanted()) < LIVE_AT_ONCE:
        launch(user=dice.choice(people), app_id="jupyter", raw=RAW, address="")
        return
    ready = [session for session in wanted() if session.state == SessionState.READY]
    if ready or dice.random() < 0.2:
        session = dice.choice(ready or wanted())
        assert session.owner is not None
        services.request_stop(session=session, actor=session.owner, address="")


def test_no_job_is_doubled_or_lost_while_the_ssh_server_is_killed(
    slurm: SlurmSite, alice: User, bob: User, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    dice, began, book = random.Random(seed), time.monotonic(), Book(slurm)
    people = [alice, bob]
    for person in people:
        allow(person, sessions=100)
    killer = Killer(slurm, random.Random(seed))
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        killer.start()
        try:
            while len(rows()) < LAUNCHES or killer.kills < FEWEST_KILLS:
                if len(rows()) < LAUNCHES:
                    launch_or_stop(people, dice)
                work_once(pool)
                book.look()
        finally:
            killer.stop()

        def has_settled() -> bool:
            work_once(pool)
            book.look()
            return all(
                not row.is_live or (row.state == SessionState.READY and not row.unreachable_since) for row in rows()
            )

        wait_for(has_settled, seconds=SETTLE_SECONDS, what=lambda: [str(row) for row in rows() if row.is_live])
        wrongly = [row for row in rows() if not row.is_live and row.end_reason != "stopped_by_user"]
        orphans = book.live - {row.job_name for row in rows() if row.is_live}
        for session in wanted():
            assert session.owner is not None
            services.request_stop(session=session, actor=session.owner, address="")
        wait_for(
            lambda: has_settled() and not wanted() and not book.live,
            seconds=SETTLE_SECONDS,
            what=lambda: f"{[str(row) for row in rows() if row.is_live]} {book.live}",
        )
    unexplained = [row.pk for row in rows() if not row.end_reason or not row.end_code]
    figures = {
        "seed": seed,
        "sessions": len(rows()),
        "jobs": len(book.names),
        "SSH server killed": killer.kills,
        "most tries of one submission": max(row.submit_attempts for row in rows()),
        "jobs adopted": sum("session.job_adopted" in events_of(row) for row in rows()),
        "seconds": round(time.monotonic() - began),
        "duplicate jobs": len(book.duplicates),
        "orphans": len(orphans),
        "sessions wrongly ended": len(wrongly),
        "sessions without an end reason": len(unexplained),
    }
    with capsys.disabled():
        sys.stdout.write("\n" + "".join(f"  {name:<36}{value!s:>10}\n" for name, value in figures.items()))
    assert killer.kills
    assert (book.duplicates, orphans, [str(row) for row in wrongly], unexplained) == ([], set(), [], [])
    assert verify().broken is None
