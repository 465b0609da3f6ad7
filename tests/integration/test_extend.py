"""More time on a running session: granted, refused, asked twice at once, answers lost, workers killed on the way."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connections
from django.test import Client

from launcher import parts, services
from launcher.flows import extend as extend_flow
from launcher.flows.extend import ask_again, extend
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.schedulers.base import CommandResult, SchedulerUnavailable
from launcher.schedulers.pbs import PBS
from launcher.services import ExtensionRefused
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.audit.selectors import verify
from portal.conf import PROJECT
from tests.conftest import RunningCluster
from tests.integration.test_crashes import worker_environment
from tests.settings import FOLDER
from tests.story import events_of, one_round
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

HOUR = 3600
RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Long"}
RULES: dict[str, object] = {"operator": "admin", "extend_times": 2, "extend_hours": 1}


def write_clusters(cluster: RunningCluster, **changes: object) -> None:
    (FOLDER / "clusters.toml").write_text(cluster.toml(**{**RULES, **changes}), encoding="utf-8")
    parts.forget()


@pytest.fixture
def cluster(demo_cluster: RunningCluster) -> RunningCluster:
    """The demo cluster, with an operator who may lengthen jobs."""
    write_clusters(demo_cluster)
    return demo_cluster


@pytest.fixture
def running(cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice whose job runs and whose time is known."""
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="192.0.2.1")
    submit(session.id)
    wait_for(lambda: one_round(session).walltime_ends_at is not None and session.started_at, what="the job to run")
    return session


def granted(cluster: RunningCluster, session: InteractiveSession) -> int:
    """The walltime that the scheduler gives the job."""
    number = int(session.job_id.partition(".")[0])
    return cluster.demo.scheduler.jobs[number].request.walltime_seconds


def extension_events(session: InteractiveSession) -> list[str]:
    return [name for name in events_of(session) if "exten" in name]


def test_a_granted_extension_is_known_at_once_and_kept_with_its_events(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    ends_at = running.walltime_ends_at
    assert ends_at is not None
    extend(session=running, user=alice, address="192.0.2.1")
    running.refresh_from_db()
    assert granted(cluster, running) == running.walltime_seconds == 2 * HOUR
    assert running.walltime_ends_at == ends_at + dt.timedelta(hours=1)
    assert (running.extensions, running.extending_to_seconds) == (1, None)
    assert extension_events(running) == ["session.extension_requested", "session.extended"]
    asked = AuditEvent.objects.get(name="session.extension_requested")
    assert (asked.actor, asked.address, asked.data) == ("alice", "192.0.2.1", {"walltime_seconds": 2 * HOUR})


def test_the_rounds_after_it_see_the_same_and_count_it_once(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    extend(session=running, user=alice, address="")
    one_round(one_round(running))
    assert (running.extensions, running.walltime_seconds, running.extending_to_seconds) == (1, 2 * HOUR, None)
    assert extension_events(running).count("session.extended") == 1


def test_no_more_often_than_the_site_says(cluster: RunningCluster, alice: User, running: InteractiveSession) -> None:
    extend(session=running, user=alice, address="")
    extend(session=running, user=alice, address="")
    with pytest.raises(ExtensionRefused) as refused:
        extend(session=running, user=alice, address="")
    assert refused.value.code == "extend.used_up"
    assert granted(cluster, running) == 3 * HOUR


def test_who_presses_twice_gets_it_once(cluster: RunningCluster, alice: User, running: InteractiveSession) -> None:
    for _press in range(2):
        extend(session=running, user=alice, address="", seen_walltime_seconds=HOUR)
    assert granted(cluster, running) == 2 * HOUR
    assert extension_events(running) == ["session.extension_requested", "session.extended"]


def test_two_browsers_at_once_extend_once(cluster: RunningCluster, alice: User, running: InteractiveSession) -> None:
    start, errors = threading.Barrier(2), list[BaseException]()

    def press() -> None:
        try:
            start.wait(60)
            extend(session=running, user=alice, address="", seen_walltime_seconds=HOUR)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert errors == []
    running.refresh_from_db()
    assert granted(cluster, running) == running.walltime_seconds == 2 * HOUR
    assert running.extensions == 1
    assert extension_events(running) == ["session.extension_requested", "session.extended"]


def test_an_operator_without_the_right_is_refused_and_the_wish_is_over(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    write_clusters(cluster, operator="alice")  # may see her own jobs, and not lengthen them
    extend(session=running, user=alice, address="")
    running.refresh_from_db()
    assert granted(cluster, running) == HOUR
    assert (running.extending_to_seconds, running.extension_refused) == (None, "scheduler.not_permitted")
    assert "Unauthorized Request" in running.extension_refused_detail
    assert extension_events(running) == ["session.extension_requested", "session.extension_refused"]


def test_an_account_that_may_not_sign_in_is_refused_and_not_tried_for_ever(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    write_clusters(cluster, operator="nobody")
    extend(session=running, user=alice, address="")
    running.refresh_from_db()
    assert (running.extending_to_seconds, running.extension_refused) == (None, "ssh.login_refused")


def test_a_lost_answer_is_settled_by_the_next_round(
    cluster: RunningCluster, alice: User, running: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_self: PBS, _result: CommandResult) -> None:
        raise SchedulerUnavailable("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(PBS, "parse_extend", lost)
        extend(session=running, user=alice, address="")
    running.refresh_from_db()
    assert (running.extensions, running.extending_to_seconds) == (0, 2 * HOUR)
    one_round(running)
    assert (running.extensions, running.extending_to_seconds, running.walltime_seconds) == (1, None, 2 * HOUR)
    ask_again(running.id)
    assert granted(cluster, running) == 2 * HOUR
    assert extension_events(running) == ["session.extension_requested", "session.extended"]


def test_a_wish_that_did_not_reach_the_scheduler_is_asked_again_when_it_answers(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    cluster.fault("scheduler", "down")
    extend(session=running, user=alice, address="")
    running.refresh_from_db()
    assert (running.extending_to_seconds, granted(cluster, running)) == (2 * HOUR, HOUR)
    extend(session=running, user=alice, address="")  # asks for the same
    cluster.mend()
    poll("demo")
    running.refresh_from_db()
    assert extend_flow.needs_asking(running)
    ask_again(running.id)
    running.refresh_from_db()
    assert (running.extensions, running.extending_to_seconds, granted(cluster, running)) == (1, None, 2 * HOUR)
    assert extension_events(running) == ["session.extension_requested", "session.extended"]


def test_while_the_cluster_is_away_nothing_is_asked(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    services.record_unreachable([running.id])
    with pytest.raises(ExtensionRefused) as refused:
        extend(session=running, user=alice, address="")
    assert refused.value.code == "extend.cluster_away"
    assert extension_events(running) == []


def test_a_session_that_is_to_end_is_not_asked_for_again(
    cluster: RunningCluster, alice: User, running: InteractiveSession
) -> None:
    InteractiveSession.objects.filter(pk=running.pk).update(extending_to_seconds=2 * HOUR)
    services.request_stop(session=running, actor=alice, address="")
    ask_again(running.id)
    assert granted(cluster, running) == HOUR


def test_it_ends_before_a_maintenance(cluster: RunningCluster, alice: User, running: InteractiveSession) -> None:
    assert running.walltime_ends_at is not None
    begins = running.walltime_ends_at + dt.timedelta(minutes=30)
    text = cluster.toml(**RULES)
    entry = (
        f"maintenance = [{{ begins = {begins.isoformat()}, ends = {(begins + dt.timedelta(hours=9)).isoformat()} }}]"
    )
    (FOLDER / "clusters.toml").write_text(text.replace("[clusters.demo]\n", f"[clusters.demo]\n{entry}\n", 1))
    parts.forget()
    extend(session=running, user=alice, address="")
    assert abs(granted(cluster, running) - 1.5 * HOUR) <= 1


@pytest.mark.parametrize("point", ["wished", "understood_extension", "before_extended"])
def test_a_worker_killed_between_the_steps_leaves_one_extension(
    cluster: RunningCluster, alice: User, running: InteractiveSession, point: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "tests.integration.crashing_worker", point, running.id],
        cwd=PROJECT,
        env=worker_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode("utf-8", "replace")
    running.refresh_from_db()
    wish = running.extending_to_seconds
    assert wish == 2 * HOUR
    cache.delete(f"extend:turn:{running.id}")  # as after TURN_SECONDS
    one_round(running)
    ask_again(running.id)
    one_round(running)
    assert granted(cluster, running) == running.walltime_seconds == 2 * HOUR
    assert (running.extensions, running.extending_to_seconds) == (1, None)
    assert extension_events(running) == ["session.extension_requested", "session.extended"]
    assert verify().broken is None


def test_a_round_has_a_worker_ask_again(
    cluster: RunningCluster, alice: User, running: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr("launcher.dispatch.extend", sent.append)
    InteractiveSession.objects.filter(pk=running.pk).update(extending_to_seconds=2 * HOUR)
    poll("demo")
    assert sent == [running.id]


# doors


def test_the_page_offers_it_and_says_what_came_of_it(
    cluster: RunningCluster, as_alice: Client, running: InteractiveSession
) -> None:
    page = as_alice.get(f"/sessions/{running.id}/").content.decode()
    assert "The session can run 1 hour longer" in page
    pressed = as_alice.post(f"/sessions/{running.id}/extend/", {"walltime_seconds": "3600"}, follow=True)
    assert "The session has more time now." in pressed.content.decode()
    assert granted(cluster, running) == 2 * HOUR


def test_the_page_shows_the_schedulers_words_only_behind_details(
    cluster: RunningCluster, as_alice: Client, running: InteractiveSession
) -> None:
    write_clusters(cluster, operator="alice")
    page = as_alice.post(f"/sessions/{running.id}/extend/", follow=True).content.decode()
    assert "does not let the portal extend sessions" in page
    before, _, after = page.partition(f'<details class="fold mb-3" id="extend-details-{running.id}">')
    assert "Unauthorized Request" not in before
    assert "Unauthorized Request" in after.partition("</details>")[0]


def test_without_an_operator_the_page_offers_to_continue_instead(
    cluster: RunningCluster, as_alice: Client, running: InteractiveSession
) -> None:
    write_clusters(cluster, operator="", extend_times=0)
    page = as_alice.get(f"/sessions/{running.id}/").content.decode()
    assert f"/sessions/{running.id}/extend/" not in page
    assert f"/sessions/{running.id}/continue/" in page


@pytest.mark.parametrize("what", ["extend", "continue"])
@pytest.mark.parametrize("door", ["/sessions/{}/{}/", "/api/v1/sessions/{}/{}"])
def test_only_the_owner_may_and_the_attempt_is_kept(
    cluster: RunningCluster, as_bob: Client, as_admin: Client, running: InteractiveSession, door: str, what: str
) -> None:
    for client in (as_bob, as_admin):
        assert client.post(door.format(running.id, what), content_type="application/json").status_code == 404
    denied = AuditEvent.objects.filter(name="session.access_denied", session_id=running.id)
    assert {(event.actor, event.data["cause"]) for event in denied} == {("bob", "stranger"), ("admin", "not_owner")}
    assert granted(cluster, running) == HOUR
    assert InteractiveSession.objects.count() == 1


def api(client: Client, session: InteractiveSession, what: str, body: dict[str, Any] | None = None) -> Any:
    return client.post(f"/api/v1/sessions/{session.id}/{what}", body, content_type="application/json")


def test_the_api_extends_and_says_why_not(
    cluster: RunningCluster, as_alice: Client, running: InteractiveSession
) -> None:
    answer = api(as_alice, running, "extend", {"walltime_seconds": HOUR})
    assert (answer.status_code, answer.json()["walltime_granted_seconds"]) == (200, 2 * HOUR)
    again = api(as_alice, running, "extend", {"walltime_seconds": HOUR})
    assert (again.status_code, again.json()["extensions"]) == (200, 1)
    write_clusters(cluster, extend_times=1)
    refused = api(as_alice, running, "extend", {})
    assert (refused.status_code, refused.json()["code"]) == (409, "extend.used_up")


def test_the_api_says_that_the_cluster_has_not_answered_yet(
    cluster: RunningCluster, as_alice: Client, running: InteractiveSession
) -> None:
    cluster.fault("scheduler", "down")
    answer = api(as_alice, running, "extend", {})
    assert (answer.status_code, answer.json()["extending_to_seconds"]) == (202, 2 * HOUR)
