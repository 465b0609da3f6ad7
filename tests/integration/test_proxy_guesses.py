"""Guessed cookies, addresses and codes: from some number on they cost the database nothing, and nobody else suffers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from launcher.proxy import guesses
from tests.integration.proxy_peers import COOKIE, LABEL, Portal, Upstream

pytestmark = pytest.mark.integration

BURST = 20
MANY = 5 * BURST


@pytest.fixture
async def portal(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Portal]:
    """A portal that lets an address guess a few times, and hardly forgets that."""
    monkeypatch.setattr(guesses, "BURST", BURST)
    monkeypatch.setattr(guesses, "PER_SECOND", 0.001)
    async with Upstream().running() as upstream, Portal(upstream).running() as running:
        yield running


async def statuses_of_guesses(portal: Portal, first: int = 0) -> list[int]:
    return [(await portal.ask("GET", "/", cookie=f"guess-{number}")).status for number in range(first, first + MANY)]


async def test_guessed_cookies_cost_a_bounded_number_of_look_ups(portal: Portal) -> None:
    statuses = await statuses_of_guesses(portal)
    assert statuses == [403] * BURST + [429] * (MANY - BURST)
    assert portal.lookups == BURST


async def test_guessed_codes_count_as_well(portal: Portal) -> None:
    asked = [(await portal.ask("GET", f"/.footbridge/enter?code={number:032}")).status for number in range(MANY)]
    assert asked.count(429) == MANY - BURST


async def test_guessed_addresses_count_as_well(portal: Portal) -> None:
    hosts = [f"{LABEL[:-3]}{number:03}".translate(str.maketrans("0123456789", "bcdefghijk")) for number in range(MANY)]
    asked = [await portal.ask("GET", "/", host=f"{host}.localhost:{portal.port}".encode()) for host in hosts]
    assert [answer.status for answer in asked].count(429) == MANY - BURST
    assert portal.lookups == BURST


async def test_an_open_session_behind_the_same_address_goes_on(portal: Portal) -> None:
    assert (await portal.ask("GET", "/")).status == 200
    await statuses_of_guesses(portal)
    portal.proxy.access._clock = lambda: 1e12  # its answer has grown old and is asked for again
    before = portal.lookups
    assert (await portal.ask("GET", "/")).status == 200
    assert portal.lookups == before + 1


async def test_the_same_stale_cookie_again_and_again_is_one_guess(portal: Portal) -> None:
    clock = iter(range(0, 10**9, 1000))
    portal.proxy.access._clock = lambda: float(next(clock))  # no answer is kept
    assert {(await portal.ask("GET", "/", cookie="closed-tab")).status for _ in range(MANY)} == {403}
    portal.access[LABEL, "new"] = portal.access[LABEL, COOKIE]
    assert (await portal.ask("GET", "/", cookie="new")).status == 200


async def test_another_address_may_guess_of_its_own(portal: Portal) -> None:
    counted = guesses.Guesses()
    for _ in range(BURST):
        assert not counted.refuses("192.0.2.1")
        counted.count("192.0.2.1")
    assert counted.refuses("192.0.2.1")
    assert not counted.refuses("192.0.2.2")
    for number in range(guesses.MOST_KEPT):
        counted.count(f"10.1.{number // 256}.{number % 256}")
    assert len(counted._free_at) == guesses.MOST_KEPT
