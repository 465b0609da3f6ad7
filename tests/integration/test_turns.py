"""The budget of commands holds for all processes together, in a real Valkey."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import redis
from django.conf import settings

from launcher import turns
from launcher.ssh.budget import Budget, TurnsAway
from launcher.turns import PREFIX, Load, SharedTurns
from portal.conf import PROJECT
from tests.settings import FOLDER

HOST = "demo@login1"
PER_SECOND = 20.0
NOWHERE = f"unix://{FOLDER}/nothing-here.sock"


@pytest.fixture
def url(valkey: None) -> str:
    return str(settings.CONF.valkey_url)


@pytest.fixture
async def shared(url: str) -> AsyncIterator[SharedTurns]:
    turns = SharedTurns(url)
    yield turns
    await turns.aclose()


@dataclass(frozen=True)
class Taken:
    """A turn, and between which moments it was asked for (monotonic seconds)."""

    wait_seconds: float
    begun: float
    ended: float

    @classmethod
    async def by(cls, turns: SharedTurns, per_second: float) -> Taken:
        begun = time.monotonic()
        turn = await turns.take(HOST, per_second, 60)
        assert turn.is_given
        return cls(turn.wait_seconds, begun, time.monotonic())

    def may_be_after(self, other: Taken, *, seconds: float) -> bool:
        """Whether it is due these seconds after the other, as far as one can tell from outside."""
        waits = self.wait_seconds - other.wait_seconds
        return self.begun - other.ended - 0.05 <= seconds - waits <= self.ended - other.begun + 0.05


def test_three_processes_that_hammer_stay_within_the_rate_together(url: str) -> None:
    argv = [sys.executable, "-m", "tests.integration.turns_process", url, HOST, str(PER_SECOND)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(argv, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    ways = [(process.stdin, process.stdout) for process in processes]
    assert [way_out.readline() for _, way_out in ways if way_out] == ["ready\n"] * 3
    until = time.time() + 6
    for way_in, _ in ways:
        assert way_in is not None
        way_in.write(f"{until}\n")
        way_in.flush()
    parts = [[float(line) for line in process.communicate(timeout=60)[0].split()] for process in processes]
    assert all(parts), "each process got turns"
    moments = sorted(moment for part in parts for moment in part)
    seconds = moments[-1] - moments[0]
    burst = PER_SECOND  # a second's worth may come at once
    late = PER_SECOND / 2  # the first word of a turn may reach a busy process later than the last
    assert len(moments) <= PER_SECOND * seconds + burst + late
    assert len(moments) >= PER_SECOND * seconds * 0.7, "and hardly any of the budget is lost"


async def test_turns_are_far_apart_where_less_than_one_a_second_is_allowed(shared: SharedTurns) -> None:
    turns = [await Taken.by(shared, 0.25) for _ in range(3)]
    assert turns[0].wait_seconds == 0
    assert turns[1].may_be_after(turns[0], seconds=4)
    assert turns[2].may_be_after(turns[1], seconds=4)


async def test_a_refused_turn_takes_nothing_away(shared: SharedTurns) -> None:
    for _ in range(30):
        first = await Taken.by(shared, 1)
    refused = [await shared.take(HOST, 1, 0.1) for _ in range(20)]
    then = await Taken.by(shared, 1)
    assert not any(turn.is_given for turn in refused)
    assert then.may_be_after(first, seconds=1)


async def test_what_was_asked_in_the_last_minute_is_counted(shared: SharedTurns) -> None:
    waits = [(await shared.take(HOST, 1, 60)).wait_seconds for _ in range(3)]
    await shared.take(HOST, 1, 0)
    load = (await shared.load([HOST, "demo@login2"]))[HOST]
    assert load.commands == pytest.approx(3, abs=0.5)
    assert load.refused == pytest.approx(1, abs=0.2)
    assert load.waited_seconds == pytest.approx(sum(waits), abs=0.8)


async def test_what_was_asked_long_ago_is_counted_no_more(shared: SharedTurns, url: str) -> None:
    await shared.take(HOST, 1, 60)
    with redis.Redis.from_url(url) as client:
        client.hset(PREFIX + HOST, "minute", int(time.time() // 60) - 5)
    assert (await shared.load([HOST]))[HOST] == Load()


async def test_the_counts_of_a_host_that_is_asked_no_more_are_forgotten(shared: SharedTurns, url: str) -> None:
    await shared.take(HOST, 1, 60)
    with redis.Redis.from_url(url) as client:
        assert 0 < client.pttl(PREFIX + HOST) <= 600_000


async def test_without_valkey_the_process_goes_by_its_own_count_and_does_not_wait_for_it() -> None:
    budget = Budget(SharedTurns(NOWHERE))
    begin = asyncio.get_running_loop().time()
    for _ in range(30):
        await budget.take_turn(HOST, PER_SECOND)
    took = asyncio.get_running_loop().time() - begin
    assert 0.4 < took < 12


async def test_a_valkey_that_dropped_the_connection_is_asked_on_a_new_one(shared: SharedTurns, url: str) -> None:
    await shared.take(HOST, 1, 1)
    with redis.Redis.from_url(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert (await shared.take(HOST, 1, 5)).is_given


async def test_a_valkey_that_came_back_gives_the_turns_again(
    shared: SharedTurns, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(shared, "_url", NOWHERE)
    with pytest.raises(TurnsAway):
        await shared.take(HOST, 1, 1)
    await shared.aclose()
    monkeypatch.setattr(shared, "_url", url)
    assert (await shared.take(HOST, 1, 1)).is_given


async def test_a_turn_costs_less_than_ten_milliseconds(shared: SharedTurns) -> None:
    await shared.take(HOST, 1000, 1)
    begin = time.perf_counter()
    for _ in range(500):
        await shared.take(HOST, 1000, 60)
    microseconds = (time.perf_counter() - begin) / 500 * 1_000_000
    sys.stdout.write(f"a turn costs {microseconds:.0f} µs\n")
    assert microseconds < 10_000


async def test_a_clock_of_valkey_that_is_set_back_stops_nothing(shared: SharedTurns, url: str) -> None:
    await shared.take(HOST, 1, 60)
    with redis.Redis.from_url(url) as client:  # what was counted an hour later by the clock
        client.hset(PREFIX + HOST, "tat", int((time.time() + 3600) * 1_000_000))
    assert (await shared.take(HOST, 1, 1)).is_given
