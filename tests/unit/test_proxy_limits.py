"""Counts of what is under way, and a log that cannot be flooded."""

from __future__ import annotations

import logging

import pytest

from launcher.proxy.limits import Ceilings, InFlight
from portal.sparselog import MOST_CAUSES, SparseLog

FEW = Ceilings(requests_per_session=2, sockets_per_session=1, requests_per_person=3, sockets_per_person=2)


def test_a_session_has_its_ceiling_and_others_go_on() -> None:
    under_way = InFlight(FEW)
    tickets = [under_way.enter(session_id="s1", person=1, is_socket=False) for _ in range(3)]
    assert [ticket is not None for ticket in tickets] == [True, True, False]
    assert under_way.enter(session_id="s2", person=2, is_socket=False) is not None


def test_a_person_has_a_ceiling_over_all_sessions() -> None:
    under_way = InFlight(FEW)
    sessions = ("s1", "s1", "s2", "s3")
    tickets = [under_way.enter(session_id=session, person=1, is_socket=False) for session in sessions]
    assert [ticket is not None for ticket in tickets] == [True, True, True, False]


def test_sockets_and_requests_are_counted_apart() -> None:
    under_way = InFlight(FEW)
    ticket = under_way.enter(session_id="s1", person=1, is_socket=True)
    assert ticket is not None
    assert under_way.enter(session_id="s1", person=1, is_socket=True) is None
    assert under_way.enter(session_id="s1", person=1, is_socket=False) is not None


def test_what_is_over_makes_room_and_leaves_nothing_behind() -> None:
    under_way = InFlight(FEW)
    for _ in range(10):
        ticket = under_way.enter(session_id="s1", person=1, is_socket=True)
        assert ticket is not None
        assert len(under_way) == 1
        under_way.leave(ticket)
    assert len(under_way) == 0


def test_a_ticket_is_good_again_and_again_beside_others() -> None:
    under_way = InFlight(FEW)
    kept = under_way.ticket(session_id="s1", person=1, is_socket=False)
    other = under_way.enter(session_id="s1", person=1, is_socket=False)
    assert other is not None
    for _ in range(3):
        assert under_way.enter_again(kept)
        assert not under_way.enter_again(kept)
        under_way.leave(kept)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_two_lines_in_a_minute_and_a_bit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tests.sparse")
    clock = Clock()
    log = SparseLog(logging.getLogger("tests.sparse"), clock=clock)
    for _ in range(1000):
        log.note("the server refused")
    assert caplog.messages == ["the server refused"]
    clock.now += 61
    log.note("something else")
    assert caplog.messages == [
        "the server refused",
        "the server refused (999 more times in a minute)",
        "something else",
    ]


def test_invented_causes_fill_neither_memory_nor_the_disk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tests.sparse")
    log = SparseLog(logging.getLogger("tests.sparse"), clock=Clock())
    for number in range(5 * MOST_CAUSES):
        log.note(f"cause {number}")
    assert len(caplog.messages) == MOST_CAUSES + 1
