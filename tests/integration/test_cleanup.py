"""Session folders are removed after the retention time, and nothing else is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from launcher.flows.cleanup import clean_up
from launcher.flows.launch import launch
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import RunningCluster
from tests.integration.test_main_job import RAW, drive, events_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]


@pytest.fixture
def ended(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice that ended 31 days ago, with its folder."""
    from launcher import services

    session = drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.STARTING)
    services.request_stop(session=session, actor=alice, address="")
    drive(session, SessionState.ENDED)
    session.ended_at -= dt.timedelta(days=31)
    session.save()
    assert Path(session.folder).is_dir()
    return session


def test_an_old_folder_is_removed_once_and_the_fact_is_kept(ended: InteractiveSession) -> None:
    for _ in range(2):
        clean_up()
    assert not Path(ended.folder).exists()
    assert events_of(ended).count("session.folder_removed") == 1


def test_a_younger_folder_stays(ended: InteractiveSession) -> None:
    ended.ended_at += dt.timedelta(days=2)
    ended.save()
    clean_up()
    assert Path(ended.folder).is_dir()


def test_a_link_in_the_place_of_a_folder_is_not_followed(ended: InteractiveSession, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    folder = Path(ended.folder)
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(precious)
    clean_up()
    assert (precious / "file").read_text() == "keep"
    folder.unlink()


def test_a_cluster_that_is_away_holds_nothing_up(ended: InteractiveSession, demo_cluster: RunningCluster) -> None:
    demo_cluster.fault("login", "gone")
    clean_up()
    ended.refresh_from_db()
    assert ended.folder_removed_at is None
