"""No more scheduler commands a second than the site allows, in one process. All of them together: test_turns."""

from __future__ import annotations

import asyncio

import pytest

from launcher.ssh.budget import Budget, Turn, TurnsAway
from launcher.ssh.errors import TooBusy

HOST = "demo@login1"


class Clock:
    """A loop's clock that moves only when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("launcher.ssh.budget.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


class AwayTurns:
    """A store that does not answer."""

    async def take(self, host: str, per_second: float, longest_wait_seconds: float) -> Turn:
        raise TurnsAway


async def test_a_burst_of_one_second_passes_and_the_rest_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget()
    for _ in range(5):
        await budget.take_turn(HOST, 5)
    assert clock.now == pytest.approx(1000.0)
    for _ in range(10):
        await budget.take_turn(HOST, 5)
    assert clock.now == pytest.approx(1002.0)


async def test_a_quiet_hour_saves_up_no_more_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget()
    await budget.take_turn(HOST, 2)
    clock.now += 3600
    begin = clock.now
    for _ in range(6):
        await budget.take_turn(HOST, 2)
    assert clock.now - begin == pytest.approx(2.0)


async def test_less_than_one_a_second_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget()
    for _ in range(3):
        await budget.take_turn(HOST, 0.5)
    assert clock.now == pytest.approx(1004.0)


async def test_each_login_host_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget()
    for host in ("demo@login1", "demo@login2", "other@login1"):
        await budget.take_turn(host, 1)
    assert clock.now == pytest.approx(1000.0)


async def test_a_turn_that_is_too_far_away_is_refused_at_once_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget()
    for _ in range(3):
        await budget.take_turn(HOST, 1)  # the second and the third wait a second each
    begin = clock.now
    for _ in range(50):
        with pytest.raises(TooBusy) as refused:
            await budget.take_turn(HOST, 1, longest_wait_seconds=0.5)
        assert refused.value.transient
    assert clock.now == begin
    await budget.take_turn(HOST, 1)
    assert clock.now - begin == pytest.approx(1.0)


async def test_while_the_shared_store_is_away_the_process_keeps_to_the_budget_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    budget = Budget(AwayTurns())
    for _ in range(15):
        await budget.take_turn(HOST, 5)
    assert clock.now == pytest.approx(1002.0)
