"""One id that the scheduler cannot resolve makes it refuse the whole question; the other sessions get their answers."""

from __future__ import annotations

import pytest
from django.utils import timezone

from launcher import parts
from launcher.figures import last_round
from launcher.flows.poll import poll
from launcher.flows.poll_ask import MOST_SPLITS
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import RunningCluster
from tests.settings import FOLDER

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN_SERVER = "12.nosuch"
NO_ID = "not a job"


@pytest.fixture(params=["admin", ""], ids=["operator", "each user"])
def cluster(request: pytest.FixtureRequest, demo_cluster: RunningCluster) -> RunningCluster:
    """The demo cluster, asked by one account or by each user."""
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(operator=request.param))
    parts.forget()
    return demo_cluster


def sessions_with(owner: User, *job_ids: str) -> list[InteractiveSession]:
    """Sessions of ``owner`` with these jobs."""
    moment = timezone.now()
    return InteractiveSession.objects.bulk_create(
        InteractiveSession(
            owner=owner,
            username=owner.username,
            cluster="demo",
            app="jupyter",
            state=SessionState.QUEUED,
            created_at=moment,
            submitted_at=moment,
            job_id=job_id,
        )
        for job_id in job_ids
    )


def asked() -> int:
    """Poll, and count the commands."""
    poll("demo")
    last = last_round("demo")
    assert last is not None
    return last.commands


@pytest.mark.parametrize("odd_id", [UNKNOWN_SERVER, NO_ID])
def test_an_id_that_cannot_be_resolved_silences_itself_only_and_costs_only_one_round(
    cluster: RunningCluster, alice: User, odd_id: str
) -> None:
    (odd,) = sessions_with(alice, odd_id)
    others = sessions_with(alice, *(f"{900_000 + number}.demo-pbs" for number in range(15)))
    assert asked() <= 1 + 2 * 4  # sixteen ids are halved four times
    assert asked() == 1
    odd.refresh_from_db()
    assert odd.unreachable_since is not None
    assert (odd.state, odd.missing_count) == (SessionState.QUEUED, 0)
    for session in others:
        session.refresh_from_db()
        assert session.polled_at is not None
        assert session.unreachable_since is None


def test_where_no_id_can_be_resolved_a_round_asks_only_so_often(cluster: RunningCluster, alice: User) -> None:
    sessions_with(alice, *(f"{number}.nosuch" for number in range(1, 101)))
    assert asked() <= 1 + 2 * MOST_SPLITS
    assert InteractiveSession.objects.filter(unreachable_since__isnull=True).count() == 0


def test_a_scheduler_that_is_down_is_not_asked_in_halves(cluster: RunningCluster, alice: User) -> None:
    cluster.fault("scheduler", "down")
    sessions_with(alice, *(f"{number}.demo-pbs" for number in range(1, 17)))
    assert asked() == 1
