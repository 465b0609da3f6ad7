"""Sessions only move forward."""

from __future__ import annotations

import itertools

from launcher.states import LIVE_STATES, SessionState, may_move


def test_every_move_forward_is_allowed_and_no_other() -> None:
    order = list(SessionState)
    for old, new in itertools.product(order, order):
        assert may_move(old, new) is (order.index(new) > order.index(old))


def test_only_an_ended_session_is_not_live() -> None:
    assert set(SessionState) - set(LIVE_STATES) == {SessionState.ENDED}
