"""The answers' cache: how long it trusts, whom it asks, and what a drop does, with a clock held by the test."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from launcher.proxy.access import AccessCache, Durations
from launcher.proxy.access_types import Access, Target, Verdict
from portal.clock import now
from tests.integration.ssh_server import cluster_of
from tests.waiting import until

OPEN = Access(Verdict.OPEN, session_id="s1", user_id=1, username="alice")
PLACE = Target(
    cluster=cluster_of(22), username="alice", host="node1", port=8888, base_url="/", flavor="identity", secret="s"
)
AT_A_PLACE = replace(OPEN, target=PLACE)


class Database:
    """Answers with what ``rows`` says, and can be held up."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Access] = {("label", "cookie"): OPEN}
        self.asked: list[tuple[str, str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_away = False

    async def __call__(self, *, label: str, cookie_value: str) -> Access:
        self.asked.append((label, cookie_value))
        if self.is_away:
            raise OSError("no database")
        row = self.rows.get((label, cookie_value), Access(Verdict.SIGN_IN, session_id="s1"))
        await self.may_answer.wait()
        return row


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def database() -> Database:
    return Database()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(database: Database, clock: Clock) -> AsyncIterator[AccessCache]:
    cache = AccessCache(database, durations=Durations(), size=100, clock=clock)
    yield cache
    await cache.aclose()


async def test_an_answer_is_kept_for_five_seconds(cache: AccessCache, clock: Clock) -> None:
    assert cache.cached("label", "cookie") is None
    assert await cache.look_up("label", "cookie") is OPEN
    clock.seconds += 4.9
    assert cache.cached("label", "cookie") is OPEN
    clock.seconds += 0.2
    assert cache.cached("label", "cookie") is None


async def test_a_refusal_is_kept_for_a_second_only(cache: AccessCache, clock: Clock) -> None:
    await cache.look_up("label", "other")
    assert cache.cached("label", "other") is not None
    clock.seconds += 1.1
    assert cache.cached("label", "other") is None


async def test_an_answer_does_not_outlive_its_grant(cache: AccessCache, database: Database, clock: Clock) -> None:
    database.rows["label", "cookie"] = Access(Verdict.OPEN, expires_at=now() + dt.timedelta(seconds=2))
    await cache.look_up("label", "cookie")
    clock.seconds += 2.1
    assert cache.cached("label", "cookie") is None


async def test_many_who_ask_at_once_ask_the_database_once(cache: AccessCache, database: Database) -> None:
    answers = await asyncio.gather(*(cache.look_up("label", "cookie") for _ in range(50)))
    assert answers == [OPEN] * 50
    assert len(database.asked) == 1


async def test_one_who_gives_up_does_not_spoil_it_for_the_others(cache: AccessCache, database: Database) -> None:
    database.may_answer.clear()
    first = asyncio.create_task(cache.look_up("label", "cookie"))
    second = asyncio.create_task(cache.look_up("label", "cookie"))
    await until(lambda: database.asked, "the first to ask")
    first.cancel()
    database.may_answer.set()
    assert await second is OPEN


async def test_a_drop_during_a_look_up_makes_it_ask_again(cache: AccessCache, database: Database) -> None:
    database.may_answer.clear()
    asking = asyncio.create_task(cache.look_up("label", "cookie"))
    await until(lambda: database.asked, "the database to be asked")
    database.rows.clear()  # revoked
    cache.drop(session_id="s1")
    database.may_answer.set()
    assert (await asking).verdict is Verdict.SIGN_IN


@pytest.mark.parametrize(
    ("session_id", "user_id", "kept"),
    [("s1", None, False), ("", 1, False), ("", None, False), ("s2", None, True), ("", 2, True)],
)
async def test_a_drop_forgets_whom_it_concerns(
    cache: AccessCache, session_id: str, user_id: int | None, kept: bool
) -> None:
    await cache.look_up("label", "cookie")
    cache.drop(session_id=session_id, user_id=user_id)
    assert (cache.cached("label", "cookie") is not None) is kept


async def test_guessed_cookies_do_not_fill_the_memory(cache: AccessCache, database: Database) -> None:
    for number in range(500):
        await cache.look_up("label", f"guess-{number}")
    assert len(cache) == 100
    await cache.look_up("label", "x" * 10_000)
    assert database.asked[-1] == ("label", "")


async def test_a_connection_made_on_a_dropped_answer_is_checked_at_once(cache: AccessCache, database: Database) -> None:
    access = await cache.look_up("label", "cookie")
    database.rows.clear()
    cache.drop(session_id="s1")
    ended = asyncio.Event()
    cache.hold("label", "cookie", access, ended.set)
    async with asyncio.timeout(4):  # no tick comes to its help before the fifth second
        await ended.wait()
    assert cache.open_connections == 0


async def test_a_connection_made_on_an_answer_that_another_has_replaced_is_checked_at_once(
    cache: AccessCache, database: Database
) -> None:
    access = await cache.look_up("label", "cookie")
    database.rows[("label", "cookie")] = Access(Verdict.FORBIDDEN, session_id="s1")
    cache.drop(session_id="s1")
    await cache.look_up("label", "cookie")  # a second tab has asked
    ended = asyncio.Event()
    cache.hold("label", "cookie", access, ended.set)
    async with asyncio.timeout(4):  # no tick comes to its help before the fifth second
        await ended.wait()
    assert cache.open_connections == 0


async def test_a_connection_that_was_let_go_is_not_ended(cache: AccessCache, database: Database) -> None:
    access = await cache.look_up("label", "cookie")
    ended: list[str] = []
    let_go = cache.hold("label", "cookie", access, lambda: ended.append("let go"))
    cache.hold("label", "cookie", access, lambda: ended.append("kept"))
    database.rows.clear()
    database.may_answer.clear()
    cache.drop(session_id="s1")
    await until(lambda: len(database.asked) == 2, "the database to be asked again")
    cache.let_go(let_go)
    database.may_answer.set()
    await until(lambda: ended, "the end of the other, which comes in the same turn of the loop")
    assert ended == ["kept"]


async def test_an_open_connection_outlives_a_database_that_is_away_for_a_minute_and_no_longer(
    cache: AccessCache, database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    database.rows["label", "cookie"] = AT_A_PLACE
    ended: list[float] = []
    hold = cache.hold("label", "cookie", await cache.look_up("label", "cookie"), lambda: ended.append(clock.seconds))
    clock.seconds += 50
    cache.drop()
    await until(lambda: hold.confirmed_at == 150, "an answer from which the minute counts")
    database.is_away = True
    for tries, seconds in enumerate((0, 59, 2), start=1):
        clock.seconds += seconds
        cache.drop()
        await until(lambda wanted=tries: len(caplog.records) == wanted, "an attempt to check")  # type: ignore[misc]  # mypy cannot infer it
    assert ended == [211.0]
    assert cache.open_connections == 0


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"secret": "another"},
        {"host": "node2"},
        {"port": 8889},
        {"port": 0, "socket": "/run/fb"},
        {"username": "bob"},
        {"cluster": cluster_of(22, id="other")},
    ],
)
async def test_a_connection_to_a_place_where_the_session_no_longer_is_ends(
    cache: AccessCache, database: Database, clock: Clock, change: dict[str, object]
) -> None:
    database.rows["label", "cookie"] = AT_A_PLACE
    ended = asyncio.Event()
    hold = cache.hold("label", "cookie", await cache.look_up("label", "cookie"), ended.set)
    clock.seconds += 1
    database.rows["label", "cookie"] = replace(AT_A_PLACE, target=replace(PLACE, **change))  # type: ignore[arg-type]  # fields by name
    cache.drop(session_id="s1")
    await until(lambda: ended.is_set() or hold.confirmed_at == 101, "the outcome of the check")
    assert ended.is_set() is bool(change.keys() - {"secret"})


async def test_connections_are_checked_again_and_again_though_nothing_is_dropped(database: Database) -> None:
    database.rows["label", "cookie"] = AT_A_PLACE
    cache = AccessCache(database, durations=Durations(keep_seconds=0, recheck_seconds=0.01))
    ended = asyncio.Event()
    cache.hold("label", "cookie", await cache.look_up("label", "cookie"), ended.set)
    await until(lambda: len(database.asked) > 3, "several checks")
    assert not ended.is_set()
    database.rows.clear()  # and nobody says so
    await until(ended.is_set, "the end")
    await cache.aclose()


async def test_a_warm_answer_costs_less_than_15_microseconds(cache: AccessCache) -> None:
    await cache.look_up("label", "cookie")
    rounds = 20_000
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(rounds):
            cache.cached("label", "cookie")
        best = min(best, (time.perf_counter() - began) / rounds)
    assert best < 15e-6
