"""How much the pages ask of the database: never more for more sessions."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from django.test import Client, override_settings

from launcher import parts
from launcher.catalog import LaunchChoices
from launcher.models import InteractiveSession
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.clock import now
from tests.conftest import RunningCluster
from tests.settings import FOLDER

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

MOST_QUERIES = 30
CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")


def sessions(user: User, number: int, *, are_live: bool) -> list[InteractiveSession]:
    """So many sessions that run, or have ended; each goes on with the one before it."""
    made: list[InteractiveSession] = []
    moment = now()
    times = {"created_at": moment, "submitted_at": moment, "started_at": moment, "ready_at": moment}
    for _ in range(number):
        end = {} if are_live else {"ended_at": moment, "end_reason": EndReason.WALLTIME, "end_code": "ended.walltime"}
        session = InteractiveSession.objects.create(
            owner=user,
            username=user.username,
            app="jupyter",
            cluster="demo",
            choices=CHOICES.as_dict(),
            state=SessionState.READY if are_live else SessionState.ENDED,
            job_state="running",
            walltime_seconds=3600,
            walltime_ends_at=moment + dt.timedelta(hours=1),
            memory_used_mib=500,
            continues=made[-1] if made else None,
            **times,
            **end,
        )
        made.append(session)
    return made


@pytest.fixture
def lengthening(demo_cluster: RunningCluster) -> RunningCluster:
    """A cluster on which sessions may be extended: then each card says whether its own may be."""
    text = demo_cluster.toml(operator="admin", extend_times=2)
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    return demo_cluster


class Counter(logging.Handler):
    """Counts statements of all threads: a page's view need not run in the test's own."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.number += 1


def queries(client: Client, path: str) -> int:
    """What one page costs, once everything that is kept for a while is there."""
    counter, logger = Counter(), logging.getLogger("django.db.backends")
    level = logger.level
    with override_settings(DEBUG=True):  # statements are logged only then
        assert client.get(path).status_code == 200
        logger.addHandler(counter)
        logger.setLevel(logging.DEBUG)
        try:
            client.get(path)
        finally:
            logger.removeHandler(counter)
            logger.setLevel(level)
    assert counter.number > 2, "nothing was counted"
    return counter.number


@pytest.mark.parametrize("path", ["/", "/history/", "/launch/jupyter/"])
def test_a_page_asks_no_more_for_a_long_history(
    lengthening: RunningCluster, alice: User, as_alice: Client, path: str
) -> None:
    sessions(alice, 2, are_live=False)
    few = queries(as_alice, path)
    sessions(alice, 30, are_live=False)
    assert queries(as_alice, path) == few <= MOST_QUERIES


@pytest.mark.parametrize("path", ["/", "/sessions/cards/"])
def test_many_running_sessions_of_one_person_cost_no_more_than_two(
    lengthening: RunningCluster, alice: User, as_alice: Client, path: str
) -> None:
    sessions(alice, 2, are_live=True)
    few = queries(as_alice, path)
    sessions(alice, 10, are_live=True)
    assert queries(as_alice, path) == few <= MOST_QUERIES


@pytest.mark.parametrize("query", ["", "?text=jupyter&state=ready&cluster=demo&app=jupyter"])
def test_the_sessions_of_everybody_cost_no_more_than_two(
    lengthening: RunningCluster, alice: User, bob: User, as_admin: Client, query: str
) -> None:
    sessions(alice, 2, are_live=True)
    few = queries(as_admin, f"/administration/sessions/{query}")
    sessions(bob, 20, are_live=True)
    assert queries(as_admin, f"/administration/sessions/{query}") == few <= MOST_QUERIES


def test_ended_sessions_of_everybody_cost_no_more_than_two(
    lengthening: RunningCluster, alice: User, bob: User, as_admin: Client
) -> None:
    path = f"/administration/sessions/?since={now().date()}&text=jupyter"
    sessions(alice, 2, are_live=False)
    few = queries(as_admin, path)
    sessions(bob, 20, are_live=False)
    assert queries(as_admin, path) == few <= MOST_QUERIES


@pytest.mark.parametrize("query", ["", "?text=guest"])
def test_many_people_cost_no_more_than_two(lengthening: RunningCluster, as_admin: Client, query: str) -> None:
    for number in range(30):
        User.objects.create(username=f"guest{number}", password="!")
        if number == 1:
            few = queries(as_admin, f"/administration/users/{query}")
    assert queries(as_admin, f"/administration/users/{query}") == few <= MOST_QUERIES


def test_a_sessions_page_asks_no_more_for_a_long_history(
    lengthening: RunningCluster, alice: User, as_alice: Client
) -> None:
    path = f"/sessions/{sessions(alice, 2, are_live=True)[-1].pk}/"
    few = queries(as_alice, path)
    sessions(alice, 30, are_live=False)
    assert queries(as_alice, path) == few <= MOST_QUERIES
