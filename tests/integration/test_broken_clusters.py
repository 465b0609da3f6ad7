"""A broken entry of the clusters file makes no session undeletable, and breaks no page."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.test import Client

from launcher import parts, services
from launcher.flows.cancel import cancel
from launcher.flows.cleanup import clean_up
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.states import SessionState
from launcher.tasks import tick
from portal.accounts.models import Role, User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.conftest import RunningCluster
from tests.settings import FOLDER
from tests.story import drive, events_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}
MINUTES = dt.timedelta(minutes=1)


@pytest.fixture
def session(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice, not yet sent."""
    return launch(user=alice, app_id="jupyter", raw=RAW, address="")


@pytest.fixture
def running(session: InteractiveSession) -> InteractiveSession:
    """One whose job runs."""
    return drive(session, SessionState.STARTING)


def rename_entry(cluster: RunningCluster) -> None:
    """The cluster of the sessions is now called something else in the clusters file."""
    text = cluster.toml().replace("clusters.demo", "clusters.renamed")
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()


def age(session: InteractiveSession, minutes: int) -> None:
    """Let the stop and the silence be older."""
    session.refresh_from_db()
    assert session.stop_requested_at is not None
    long_ago = now() - minutes * MINUTES
    InteractiveSession.objects.filter(pk=session.pk).update(stop_requested_at=long_ago, unreachable_since=long_ago)


def stop(session: InteractiveSession) -> InteractiveSession:
    assert session.owner is not None
    services.request_stop(session=session, actor=session.owner, address="")
    session.refresh_from_db()
    return session


@pytest.mark.parametrize("state", ["session", "running"])
def test_a_session_whose_entry_was_renamed_ends_when_it_is_stopped(
    demo_cluster: RunningCluster, request: pytest.FixtureRequest, state: str
) -> None:
    session = request.getfixturevalue(state)
    rename_entry(demo_cluster)
    assert stop(session).end_code == "ended.cluster_gone"


def test_a_session_that_was_being_stopped_when_its_entry_went_ends_a_little_later(
    demo_cluster: RunningCluster, running: InteractiveSession
) -> None:
    stop(running)
    rename_entry(demo_cluster)
    tick()
    running.refresh_from_db()
    assert (running.state, running.unreachable_since is None) == (SessionState.STOPPING, False)
    age(running, 16)
    for _ in range(2):
        tick()
    running.refresh_from_db()
    assert (running.state, running.end_code) == (SessionState.ENDED, "ended.cluster_gone")
    assert events_of(running).count("session.ended") == 1


def test_a_session_that_nobody_stopped_outlives_the_absence_of_its_entry(
    demo_cluster: RunningCluster, running: InteractiveSession
) -> None:
    rename_entry(demo_cluster)
    InteractiveSession.objects.filter(pk=running.pk).update(unreachable_since=now() - 60 * MINUTES)
    tick()
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(), encoding="utf-8")
    parts.forget()
    drive(running, SessionState.READY)


def test_messages_about_a_cluster_without_an_entry_are_no_errors(
    demo_cluster: RunningCluster, session: InteractiveSession
) -> None:
    rename_entry(demo_cluster)
    submit(session.id)
    cancel(session.id)
    poll("demo")
    clean_up()
    session.refresh_from_db()
    assert (session.state, session.claim, session.submit_attempts) == (SessionState.SUBMITTING, "", 0)
    assert session.unreachable_since is not None


def test_a_session_is_sent_when_its_entry_has_come_back(
    demo_cluster: RunningCluster, session: InteractiveSession
) -> None:
    rename_entry(demo_cluster)
    submit(session.id)
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(), encoding="utf-8")
    parts.forget()
    drive(session, SessionState.STARTING)
    assert session.unreachable_since is None


def test_pages_show_a_session_whose_cluster_has_no_entry(
    demo_cluster: RunningCluster, running: InteractiveSession, as_alice: Client, as_admin: Client
) -> None:
    rename_entry(demo_cluster)
    tick()
    for path in ("/", f"/sessions/{running.id}/", f"/sessions/{running.id}/live/", "/history/"):
        assert as_alice.get(path).status_code == 200
    for path in ("/administration/sessions/", "/administration/clusters/", f"/sessions/{running.id}/"):
        assert as_admin.get(path).status_code == 200
    assert as_alice.post(f"/sessions/{running.id}/stop/").status_code == 302
    running.refresh_from_db()
    assert running.state == SessionState.ENDED
    assert as_alice.get(f"/sessions/{running.id}/").status_code == 200


def test_the_folder_of_a_session_whose_entry_came_back_is_removed_after_all(
    demo_cluster: RunningCluster, running: InteractiveSession
) -> None:
    drive(stop(running), SessionState.ENDED)
    InteractiveSession.objects.filter(pk=running.pk).update(ended_at=now() - dt.timedelta(days=31))
    rename_entry(demo_cluster)
    clean_up()
    assert Path(running.folder).is_dir()
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(), encoding="utf-8")
    parts.forget()
    clean_up()
    assert not Path(running.folder).exists()


@pytest.mark.parametrize("trouble", ["login host gone", "credential refused"])
def test_an_administrator_gives_up_a_stopped_session_whose_cluster_cannot_be_asked(
    demo_cluster: RunningCluster,
    running: InteractiveSession,
    as_alice: Client,
    as_admin: Client,
    trouble: str,
) -> None:
    if trouble == "login host gone":
        demo_cluster.fault("login", "gone")
        parts.hands_loop().run(parts.hands().pool.close_user("demo", "alice"), 60)
    else:
        InteractiveSession.objects.filter(pk=running.pk).update(username="nobody-here")
        running.refresh_from_db()
    stop(running)
    cancel(running.id)
    poll("demo")
    running.refresh_from_db()
    assert (running.state, running.unreachable_since is None) == (SessionState.STOPPING, False)
    door = f"/sessions/{running.id}/give-up/"
    assert as_admin.post(door).status_code == 404, "it has not been long"
    age(running, 11)
    assert "Give it up" in as_admin.get(f"/sessions/{running.id}/").content.decode()
    assert "Give it up" not in as_alice.get(f"/sessions/{running.id}/").content.decode()
    assert as_alice.post(door).status_code == 404
    assert [as_admin.post(door).status_code, as_admin.post(door).status_code] == [302, 404]
    running.refresh_from_db()
    assert (running.state, running.end_code) == (SessionState.ENDED, "ended.given_up_by_admin")
    event = AuditEvent.objects.get(name="session.given_up")
    assert (event.actor, event.data) == ("admin", {"job_id": running.job_id})


def test_an_auditor_gives_nothing_up(running: InteractiveSession, as_bob: Client, bob: User) -> None:
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    stop(running)
    age(running, 60)
    assert as_bob.post(f"/sessions/{running.id}/give-up/").status_code == 404


def test_a_session_whose_cluster_answers_cannot_be_given_up(running: InteractiveSession, as_admin: Client) -> None:
    stop(running)
    InteractiveSession.objects.filter(pk=running.pk).update(stop_requested_at=now() - 60 * MINUTES)
    assert as_admin.post(f"/sessions/{running.id}/give-up/").status_code == 404
