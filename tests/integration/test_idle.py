"""Sessions that nobody uses, with real Jupyter servers: seen through the tunnel, announced, then stopped."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import os
import signal
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from django.test import Client
from websockets.sync.client import connect

from launcher import parts, services
from launcher.cards import card_of
from launcher.connection import secret_headers
from launcher.flows import activity
from launcher.flows.activity import ask_jupyter, look_around
from launcher.flows.launch import launch
from launcher.models import InteractiveSession, Notice, NoticeKind
from launcher.parts import hands_loop
from launcher.selectors import target_of
from launcher.services import Look
from launcher.states import EndReason, SessionState
from launcher.tasks import tick
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.conftest import RunningCluster
from tests.integration.jupyter_job import Job, Kernel
from tests.settings import FOLDER
from tests.story import drive, events_of, local_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}
LIMIT = 8
SAMPLE_SECONDS = 5  # as launcher/jobfiles/jupyter_server.py has it
LONG = 7200


def set_limit(cluster: RunningCluster, seconds: int) -> None:
    (FOLDER / "clusters.toml").write_text(cluster.toml(idle_stop_seconds=seconds), encoding="utf-8")
    parts.forget()


@pytest.fixture
def ready(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice with a real Jupyter, which may be unused for some seconds."""
    set_limit(demo_cluster, LIMIT)
    return drive(launch(user=alice, app_id="jupyter", raw=RAW, address=""), SessionState.READY)


def looked(session: InteractiveSession) -> InteractiveSession:
    """The session after a round."""
    look_around(session.cluster)
    session.refresh_from_db()
    return session


def make_due(session: InteractiveSession, **changes: object) -> None:
    """The next round looks at this session."""
    InteractiveSession.objects.filter(pk=session.pk).update(activity_check_at=now(), **changes)
    session.refresh_from_db()


@contextlib.contextmanager
def page_of(session: InteractiveSession) -> Iterator[Kernel]:
    """A kernel with a page open at it."""
    headers = secret_headers("identity", target_secret(session))
    unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
    with local_port(session) as port:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.request("POST", f"{session.base_url}api/kernels", body="{}", headers=unsafe)
            kernel_id = json.loads(client.getresponse().read())["id"]
        address = f"ws://127.0.0.1:{port}{session.base_url}api/kernels/{kernel_id}/channels"
        with connect(address, additional_headers=headers, compression=None) as socket:
            yield Kernel(kernel_id, socket)


def target_secret(session: InteractiveSession) -> str:
    target = target_of(session)
    assert target is not None
    return target.secret


def told(session: InteractiveSession) -> int:
    return Notice.objects.filter(session=session, kind=NoticeKind.IDLE).count()


# From the first look to the end


def test_an_unused_session_is_announced_and_then_stopped_for_being_idle(ready: InteractiveSession) -> None:
    wait_for(lambda: looked(ready).idle_stop_at, what="the announcement")
    assert told(ready) == 1
    assert ready.state == SessionState.READY
    announced = ready.idle_stop_at
    wait_for(lambda: looked(ready).state == SessionState.STOPPING, what="the stop")
    assert ready.stop_requested_at >= announced
    drive(ready, SessionState.ENDED)
    assert (ready.end_reason, ready.end_code) == (EndReason.IDLE, "ended.idle")
    assert "not used" in card_of(ready).end_sentence
    event = AuditEvent.objects.get(name="session.stop_requested", session_id=ready.id)
    assert (event.actor, event.data["reason"]) == ("portal", "idle")
    assert told(ready) == 1


def test_a_kernel_that_computes_silently_for_longer_than_the_limit_keeps_its_session(ready: InteractiveSession) -> None:
    with page_of(ready) as kernel:
        kernel.send("execute_request", {"code": "import time; time.sleep(600)", "silent": False})
        begun = now()
        wait_for(
            lambda: looked(ready).active_at is not None and now() - begun > dt.timedelta(seconds=2 * LIMIT),
            seconds=60,
            what="twice the limit",
        )
    assert ready.state == SessionState.READY
    assert ready.idle_stop_at is None
    assert told(ready) == 0
    assert now() - ready.active_at < dt.timedelta(seconds=LIMIT)


BUSY = "import time\nends_at = time.monotonic() + 120\nwhile time.monotonic() < ends_at: pass"
"""A program that computes and prints nothing."""


def start_from_kernel(session: InteractiveSession, program: str) -> None:
    """Leave a program in the background, as nohup does, and end the page; the kernel stays and is idle."""
    with page_of(session) as kernel:
        kernel.run(
            "import subprocess, sys\n"
            f"subprocess.Popen([sys.executable, '-c', {program!r}], start_new_session=True,"
            " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
        )


def start_in_terminal(session: InteractiveSession, program: str) -> None:
    """Type a command into a new terminal and close the page."""
    headers = secret_headers("identity", target_secret(session))
    unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
    (FOLDER / "program.py").write_text(program, encoding="utf-8")
    with local_port(session) as port:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.request("POST", f"{session.base_url}api/terminals", body="{}", headers=unsafe)
            name = json.loads(client.getresponse().read())["name"]
        address = f"ws://127.0.0.1:{port}{session.base_url}terminals/websocket/{name}"
        with connect(address, additional_headers=headers, compression=None) as socket:
            command = f"exec {sys.executable} {FOLDER / 'program.py'}\r"
            socket.send(json.dumps(["stdin", command]))
            wait_for(lambda: "program.py" in str(socket.recv(timeout=60)), what="the terminal's echo")


def programs(text: str) -> list[int]:
    """Processes of this machine in whose command line this stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("start", "sign"), [(start_from_kernel, "ends_at = time.monotonic()"), (start_in_terminal, "program.py")]
)
def test_a_program_that_computes_silently_in_the_background_keeps_its_session_until_it_has_ended(
    ready: InteractiveSession, start: Callable[[InteractiveSession, str], None], sign: str
) -> None:
    start(ready, BUSY)
    began = now()
    (program,) = wait_for(lambda: programs(sign), what="the program")
    wait_for(
        lambda: (now() - began).total_seconds() > 2.5 * LIMIT or looked(ready).stop_requested_at,
        seconds=60,
        what="the limit to be over twice",
    )
    assert ready.stop_requested_at is None
    os.kill(program, signal.SIGKILL)
    wait_for(lambda: looked(ready).state == SessionState.STOPPING, seconds=60, what="the stop")
    assert ready.stop_reason == EndReason.IDLE


def test_a_program_that_only_waits_is_no_work(ready: InteractiveSession) -> None:
    start_from_kernel(ready, "import time; time.sleep(600)")
    wait_for(lambda: looked(ready).state == SessionState.STOPPING, seconds=60, what="the stop")
    assert ready.stop_reason == EndReason.IDLE


def test_work_after_the_announcement_takes_it_back(ready: InteractiveSession) -> None:
    wait_for(lambda: looked(ready).idle_stop_at, what="the announcement")
    InteractiveSession.objects.filter(pk=ready.pk).update(idle_stop_at=now() + dt.timedelta(minutes=1))
    with page_of(ready) as kernel:
        assert kernel.run("print(6 * 7)") == "42"
        make_due(ready)
        looked(ready)
    assert ready.idle_stop_at is None
    assert ready.state == SessionState.READY


def test_an_open_page_with_an_idle_kernel_is_no_work(ready: InteractiveSession) -> None:
    with page_of(ready) as kernel, local_port(ready) as port:
        assert kernel.run("print(1)") == "1"
        worked_at = now()
        headers = secret_headers("identity", target_secret(ready))
        unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
        layout = json.dumps({"data": {}, "metadata": {"id": "default"}})

        def what_pages_do_by_themselves() -> bool:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
                for path in ("api/contents?content=1", "api/sessions", "api/kernels", "api/terminals"):
                    client.request("GET", ready.base_url + path, headers=headers)
                    assert client.getresponse().read()
                client.request("PUT", f"{ready.base_url}lab/api/workspaces/default", body=layout, headers=unsafe)
                answer = client.getresponse()
                answer.read()
                assert answer.status == 204
            return now() - worked_at > dt.timedelta(seconds=3 * SAMPLE_SECONDS)

        wait_for(what_pages_do_by_themselves)
        make_due(ready)
        look_around(ready.cluster)
        ready.refresh_from_db()
    # the next sample may still count what the kernel computed when it was started
    assert ready.active_at - worked_at < dt.timedelta(seconds=SAMPLE_SECONDS + 2)


def test_saving_a_file_is_work(ready: InteractiveSession) -> None:
    make_due(ready)
    before = looked(ready).active_at
    headers = secret_headers("identity", target_secret(ready))
    unsafe = {**headers, "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
    body = json.dumps({"type": "file", "format": "text", "content": "x"})

    def saved_later() -> bool:
        with local_port(ready) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
            client.request("PUT", f"{ready.base_url}api/contents/a.txt", body=body, headers=unsafe)
            assert client.getresponse().status in (200, 201)
        make_due(ready)
        return looked(ready).active_at - before > dt.timedelta(seconds=1.5)

    wait_for(saved_later)


# Keep it running


def test_keep_it_running_takes_the_announcement_back_and_is_audited_once(
    ready: InteractiveSession, as_alice: Client
) -> None:
    wait_for(lambda: looked(ready).idle_stop_at, what="the announcement")
    page = as_alice.get(f"/sessions/{ready.id}/").content.decode()
    assert f"/sessions/{ready.id}/keep/" in page
    assert f"/sessions/{ready.id}/keep/" in as_alice.get("/").content.decode()
    for _ in range(2):
        assert as_alice.post(f"/sessions/{ready.id}/keep/").status_code == 302
    ready.refresh_from_db()
    assert ready.idle_stop_at is None
    assert events_of(ready).count("session.kept_running") == 1
    make_due(ready)
    assert looked(ready).state == SessionState.READY
    assert f"/sessions/{ready.id}/keep/" not in as_alice.get(f"/sessions/{ready.id}/").content.decode()


def test_keep_it_running_is_the_owners_alone(ready: InteractiveSession, as_bob: Client, as_admin: Client) -> None:
    wait_for(lambda: looked(ready).idle_stop_at, what="the announcement")
    for somebody in (as_bob, as_admin):
        assert somebody.post(f"/sessions/{ready.id}/keep/").status_code == 404
    assert f"/sessions/{ready.id}/keep/" not in as_admin.get(f"/sessions/{ready.id}/").content.decode()
    ready.refresh_from_db()
    assert ready.idle_stop_at is not None
    assert AuditEvent.objects.filter(name="session.access_denied", session_id=ready.id).count() == 2


def test_a_wish_to_keep_it_that_comes_during_the_last_look_wins(ready: InteractiveSession, alice: User) -> None:
    long_ago = now() - dt.timedelta(minutes=5)
    make_due(ready, active_at=long_ago, ready_at=long_ago, idle_stop_at=now())
    last_look = Look(at=now(), unused_seconds=300.0)
    services.keep_running(session=ready, actor=alice, address="")
    services.record_look(ready, last_look, limit=LIMIT)
    ready.refresh_from_db()
    assert ready.state == SessionState.READY


# Nothing follows from what is not known


@pytest.mark.parametrize("seconds", [0, LONG])
def test_where_the_cluster_says_never_or_later_nothing_is_announced(
    demo_cluster: RunningCluster, ready: InteractiveSession, seconds: int
) -> None:
    set_limit(demo_cluster, seconds)
    long_ago = now() - dt.timedelta(seconds=LONG / 2)
    make_due(ready, active_at=long_ago, ready_at=long_ago)
    assert looked(ready).idle_stop_at is None
    assert ready.state == SessionState.READY


def test_without_a_rule_no_server_is_asked(
    demo_cluster: RunningCluster, ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(demo_cluster, 0)
    asked: list[object] = []
    monkeypatch.setattr(activity, "ask_jupyter", asked.append)
    make_due(ready)
    looked(ready)
    assert asked == []


def test_a_session_that_was_used_is_left_alone_until_shortly_before_the_warning(
    demo_cluster: RunningCluster, ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(demo_cluster, LONG)
    looked(ready)
    assert ready.activity_check_at - ready.ready_at == dt.timedelta(seconds=LONG - 600)
    asked: list[object] = []
    monkeypatch.setattr(activity, "ask_jupyter", asked.append)
    looked(ready)
    assert asked == []


def test_a_rule_that_became_shorter_counts_at_once(demo_cluster: RunningCluster, ready: InteractiveSession) -> None:
    set_limit(demo_cluster, LONG)
    looked(ready)
    set_limit(demo_cluster, LIMIT)
    wait_for(lambda: looked(ready).idle_stop_at, what="the announcement")


ANNOUNCED_LONG_AGO = dt.timedelta(hours=5)

FUTURE = json.dumps({"last_activity": "2999-01-01T00:00:00Z"}).encode()


def said(body: bytes, *, head: str = "") -> bytes:
    date = now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    return f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


HOSTILE: dict[str, bytes | str] = {
    "nothing": b"",
    "noise": b"\x00\xff" * 100,
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    "endless body": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 1_000_000,
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "without a date": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "null": "null",
    "no zone": '{"last_activity": "1970-01-01T00:00:00"}',
    "deep": "[" * 50_000,
    "silence": "silence",
}


def test_no_hostile_server_changes_anything(ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "LOOK_SECONDS", 1)
    long_ago = now() - ANNOUNCED_LONG_AGO
    for name, answer in HOSTILE.items():
        with liar(answer) as port:
            make_due(ready, upstream_port=port, active_at=long_ago, ready_at=long_ago, idle_stop_at=now())
            stop_at, begun = ready.idle_stop_at, now()
            looked(ready)
        assert (ready.state, ready.active_at, ready.idle_stop_at) == (SessionState.READY, long_ago, stop_at), name
        assert ready.activity_check_at >= begun + dt.timedelta(seconds=1), name


def test_a_server_that_speaks_of_the_future_has_been_used_until_now_and_no_longer(ready: InteractiveSession) -> None:
    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            bodies = iter([FUTURE, b"[]", b"[]"])
            while self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(said(next(bodies)))

    with served(Answers) as port:
        make_due(ready, upstream_port=port)
        assert looked(ready).active_at <= now()


@contextlib.contextmanager
def liar(answer: bytes | str) -> Iterator[int]:
    """A server that gives the same answer to everything, or none."""

    class Lies(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while self.rfile.readline():
                    while self.rfile.readline().strip():
                        pass
                    if answer == "silence":
                        continue
                    self.wfile.write(answer if isinstance(answer, bytes) else said(answer.encode()))

    with served(Lies) as port:
        yield port


@contextlib.contextmanager
def served(handler: type[socketserver.StreamRequestHandler]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_session_whose_server_cannot_be_reached_is_not_stopped(ready: InteractiveSession) -> None:
    long_ago = now() - ANNOUNCED_LONG_AGO
    make_due(ready, upstream_port=1, active_at=long_ago, ready_at=long_ago, idle_stop_at=now())
    assert looked(ready).state == SessionState.READY


def test_a_portal_that_was_away_for_hours_announces_before_it_stops(
    ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle_for_hours(target: object) -> list[object]:
        return []

    monkeypatch.setattr(activity, "ask_jupyter", idle_for_hours)
    monkeypatch.setattr(activity, "unused_seconds", lambda answers: 3 * 3600.0)
    long_ago = now() - ANNOUNCED_LONG_AGO
    for announced in (None, now() - dt.timedelta(hours=4)):
        make_due(ready, active_at=long_ago, ready_at=long_ago, idle_stop_at=announced)
        assert looked(ready).state == SessionState.READY
        assert ready.idle_stop_at > now() + dt.timedelta(seconds=1)


def test_a_look_that_is_old_stops_nothing(ready: InteractiveSession) -> None:
    long_ago = now() - ANNOUNCED_LONG_AGO
    make_due(ready, active_at=long_ago, ready_at=long_ago, idle_stop_at=now() - dt.timedelta(seconds=100))
    services.record_look(ready, Look(at=now() - dt.timedelta(seconds=90), unused_seconds=3600.0), limit=LIMIT)
    ready.refresh_from_db()
    assert ready.state == SessionState.READY


def test_a_session_that_the_cluster_has_paused_is_not_to_blame(ready: InteractiveSession) -> None:
    long_ago = now() - ANNOUNCED_LONG_AGO
    make_due(ready, active_at=long_ago, ready_at=long_ago, idle_stop_at=now(), job_state="suspended")
    looked(ready)
    assert (ready.state, ready.idle_stop_at) == (SessionState.READY, None)


# Rounds


def test_three_answers_come_over_one_connection_and_carry_the_secret_in_a_header(ready: InteractiveSession) -> None:
    target = target_of(ready)
    assert target is not None
    answers = hands_loop().run(ask_jupyter(target), 60)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert all(answer.date for answer in answers)


def test_the_look_itself_is_no_activity(ready: InteractiveSession) -> None:
    make_due(ready)
    first = looked(ready).active_at

    def looked_for_a_while() -> bool:
        make_due(ready)
        looked(ready)
        return now() - first > dt.timedelta(seconds=4)

    wait_for(looked_for_a_while)
    assert ready.active_at - first < dt.timedelta(seconds=2)


def test_the_tick_starts_a_round_and_a_second_one_only_when_it_is_due(
    demo_cluster: RunningCluster, ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher import tasks

    sent: list[Mapping[str, object]] = []
    monkeypatch.setattr(tasks.look_around, "apply_async", lambda **message: sent.append(message))
    tick()
    tick()
    assert [message["args"] for message in sent] == [["demo"]]


def test_two_rounds_of_one_cluster_do_not_run_side_by_side(
    ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: list[str] = []

    def round_in_a_round(*arguments: object) -> None:
        inner.append("outer")
        if len(inner) < 3:
            look_around("demo")

    monkeypatch.setattr(activity, "_look_around", round_in_a_round)
    look_around("demo")
    assert inner == ["outer"]
    look_around("demo")
    assert len(inner) == 2


# The job's own rule


@pytest.fixture
def job(tmp_path: object) -> Iterator[Job]:
    """A job script that runs without a portal."""
    found = Job(tmp_path)  # type: ignore[arg-type]  # pytest's own path
    yield found
    found.kill()


def test_without_a_portal_the_job_ends_itself_when_nobody_uses_it(job: Job) -> None:
    job.start(idle_stop_seconds=4)
    job.connection()
    assert job.wait(90) == 0
    assert "footbridge: ended=idle" in job.log


def test_a_job_with_a_kernel_that_computes_does_not_end_itself(job: Job) -> None:
    job.start(idle_stop_seconds=4)
    with job.kernel() as kernel:
        assert kernel.run("import time; time.sleep(10); print('done')") == "done"
        assert job.process is not None
        assert job.process.poll() is None


def test_a_job_that_the_portal_looks_after_does_not_end_itself(job: Job) -> None:
    job.start(idle_stop_seconds=4)
    found = job.connection()
    headers = {**secret_headers(found.flavor, job.secret), "X-Footbridge-Look": "1"}
    begun = now()

    def looked_after_for_a_while() -> bool:
        assert job.get("api/status?no_track_activity=1", headers=headers).status == 200
        return now() - begun > dt.timedelta(seconds=10)

    wait_for(looked_after_for_a_while, pause_seconds=0.2)
    assert job.process is not None
    assert job.process.poll() is None
