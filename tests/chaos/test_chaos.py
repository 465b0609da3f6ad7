"""Everything falls over, again and again, while people launch and stop sessions. Afterwards nothing is wrong.

CHAOS_LAUNCHES   how many sessions (8; `make chaos`: 50)
CHAOS_SEED       the order of the harm; printed, so that a run can be repeated as far as time itself allows
"""

from __future__ import annotations

import collections
import os
import random
import sys
import threading
import time

import pytest

from launcher.democluster.settings import DEFAULT_ACCOUNTS
from tests.chaos.monkey import Monkey
from tests.chaos.people import Person
from tests.chaos.truth import Row, Truth
from tests.demo_process import StartedDemo, started_demo
from tests.waiting import wait_for

LAUNCHES = int(os.environ.get("CHAOS_LAUNCHES", "8"))
LIVE_AT_ONCE = 10
ALLOWED = 100
HAVOC_SECONDS = 90 + 10 * LAUNCHES
SETTLE_SECONDS = 150

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240 + 20 * LAUNCHES)]


def people_of(demo: StartedDemo, truth: Truth, answers: collections.Counter[str]) -> list[Person]:
    """alice, bob and admin, each with a token and room for many sessions."""
    from launcher.demo.browser import Browser, forms_of

    people = []
    for account in DEFAULT_ACCOUNTS:
        browser = Browser("127.0.0.1")
        form = next(form for form in forms_of(browser.get(f"{demo.running.url}/sign-in/")) if "password" in form.values)
        assert browser.submit(form, username=account.name, password=account.password).status == 302
        made = demo.manage("createtoken", account.name, "--scope", "write")
        assert made.returncode == 0, made.stderr
        people.append(Person(demo, account.name, made.stdout.strip(), answers))
    truth.allow_sessions(ALLOWED)
    return people


def live(rows: list[Row]) -> list[Row]:
    """Those nobody has asked to stop."""
    return [row for row in rows if row.is_live and not row.stop_requested_by]


def raise_havoc(people: list[Person], monkey: Monkey, truth: Truth, dice: random.Random) -> None:
    """Launch, stop, kill and switch faults until there are enough sessions and each kind of harm was done."""
    pause = threading.Event()
    began = next_launch = next_harm = time.monotonic()
    while len(rows := truth.rows()) < LAUNCHES or monkey.not_done:
        moment = time.monotonic()
        if moment > began + HAVOC_SECONDS:
            pytest.fail(f"after {HAVOC_SECONDS} s there were {len(rows)} sessions, and not done were {monkey.not_done}")
        wanted = live(rows)
        if moment >= next_launch and len(rows) < LAUNCHES:
            if len(wanted) >= LIVE_AT_ONCE or (len(wanted) > 3 and dice.random() < 0.4):
                row = dice.choice(wanted)
                next(person for person in people if person.name == row.username).stop(row.id)
            if len(wanted) < LIVE_AT_ONCE:
                dice.choice(people).launch(f"chaos {len(rows)}")
            next_launch = moment + dice.uniform(0.3, 2.5)
        if moment >= next_harm:
            monkey.act()
            next_harm = moment + dice.uniform(0.8, 2.5)
        monkey.heal()
        pause.wait(0.1)
    monkey.heal(everything=True)


def settle(monkey: Monkey, truth: Truth) -> float:
    """Wait until every session can be used or has ended. How many seconds that took."""
    began = time.monotonic()

    def all_settled() -> bool:
        if monkey.worker_died_at is not None:
            truth.let_claims_run_out(monkey.worker_died_at)
        return all(row.is_settled for row in truth.rows())

    wait_for(
        all_settled,
        seconds=SETTLE_SECONDS,
        pause_seconds=0.5,
        what=lambda: f"all to settle: {[row for row in truth.rows() if not row.is_settled]}",
    )
    return time.monotonic() - began


def stop_all(people: list[Person], truth: Truth) -> None:
    """Everybody goes home: every session ends, and every job."""
    by_name = {person.name: person for person in people}
    for row in live(truth.rows()):
        by_name[row.username].stop(row.id)
    wait_for(
        lambda: all(not row.is_live for row in truth.rows()) and all(job.has_ended for job in truth.jobs()),
        seconds=SETTLE_SECONDS,
        pause_seconds=0.5,
        what=lambda: f"all to end: {[row for row in truth.rows() if row.is_live]} {truth.orphans()}",
    )


def test_no_job_is_doubled_or_lost_and_no_session_ends_wrongly_while_everything_falls_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    answers: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    with started_demo("fb-chaos-") as demo:
        truth, monkey = Truth(demo), Monkey(demo, dice)
        people = people_of(demo, truth, answers)
        try:
            raise_havoc(people, monkey, truth, dice)
            seconds = settle(monkey, truth)
            orphans, wrongly = truth.orphans(), [row for row in truth.rows() if row.was_wrongly_ended]
            stop_all(people, truth)
            rows, duplicates = truth.rows(), truth.duplicates()
            orphans += truth.orphans()
            unexplained = [row.id for row in rows if not row.end_reason or not row.end_code]
            chain = demo.manage("verifyaudit")
            figures: list[tuple[str, object]] = [
                ("seed", seed),
                ("sessions", len(rows)),
                ("jobs on the cluster", len(truth.jobs())),
                ("jobs adopted after a lost answer", truth.events("session.job_adopted")),
                ("most tries of one submission", max(row.submit_attempts for row in rows)),
                *sorted(monkey.done.items()),
                *sorted(answers.items()),
                ("seconds until settled", f"{seconds:.1f}"),
                ("seconds in all", f"{time.monotonic() - began:.0f}"),
                ("duplicate jobs", len(duplicates)),
                ("orphans", len(orphans)),
                ("sessions wrongly ended", len(wrongly)),
                ("sessions without an end reason", len(unexplained)),
                ("audit events", truth.events()),
                ("audit chain", "whole" if chain.returncode == 0 else "BROKEN"),
            ]
            with capsys.disabled():
                sys.stdout.write("\n" + "".join(f"  {name:<36}{value!s:>10}\n" for name, value in figures))
        except BaseException:
            with capsys.disabled():
                sys.stdout.write(f"\nCHAOS_SEED={seed} {dict(monkey.done)}\n" + last_words(demo))
            raise
    assert (duplicates, orphans, wrongly, unexplained) == ([], [], [], [])
    assert chain.returncode == 0, chain.stdout + chain.stderr
    assert answers["POST 500"] == answers["DELETE 500"] == 0


def last_words(demo: StartedDemo) -> str:
    """The ends of the logs, for whoever has to find out what went wrong."""
    logs = [*sorted(demo.folder.logs.glob("*.log")), demo.folder.root / "start.log"]
    return "".join(
        f"--- {log.name}\n" + "\n".join(log.read_text("utf-8", "replace").splitlines()[-40:]) + "\n" for log in logs
    )
