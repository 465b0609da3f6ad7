"""What people are told of a cluster before and while they wait, and what administrators see of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import html
import re

import pytest
from django.core.cache import cache
from django.test import Client

from launcher import parts, services
from launcher.cards import card_of
from launcher.figures import last_round
from launcher.fits import ClusterFacts
from launcher.flows import facts as cluster_facts
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.models import InteractiveSession
from launcher.services import LaunchRefused
from launcher.ssh.hands import budget_host
from launcher.states import SessionState
from portal.accounts.models import Role, User
from portal.clock import now
from tests.conftest import RunningCluster
from tests.settings import FOLDER
from tests.story import drive, one_round
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}
PAGE = "/administration/clusters/"


def generous(cluster: RunningCluster, **changes: object) -> None:
    """A clusters file that promises more than the cluster has: 64 cores, 900 GB, 100 hours."""
    text = cluster.toml(**changes).replace("max_cores = 4", "max_cores = 64").replace('"8gb"', '"900gb"')
    (FOLDER / "clusters.toml").write_text(text.replace("max_hours = 8", "max_hours = 100"), encoding="utf-8")
    parts.forget()


def text_of(client: Client, path: str) -> str:
    """What a page says, without its tags."""
    answer = client.get(path)
    assert answer.status_code == 200
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.content.decode())).split())


def learn(cluster_id: str = "demo") -> None:
    """Have the facts of the cluster asked for, as the pages do."""
    assert cluster_facts.facts_of(parts.clusters()[cluster_id], "alice", wait_seconds=60) is not None


def known(username: str = "alice") -> ClusterFacts | None:
    """What the portal goes by for this person."""
    return cluster_facts.known_facts(parts.clusters()["demo"], username)


def grow_old(facts: ClusterFacts) -> None:
    """What alice's account heard was heard two minutes ago."""
    cache.set("facts:2:demo:alice", dataclasses.replace(facts, asked_at=now() - dt.timedelta(minutes=2)), 60)


def kept_from(user: User, **raw: object) -> dict[str, str]:
    """The mistakes by which a launch is refused."""
    with pytest.raises(LaunchRefused) as refused:
        launch(user=user, app_id="jupyter", raw={**RAW, **raw}, address="")
    assert not InteractiveSession.objects.exists()
    return {field: code for field, code, _ in refused.value.fields}


# The page of administrators


def test_the_page_of_clusters_shows_queues_computers_sessions_and_what_was_asked(
    demo_cluster: RunningCluster, alice: User, as_admin: Client
) -> None:
    drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    poll("demo")
    wait_for(lambda: "Each computer" in text_of(as_admin, PAGE))
    page = text_of(as_admin, PAGE)
    assert "Demo cluster Answering" in page
    assert "Ready : 1" in page or "Ready: 1" in page
    assert re.search(r"1 session, 1 command\b", page)
    assert "15 of 16 cores" in page
    assert "workq Open 16 cores" in page
    assert "6000" in page, "a hundred a second are allowed"
    commands = re.search(r"127\.0\.0\.1:\d+ (\d+) \(", page)
    assert commands is not None
    assert int(commands[1]) >= 3, "a submission, a round, the queues and the computers"
    assert "alice" not in page


def test_an_auditor_sees_the_page_and_others_do_not_know_of_it(
    demo_cluster: RunningCluster, as_alice: Client, as_bob: Client, bob: User
) -> None:
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    assert as_bob.get(PAGE).status_code == 200
    assert PAGE in as_bob.get("/").content.decode()
    assert as_alice.get(PAGE).status_code == 404
    assert PAGE not in as_alice.get("/").content.decode()
    assert Client().get(PAGE).status_code == 302


def test_the_page_does_not_wait_for_a_cluster_that_hangs(demo_cluster: RunningCluster, as_admin: Client) -> None:
    demo_cluster.fault("scheduler", "hung")
    begin = now()
    page = text_of(as_admin, PAGE)
    assert now() - begin < dt.timedelta(seconds=15)
    assert "Not known." in page


def test_the_page_says_since_when_a_cluster_does_not_answer_and_when_it_is_asked_again(
    demo_cluster: RunningCluster, alice: User, as_admin: Client
) -> None:
    session = drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    demo_cluster.fault("scheduler", "down")
    poll("demo")
    session.refresh_from_db()
    page = text_of(as_admin, PAGE)
    assert "Demo cluster Not answering" in page
    assert "Not answering since" in page
    assert "no answer about 1 session" in page
    assert "Asked again at" in page


def test_an_administrator_without_an_account_on_the_cluster_sees_the_rest(
    demo_cluster: RunningCluster, as_admin: Client, admin: User
) -> None:
    User.objects.filter(pk=admin.pk).update(username="no-such-account")
    page = text_of(as_admin, PAGE)
    assert "Not known." in page
    assert "Commands in the last minute" in page


def test_the_queues_and_computers_are_asked_for_once_a_minute_and_not_by_every_page(
    demo_cluster: RunningCluster, as_admin: Client
) -> None:
    wait_for(lambda: as_admin.get(PAGE) and known("admin"))
    facts = known("admin")
    for _ in range(3):
        as_admin.get(PAGE)
    assert known("admin") == facts


def test_what_came_through_a_persons_account_counts_for_nobody_else(demo_cluster: RunningCluster) -> None:
    learn()  # by alice's shell, which may say anything
    assert known("alice") is not None
    assert known("bob") is None


def test_what_the_operator_heard_counts_for_everybody(demo_cluster: RunningCluster) -> None:
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(operator="admin"), encoding="utf-8")
    parts.forget()
    learn()
    assert known("bob") == known("alice") is not None


def test_a_round_leaves_its_figures(demo_cluster: RunningCluster, alice: User) -> None:
    drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    poll("demo")
    last = last_round("demo")
    assert last is not None
    assert (last.sessions, last.commands, last.unanswered, last.next_in_seconds) == (1, 1, 0, 5)
    assert 0 < last.seconds < 60


# Before a launch


@pytest.mark.parametrize(
    ("raw", "mistakes"),
    [
        ({"cores": "17"}, {"cores": "cores.too_many"}),
        ({"cores": "9"}, {"cores": "cores.no_computer"}),
        ({"memory": "100 GB"}, {"memory": "memory.no_computer"}),
        ({"hours": "9"}, {"hours": "hours.over_queue_limit"}),
    ],
)
def test_what_the_cluster_could_never_run_is_refused_at_the_field(
    demo_cluster: RunningCluster, alice: User, raw: dict[str, object], mistakes: dict[str, str]
) -> None:
    generous(demo_cluster)
    learn()
    assert kept_from(alice, **raw) == mistakes


def test_the_form_says_it_at_the_field(demo_cluster: RunningCluster, as_alice: Client) -> None:
    generous(demo_cluster)
    as_alice.get("/launch/jupyter/")
    wait_for(lambda: known())
    answer = as_alice.post("/launch/jupyter/", {**RAW, "cores": "12"})
    assert answer.status_code == 422
    assert "No computer of the cluster has more than 8 cores." in html.unescape(answer.content.decode())


def test_without_facts_nothing_is_refused(demo_cluster: RunningCluster, alice: User) -> None:
    generous(demo_cluster)
    assert launch(user=alice, app_id="jupyter", raw={**RAW, "cores": "64"}, address="").is_live


def test_old_facts_refuse_nothing_that_cannot_be_confirmed(demo_cluster: RunningCluster, alice: User) -> None:
    generous(demo_cluster)
    learn()
    facts = known()
    assert facts is not None
    grow_old(facts)
    demo_cluster.fault("scheduler", "down")
    assert launch(user=alice, app_id="jupyter", raw={**RAW, "cores": "64"}, address="").is_live


def test_old_facts_are_confirmed_before_they_refuse(demo_cluster: RunningCluster, alice: User) -> None:
    generous(demo_cluster)
    learn()
    facts = known()
    assert facts is not None
    grow_old(facts)
    assert kept_from(alice, cores="64") == {"cores": "cores.too_many"}
    confirmed = known()
    assert confirmed is not None
    assert cluster_facts.is_fresh(confirmed)


def test_the_form_says_what_is_free_now(demo_cluster: RunningCluster, as_alice: Client) -> None:
    learn()
    assert "8 cores are free now: likely to start at once." in text_of(as_alice, "/launch/jupyter/")


def test_the_form_says_so_to_who_has_launched_before_too(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    launch(user=alice, app_id="jupyter", raw=RAW, address="")
    learn()
    assert "cores are free now: likely to start at once." in text_of(as_alice, "/launch/jupyter/")


def test_the_form_comes_without_advice_where_the_cluster_does_not_answer(
    demo_cluster: RunningCluster, as_alice: Client
) -> None:
    demo_cluster.fault("scheduler", "hung")
    assert "free now" not in text_of(as_alice, "/launch/jupyter/")


@pytest.mark.parametrize(("runs", "advice"), [(2, False), (3, True)])
def test_the_form_says_what_the_persons_own_last_runs_used(
    demo_cluster: RunningCluster, alice: User, bob: User, as_alice: Client, runs: int, advice: bool
) -> None:
    def ended(owner: User, mib: int | None) -> None:
        InteractiveSession.objects.create(
            owner=owner,
            username=owner.username,
            cluster="demo",
            app="jupyter",
            choices={"cores": 1, "memory_mib": 1024, "walltime_seconds": 3600},
            state=SessionState.ENDED,
            created_at=now(),
            ended_at=now(),
            end_reason="completed",
            memory_used_mib=mib,
        )

    for mib in [1000, 3174, 2000][:runs]:
        ended(alice, mib)
    ended(alice, None)
    ended(bob, 50_000)
    page = text_of(as_alice, "/launch/jupyter/")
    assert ("Your last 3 runs peaked at 3.1 GB." in page) is advice
    assert ("peaked" in page) is advice


# While it waits


def test_what_can_never_run_is_said_at_once_with_the_cure_and_a_stop(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    generous(demo_cluster)
    session = launch(user=alice, app_id="jupyter", raw={**RAW, "cores": "12"}, address="")
    drive(session, SessionState.QUEUED)
    wait_for(lambda: card_of(one_round(session)).can_never_run)
    card = card_of(session)
    assert card.state_tone == "bad"
    assert card.state_text == "This can never start: you asked for 12 cores, and there are at most 8."
    for path in (f"/sessions/{session.id}/", "/"):
        page = text_of(as_alice, path)
        assert "Stop it and launch again with less." in page
        assert "Launch again" in page
        assert "Stop it" in page


def test_an_estimated_start_is_shown_while_it_lies_ahead(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    waiting = InteractiveSession.objects.filter(pk=session.pk)
    waiting.update(state=SessionState.QUEUED, estimated_start_at=now() + dt.timedelta(hours=1))
    for path in (f"/sessions/{session.id}/", "/"):
        assert "Likely to start around" in text_of(as_alice, path)
    waiting.update(estimated_start_at=now() - dt.timedelta(minutes=1))
    for path in (f"/sessions/{session.id}/", "/"):
        assert "Likely to start around" not in text_of(as_alice, path)


def test_a_card_says_what_was_known_last_while_the_cluster_does_not_answer(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    session = drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    demo_cluster.fault("scheduler", "down")
    page = text_of(as_alice, "/") if one_round(session).unreachable_since else ""
    assert "Last known: Your notebook is ready." in page
    assert "Not answering since" in page
    assert "Asked again at" in page


def test_when_the_budget_is_used_up_a_session_is_put_off_and_its_cluster_not_called_silent(
    demo_cluster: RunningCluster, alice: User
) -> None:
    generous(demo_cluster, commands_per_second=0.1)
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    use_up_the_budget()
    one_round(session)
    assert (session.state, session.unreachable_since, session.job_id) == (SessionState.SUBMITTING, None, "")
    assert session.submit_attempts == 0, "nothing was sent, so there is nothing to look for"


def test_when_the_budget_is_used_up_a_round_and_a_stop_wait_for_better_times(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    generous(demo_cluster, commands_per_second=0.1)
    use_up_the_budget()
    services.request_stop(session=session, actor=alice, address="")
    one_round(session)
    assert (session.state, session.unreachable_since, session.cancelled_at) == (SessionState.STOPPING, None, None)


def use_up_the_budget() -> None:
    """Take the turns of the next minute, as other processes of the portal would."""
    cluster = parts.clusters()["demo"]
    host = budget_host(cluster, cluster.login_hosts[0])
    for _ in range(6):
        parts.hands_loop().run(parts.shared_turns().take(host, cluster.commands_per_second, 60), 60)
