"""The API's budget, and the lists of everybody's sessions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import Client

from launcher.api import rate
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal import clock
from portal.accounts.models import User
from tests.integration.test_api import Api, ended

pytestmark = [pytest.mark.django_db, pytest.mark.integration, pytest.mark.usefixtures("valkey")]


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five requests a minute."""
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update={"api_requests_per_minute": 5}))
    monkeypatch.setattr(rate, "_own", rate.OwnTurns())
    server = redis.Redis.from_url(settings.CONF.valkey_url)
    for key in server.scan_iter(f"{rate.PREFIX}*"):
        server.delete(key)
    yield
    server.close()


@pytest.mark.usefixtures("small_budget")
def test_more_than_the_budget_is_429_and_says_when_to_come_again(alice: User, bob: User) -> None:
    mine, mine_too, others = Api(alice), Api(alice), Api(bob)
    assert [mine.get("sessions").status_code for _ in range(3)] == [200] * 3
    assert [mine_too.get("sessions").status_code for _ in range(3)] == [200, 200, 429]
    refused = mine.get("sessions")
    assert refused.json()["code"] == "too_often"
    assert 1 <= int(refused.headers["Retry-After"]) <= 13
    assert others.get("sessions").status_code == 200


@pytest.mark.usefixtures("small_budget")
def test_wrong_tokens_count_by_address() -> None:
    statuses = [
        Client(headers={"Authorization": f"Bearer fbp_{number}"}).get("/api/v1/sessions").status_code
        for number in range(7)
    ]
    assert statuses == [401] * 5 + [429] * 2


@pytest.mark.usefixtures("small_budget")
def test_without_valkey_each_process_counts_by_itself(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(caller: str, per_minute: int) -> float:
        raise redis.ConnectionError

    monkeypatch.setattr(rate, "_take_shared", away)
    assert [Api(alice).get("sessions").status_code for _ in range(7)] == [200] * 5 + [429] * 2


def live(user: User, count: int) -> list[InteractiveSession]:
    """Sessions that run."""
    return [
        InteractiveSession.objects.create(
            owner=user,
            username=user.username,
            cluster="demo",
            app="jupyter",
            choices={"cores": 1, "memory_mib": 1024, "walltime_seconds": 3600},
            created_at=clock.now(),
            state=SessionState.QUEUED,
        )
        for _ in range(count)
    ]


def all_pages(api: Api, **query: str) -> list[dict[str, Any]]:
    """Every session of a list that comes page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    for _ in range(20):
        page = api.get("sessions", everybody="true", limit="2", after=after, **query).json()
        found += page["sessions"]
        if page["next"] is None:
            return found
        after = page["next"]
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("is_ended", [False, True])
def test_an_administrator_lists_everybodys_sessions_page_by_page(
    admin: User, alice: User, bob: User, is_ended: bool
) -> None:
    make = ended if is_ended else live
    made = {row.pk for row in [*make(alice, 3), *make(bob, 2)]}
    found = [session["id"] for session in all_pages(Api(admin), ended=str(is_ended).lower())]
    assert len(found) == 5
    assert set(found) == made


def test_the_list_can_be_narrowed_down_to_a_person_and_a_cluster(admin: User, alice: User, bob: User) -> None:
    live(alice, 3)
    live(bob, 1)
    assert {session["owner"] for session in all_pages(Api(admin), owner="alice", cluster="demo")} == {"alice"}
    assert all_pages(Api(admin), cluster="elsewhere") == []


def test_nobody_else_lists_other_peoples_sessions(alice: User, bob: User) -> None:
    live(bob, 1)
    answer = Api(alice).get("sessions", everybody="true")
    assert (answer.status_code, answer.json()["code"]) == (403, "session.own_only")


def test_anothers_session_is_no_place_to_go_on_from(alice: User, bob: User) -> None:
    (theirs,) = ended(bob, 1)
    ended(alice, 2)
    assert Api(alice).get("sessions", ended="true", after=theirs.pk).status_code == 422
