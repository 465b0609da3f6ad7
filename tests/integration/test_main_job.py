"""The main job through services and flows, on the demo cluster: real SSH, a small PBS, a real Jupyter."""

from __future__ import annotations

import pytest

from launcher import selectors, services
from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.services import LaunchRefused
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.selectors import verify
from tests.conftest import RunningCluster
from tests.story import allow, drive, events_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}


def test_a_session_goes_from_launch_to_ready_to_its_end_with_every_step_audited(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="192.0.2.1")
    drive(session, SessionState.READY)
    assert session.upstream_host
    assert session.job_id
    services.request_stop(session=session, actor=alice, address="192.0.2.1")
    drive(session, SessionState.ENDED)
    assert session.end_reason == "stopped_by_user"
    assert bytes(session.secret_encrypted) == b""
    assert events_of(session) == [
        "session.launched",
        "session.submitted",
        "session.started",
        "session.ready",
        "session.stop_requested",
        "session.cancelled",
        "session.ended",
    ]
    assert verify().broken is None


def test_a_second_launch_shows_the_session_that_exists(demo_cluster: RunningCluster, alice: User) -> None:
    first = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    with pytest.raises(LaunchRefused) as refused:
        launch(user=alice, app_id="jupyter", raw=RAW, address="")
    assert refused.value.code == "launch.limit_reached"
    assert refused.value.existing == first


def test_an_administrator_can_allow_two_sessions(demo_cluster: RunningCluster, alice: User) -> None:
    allow(alice, sessions=2)
    launch(user=alice, app_id="jupyter", raw=RAW, address="")
    launch(user=alice, app_id="jupyter", raw=RAW, address="")
    assert selectors.live_sessions(alice).count() == 2


def test_a_session_stopped_before_it_was_sent_leaves_no_job(demo_cluster: RunningCluster, alice: User) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    services.request_stop(session=session, actor=alice, address="")
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.ENDED
    assert session.end_reason == "stopped_by_user"
    assert session.job_id == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cores", "0"),
        ("cores", "1000000"),
        ("memory", "1.5x"),
        ("hours", "9000"),
        ("hours", "nan"),
        ("title", "two\nlines"),
        ("title", "x" * 10_000),
        ("queue", "nowhere"),
        ("environment", "module:not/offered"),
        ("folder", "no/such/folder"),
    ],
)
def test_bad_input_is_refused_at_its_field_and_nothing_is_submitted(
    demo_cluster: RunningCluster, alice: User, field: str, value: str
) -> None:
    with pytest.raises(LaunchRefused) as refused:
        launch(user=alice, app_id="jupyter", raw={**RAW, field: value}, address="")
    assert [name for name, _code, _params in refused.value.fields] == [field]
    assert not InteractiveSession.objects.exists()


def test_a_title_with_emoji_and_quotes_is_kept_as_it_is(demo_cluster: RunningCluster, alice: User) -> None:
    title = "Ünï \"quoted\" 'it' 🧪 $(rm -rf) `x`"
    session = launch(user=alice, app_id="jupyter", raw={**RAW, "title": title}, address="")
    drive(session, SessionState.READY)
    assert session.title == title


def test_an_unknown_app_is_refused_in_words(demo_cluster: RunningCluster, alice: User) -> None:
    with pytest.raises(LaunchRefused, match=r"app\.unknown"):
        launch(user=alice, app_id="nothing", raw=RAW, address="")


@pytest.mark.parametrize(("image", "code"), [("/no/such.sif", "image.missing"), ("FOLDER", "image.is_a_folder")])
def test_a_wrong_image_is_named_before_anything_is_submitted(
    demo_cluster: RunningCluster, alice: User, image: str, code: str
) -> None:
    path = str(demo_cluster.demo.image_folder) if image == "FOLDER" else image
    with pytest.raises(LaunchRefused) as refused:
        launch(user=alice, app_id="jupyter-container", raw={**RAW, "image": path}, address="")
    assert [(name, found) for name, found, _params in refused.value.fields] == [("image", code)]
    assert not InteractiveSession.objects.exists()


def test_the_container_app_becomes_ready(demo_cluster: RunningCluster, alice: User) -> None:
    image = next(iter(sorted(demo_cluster.demo.image_folder.glob("*.sif"))))
    session = launch(user=alice, app_id="jupyter-container", raw={**RAW, "image": str(image)}, address="")
    drive(session, SessionState.READY)


def test_while_the_scheduler_is_down_a_launch_is_kept_and_sent_later(demo_cluster: RunningCluster, alice: User) -> None:
    demo_cluster.fault("scheduler", "down")
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.SUBMITTING
    assert session.unreachable_since is not None
    demo_cluster.mend()
    drive(session, SessionState.READY)


def test_a_lost_answer_of_qsub_leads_to_one_job_that_is_adopted(demo_cluster: RunningCluster, alice: User) -> None:
    demo_cluster.fault("qsub_answer", "lost")
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    session.refresh_from_db()
    assert session.state == SessionState.SUBMITTING
    demo_cluster.mend()
    drive(session, SessionState.READY)
    assert "session.job_adopted" in events_of(session)
    assert session.submit_attempts == 2


def test_a_full_home_ends_the_session_with_words_and_without_a_job(demo_cluster: RunningCluster, alice: User) -> None:
    demo_cluster.fault("home_full", "alice")
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.end_code, session.job_id) == (SessionState.ENDED, "file.full", "")


def test_an_outage_of_the_scheduler_is_shown_and_ends_nothing(demo_cluster: RunningCluster, alice: User) -> None:
    session = drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)
    for fault in ("down", "garbled"):
        demo_cluster.fault("scheduler", fault)
        for _ in range(3):
            poll(session.cluster)
        session.refresh_from_db()
        assert session.state == SessionState.READY
        assert session.unreachable_since is not None
    demo_cluster.mend()
    poll(session.cluster)
    session.refresh_from_db()
    assert session.unreachable_since is None


def test_a_module_that_does_not_exist_is_named_as_the_reason(demo_cluster: RunningCluster, alice: User) -> None:
    (demo_cluster.root.parent / "clusters.toml").write_text(
        demo_cluster.toml(modules=["anaconda/5.3.0", "gone/1.0"]), encoding="utf-8"
    )
    from launcher import parts

    parts.forget()
    session = launch(user=alice, app_id="jupyter", raw={**RAW, "environment": "module:gone/1.0"}, address="")
    drive(session, SessionState.ENDED)
    assert (session.end_reason, session.end_code) == ("failed", "ended.module_missing")
    assert session.end_params["subject"] == "gone/1.0"
    assert session.log_tail
