"""The rule for unused sessions: whose limit counts, and what a look leads to."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.appfile import App
from launcher.clusters import Cluster, parse_clusters
from launcher.idle import Step, backstop_seconds, decide, limit_seconds, quiet_seconds, warning_seconds
from tests.integration.jupyter_job import APPS

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
HOURS_2 = 7200


def at(minutes: float) -> dt.datetime:
    return NOON + dt.timedelta(minutes=minutes)


def app(seconds: int) -> App:
    return APPS["jupyter"].model_copy(update={"idle_stop_seconds": seconds})


def cluster(seconds: int | None) -> Cluster:
    line = "" if seconds is None else f"idle_stop_seconds = {seconds}\n"
    text = (
        f'[clusters.a]\nname = "A"\nlogin_hosts = ["a"]\nhost_keys = ["k"]\n{line}[[clusters.a.queues]]\nname = "q"\n'
    )
    return parse_clusters(text)["a"]


@pytest.mark.parametrize(
    ("of_app", "of_cluster", "expected"),
    [
        (7200, None, 7200),
        (0, None, 0),
        (7200, 0, 0),
        (7200, 3600, 3600),
        (1800, 3600, 1800),
        (0, 3600, 3600),
        (0, 0, 0),
    ],
)
def test_a_cluster_says_at_most_or_never_whatever_the_app_says(
    of_app: int, of_cluster: int | None, expected: int
) -> None:
    assert limit_seconds(app(of_app), cluster(of_cluster)) == expected


def test_an_app_and_a_cluster_that_are_gone_stop_nothing() -> None:
    assert limit_seconds(None, None) == 0


def test_the_jobs_own_rule_comes_later_than_any_stop_after_a_warning() -> None:
    assert backstop_seconds(0) == 0
    for limit in (1, 60, 7200, 86_400):
        assert backstop_seconds(limit) >= limit + 600


def test_after_work_nothing_is_asked_until_shortly_before_the_warning() -> None:
    outcome = decide(HOURS_2, active_at=NOON, stop_at=None, looked_at=at(1))
    assert (outcome.step, outcome.stop_at, outcome.check_at) == (Step.WAIT, None, at(110))


def test_an_unused_session_is_announced_and_looked_at_more_often() -> None:
    outcome = decide(HOURS_2, active_at=NOON, stop_at=None, looked_at=at(110))
    assert (outcome.step, outcome.stop_at, outcome.check_at) == (Step.WARN, at(120), at(112.5))


def test_before_the_announced_time_nothing_is_stopped() -> None:
    outcome = decide(HOURS_2, active_at=NOON, stop_at=at(120), looked_at=at(119))
    assert (outcome.step, outcome.check_at) == (Step.WAIT, at(120))


def test_at_the_announced_time_it_is_stopped() -> None:
    assert decide(HOURS_2, active_at=NOON, stop_at=at(120), looked_at=at(120)).step is Step.STOP


def test_work_after_the_announcement_takes_it_back() -> None:
    outcome = decide(HOURS_2, active_at=at(115), stop_at=at(120), looked_at=at(120))
    assert (outcome.step, outcome.stop_at, outcome.check_at) == (Step.RELAX, None, at(225))


def test_a_portal_that_was_away_announces_before_it_stops() -> None:
    outcome = decide(HOURS_2, active_at=NOON, stop_at=None, looked_at=at(600))
    assert (outcome.step, outcome.stop_at) == (Step.WARN, at(610))


def test_a_portal_that_was_away_at_the_announced_time_announces_anew() -> None:
    outcome = decide(HOURS_2, active_at=NOON, stop_at=at(120), looked_at=at(600))
    assert (outcome.step, outcome.stop_at) == (Step.WARN, at(610))


def test_work_between_announcement_and_a_late_look_is_announced_anew_however_short_the_limit() -> None:
    seconds = dt.timedelta(seconds=1)
    outcome = decide(8, active_at=NOON + 7 * seconds, stop_at=NOON + 8 * seconds, looked_at=NOON + 60 * seconds)
    assert outcome.step is Step.WARN


@given(
    limit=st.integers(1, 10**6),
    unused=st.floats(0, 10**7),
    announced=st.none() | st.floats(-(10**7), 10**7),
)
def test_only_what_was_announced_and_unused_for_the_whole_limit_is_stopped(
    limit: int, unused: float, announced: float | None
) -> None:
    active_at = NOON - dt.timedelta(seconds=unused)
    stop_at = None if announced is None else NOON + dt.timedelta(seconds=announced)
    outcome = decide(limit, active_at=active_at, stop_at=stop_at, looked_at=NOON)
    if outcome.step is Step.STOP:
        assert stop_at is not None
        assert stop_at <= NOON
        assert unused >= quiet_seconds(limit)
        assert stop_at >= active_at + dt.timedelta(seconds=limit - 2)
    if outcome.step is Step.WARN:
        assert outcome.stop_at is not None
        assert outcome.stop_at >= NOON + dt.timedelta(seconds=warning_seconds(limit) - 0.001)
    assert outcome.check_at > NOON or outcome.check_at == outcome.stop_at
