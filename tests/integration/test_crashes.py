"""A worker that is killed at any step of a submission: afterwards there is one job, one row and a whole audit chain.

The worker is a process of its own (``crashing_worker``). What follows is what the portal does by itself: the claim runs
out, a poll round finds the session, another worker submits it. Only the clock is helped, by moving the claim's time.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import pytest
from django.core.cache import cache
from django.db import connection

from launcher import selectors, services
from launcher.democluster.pbs.job import Job
from launcher.flows import poll as poll_flow
from launcher.flows.launch import launch
from launcher.flows.submit import submit
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.selectors import verify
from portal.conf import PROJECT, conf
from tests.conftest import RunningCluster
from tests.story import drive, events_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Crash"}

LOCK = "poll:lock:demo"
WITHOUT_A_JOB = ("claimed", "folder", "first_file", "files")
WITH_A_JOB = ("answer_arrives", "answered", "understood", "before_commit")


def database_url() -> str:
    """The test's database, as another process is told of it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(name)}"
    return urlsplit(conf().database)._replace(path=f"/{name}").geturl()


def worker_environment() -> dict[str, str]:
    """The environment of a process that works on the test's database."""
    return os.environ | {"DJANGO_SETTINGS_MODULE": "portal.settings", "PORTAL_DATABASE_URL": database_url()}


@contextmanager
def worker(session: InteractiveSession, point: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that submits the session and is killed at ``point``; not left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.crashing_worker", point, session.id],
        cwd=PROJECT,
        env=worker_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def crash(session: InteractiveSession, point: str) -> None:
    """Let a worker submit the session and die at ``point``."""
    with worker(session, point) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, said.decode("utf-8", "replace")


def jobs_of(cluster: RunningCluster, session: InteractiveSession) -> list[Job]:
    """Every job that the cluster ever had under the session's marker."""
    return [job for job in cluster.demo.scheduler.jobs.values() if job.request.name == session.job_name]


def let_the_claim_run_out(session: InteractiveSession) -> None:
    """As if the dead worker's claim had been made long enough ago."""
    long_ago = dt.timedelta(seconds=services.CLAIM_SECONDS + 1)
    session.refresh_from_db()
    assert session.claimed_at is not None
    InteractiveSession.objects.filter(pk=session.pk).update(
        claimed_at=session.claimed_at - long_ago, created_at=session.created_at - long_ago
    )


def recover(session: InteractiveSession) -> None:
    """What the next poll rounds and a healthy worker do. Before the claim has run out, nothing."""
    submit(session.id)
    session.refresh_from_db()
    assert (session.state, session.job_id) == (SessionState.SUBMITTING, "")
    assert not selectors.waiting_for_submission(session.cluster, older_than_seconds=0)
    let_the_claim_run_out(session)
    assert list(selectors.waiting_for_submission(session.cluster, older_than_seconds=0)) == [session]
    submit(session.id)
    session.refresh_from_db()


def one_job_one_row(cluster: RunningCluster, session: InteractiveSession) -> None:
    """The session has the only job that ever carried its marker, and every event of it stands in a whole chain."""
    assert session.state == SessionState.QUEUED
    assert [job.job_id for job in jobs_of(cluster, session)] == [session.job_id]
    assert InteractiveSession.objects.count() == 1
    assert verify().broken is None


@pytest.mark.parametrize("point", WITHOUT_A_JOB)
def test_a_worker_killed_before_qsub_leaves_a_session_that_another_submits(
    demo_cluster: RunningCluster, alice: User, point: str
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    crash(session, point)
    assert jobs_of(demo_cluster, session) == []
    recover(session)
    one_job_one_row(demo_cluster, session)
    assert events_of(session) == ["session.launched", "session.submitted"]


@pytest.mark.parametrize("point", WITH_A_JOB)
def test_a_worker_killed_between_qsub_and_commit_leaves_a_job_that_another_adopts(
    demo_cluster: RunningCluster, alice: User, point: str
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    crash(session, point)
    assert len(jobs_of(demo_cluster, session)) == 1
    recover(session)
    one_job_one_row(demo_cluster, session)
    assert events_of(session) == ["session.launched", "session.job_adopted"]


def test_a_worker_killed_after_the_commit_leaves_nothing_to_do(demo_cluster: RunningCluster, alice: User) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    crash(session, "committed")
    submit(session.id)
    session.refresh_from_db()
    one_job_one_row(demo_cluster, session)
    assert events_of(session) == ["session.launched", "session.submitted"]


def test_a_worker_killed_while_qsub_hangs_leaves_one_job_in_the_end(demo_cluster: RunningCluster, alice: User) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    demo_cluster.fault("scheduler", "hung")
    with worker(session, "hung") as process:
        wait_for(lambda: _waits_for_qsub(session), what="qsub to be sent")
        process.kill()
        process.wait(60)
    demo_cluster.mend()
    recover(session)
    one_job_one_row(demo_cluster, session)


def test_two_workers_killed_one_after_the_other_leave_one_job(demo_cluster: RunningCluster, alice: User) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    crash(session, "answered")
    for point in ("adopted", "before_commit"):
        let_the_claim_run_out(session)
        crash(session, point)
    recover(session)
    one_job_one_row(demo_cluster, session)
    assert session.submit_attempts == 4


def test_a_stop_after_the_crash_ends_the_job_that_nobody_knew_of(demo_cluster: RunningCluster, alice: User) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    crash(session, "answered")
    services.request_stop(session=session, actor=alice, address="")
    let_the_claim_run_out(session)
    drive(session, SessionState.ENDED)
    (job,) = jobs_of(demo_cluster, session)
    assert job.deleted_by == "alice"
    assert (session.end_reason, session.job_id) == ("stopped_by_user", job.job_id)
    assert verify().broken is None


def test_a_worker_killed_in_a_poll_round_holds_up_the_next_for_seconds_only(
    demo_cluster: RunningCluster, alice: User
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    crash(session, "polling")
    assert cache.get(LOCK) is not None
    left_seconds = cache._cache.get_client().ttl(cache.make_key(LOCK))  # type: ignore[attr-defined]  # Redis's own word
    assert 0 < left_seconds <= poll_flow.LOCK_SECONDS <= 30


def test_a_poll_round_that_takes_long_keeps_its_lock(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    monkeypatch.setattr(poll_flow, "LOCK_SECONDS", 2)
    demo_cluster.fault("scheduler", "slow")  # more than twice as long as the lock holds by itself

    def one_round() -> None:
        try:
            poll_flow.poll(session.cluster)
        finally:
            connection.close()

    polling = threading.Thread(target=one_round)
    polling.start()
    wait_for(lambda: cache.get(LOCK), what="the round to begin")
    mark, began = cache.get(LOCK), time.monotonic()
    wait_for(lambda: cache.get(LOCK) != mark, what="the round to end")
    assert time.monotonic() - began > 3
    polling.join(60)
    session.refresh_from_db()
    assert session.polled_at is not None


def test_a_round_that_lost_its_lock_does_not_renew_the_lock_of_another(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    submit(session.id)
    monkeypatch.setattr(poll_flow, "LOCK_SECONDS", 1)
    demo_cluster.fault("scheduler", "hung")

    def one_round() -> None:
        try:
            poll_flow.poll(session.cluster)
        finally:
            connection.close()

    polling = threading.Thread(target=one_round)
    polling.start()
    wait_for(lambda: cache.get(LOCK), what="the round to begin")
    cache.set(LOCK, "of a worker that dies at once", 1)
    wait_for(lambda: cache.get(LOCK) is None, what="the other's lock to run out")
    assert polling.is_alive(), "the round must still be going on, or this shows nothing"
    demo_cluster.mend()
    polling.join(60)


def _waits_for_qsub(session: InteractiveSession) -> bool:
    """Whether a qsub that carries the session's marker runs on the login host, which is this machine."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True, timeout=60)
    return any("qsub" in line and session.job_name in line for line in listed.stdout.splitlines())
