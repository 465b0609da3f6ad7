"""No more scheduler commands a second than the site allows."""

from __future__ import annotations

import asyncio

import pytest

from launcher.ssh.budget import Budget


class Clock:
    """A loop's clock that moves only when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("launcher.ssh.budget.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_burst_of_one_second_passes_and_the_rest_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget(5)
    for _ in range(5):
        await budget.take_turn()
    assert clock.now == pytest.approx(1000.0)
    for _ in range(10):
        await budget.take_turn()
    assert clock.now == pytest.approx(1002.0)
    assert budget.waited_seconds == pytest.approx(2.0)


async def test_a_quiet_hour_saves_up_no_more_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget(2)
    await budget.take_turn()
    clock.now += 3600
    begin = clock.now
    for _ in range(6):
        await budget.take_turn()
    assert clock.now - begin == pytest.approx(2.0)


async def test_less_than_one_a_second_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget(0.5)
    for _ in range(3):
        await budget.take_turn()
    assert clock.now == pytest.approx(1004.0)
