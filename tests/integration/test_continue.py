"""A session is continued in a new one: it waits, opens at the same notebook, and stands once beside its predecessor."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connections
from django.test import Client

from launcher import selectors
from launcher.connection import secret_headers
from launcher.flows.continuing import continue_session
from launcher.flows.launch import launch
from launcher.models import InteractiveSession
from launcher.sealing import unseal
from launcher.services import LaunchRefused
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import RunningCluster
from tests.story import drive, events_of, local_port, one_round
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Long", "folder": ""}


def launched(user: User, **changes: object) -> InteractiveSession:
    return launch(user=user, app_id="jupyter", raw={**RAW, **changes}, address="")


@pytest.fixture
def running(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice whose job runs."""
    session = launched(alice)
    wait_for(lambda: one_round(session).started_at, what="the job to run")
    return session


def continued(session: InteractiveSession, user: User) -> InteractiveSession:
    return continue_session(session=session, user=user, address="192.0.2.1")


def test_it_has_the_same_settings_and_the_old_one_runs_on(running: InteractiveSession, alice: User) -> None:
    further = continued(running, alice)
    assert (further.app, further.cluster, further.choices) == (running.app, running.cluster, running.choices)
    assert further.continues == running
    wait_for(lambda: one_round(further).job_id, what="its job")
    assert one_round(running).stop_requested_at is None
    assert running.state in (SessionState.STARTING, SessionState.READY)
    assert "session.continued" in events_of(running)
    assert events_of(further)[0] == "session.launched"


def test_who_asks_twice_gets_the_first(running: InteractiveSession, alice: User) -> None:
    first = continued(running, alice)
    assert continued(selectors.find(running.id) or running, alice) == first
    assert InteractiveSession.objects.count() == 2
    assert events_of(running).count("session.continued") == 1


def test_two_browsers_at_once_get_the_same(running: InteractiveSession, alice: User) -> None:
    start, found = threading.Barrier(2), list[str]()

    def press() -> None:
        try:
            start.wait(60)
            found.append(continued(InteractiveSession.objects.get(pk=running.pk), alice).id)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert len(found) == 2
    assert len(set(found)) == 1
    assert InteractiveSession.objects.count() == 2


def test_a_continuation_is_no_way_around_the_limit(running: InteractiveSession, alice: User) -> None:
    further = continued(running, alice)
    wait_for(lambda: one_round(further).started_at, what="its job to run")
    with pytest.raises(LaunchRefused) as refused:
        continued(further, alice)
    assert refused.value.code == "launch.limit_reached"
    with pytest.raises(LaunchRefused):
        launched(alice)


def test_what_does_not_run_is_not_continued(demo_cluster: RunningCluster, alice: User) -> None:
    session = launched(alice)
    with pytest.raises(LaunchRefused) as refused:
        continued(session, alice)
    assert refused.value.code == "continue.not_running"


def test_both_pages_say_what_they_are(running: InteractiveSession, as_alice: Client) -> None:
    answer = as_alice.post(f"/sessions/{running.id}/continue/")
    further = InteractiveSession.objects.get(continues=running)
    assert answer.headers["Location"] == f"/sessions/{further.id}/"
    old, new = (as_alice.get(f"/sessions/{pk}/").content.decode() for pk in (running.id, further.id))
    assert f'<a href="/sessions/{further.id}/">Goes on in a new session</a>' in old
    assert f'<a href="/sessions/{running.id}/">Continues an earlier session</a>' in new
    assert "/continue/" not in old
    cards = as_alice.get("/sessions/cards/").content.decode()
    assert "Goes on in a new session" in cards
    assert "Continues an earlier session" in cards


def test_the_api_continues_and_answers_the_same_again(running: InteractiveSession, as_alice: Client) -> None:
    address = f"/api/v1/sessions/{running.id}/continue"
    first, second = (as_alice.post(address, content_type="application/json") for _ in range(2))
    assert (first.status_code, first.json()["continues"]) == (201, running.id)
    assert second.json()["id"] == first.json()["id"]


def test_it_opens_at_the_notebook_in_which_its_owner_was(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    session = drive(launched(alice), SessionState.READY)
    open_notebook(session, "Untitled one.ipynb")
    further = continued(session, alice)
    session.refresh_from_db()
    assert session.last_path == "Untitled one.ipynb"
    drive(further, SessionState.READY)
    answer = as_alice.post(f"/sessions/{further.id}/connect/")
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["next"] == ["/lab/tree/Untitled%20one.ipynb"]
    with local_port(further) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
        client.request("GET", query["next"][0], headers=headers_of(further))
        assert client.getresponse().status == 200


def test_a_server_that_does_not_answer_holds_nothing_up(
    demo_cluster: RunningCluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = drive(launched(alice), SessionState.READY)
    InteractiveSession.objects.filter(pk=session.pk).update(upstream_port=1)
    session.refresh_from_db()
    further = continued(session, alice)
    assert further.continues == session
    assert selectors.opening_page(further) == ""


def headers_of(session: InteractiveSession) -> dict[str, str]:
    return secret_headers("identity" if session.upstream_flavor == "identity" else "token", _secret(session))


def _secret(session: InteractiveSession) -> str:
    return unseal(session.secret_encrypted)


def open_notebook(session: InteractiveSession, path: str) -> None:
    """Make a notebook and open it, as JupyterLab does."""
    unsafe = {**headers_of(session), "Cookie": "_xsrf=x", "X-XSRFToken": "x", "Content-Type": "application/json"}
    empty = {
        "type": "notebook",
        "format": "json",
        "content": {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5},
    }
    kernel = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    asked = [("PUT", f"api/contents/{path.replace(' ', '%20')}", empty), ("POST", "api/sessions", kernel)]
    with local_port(session) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
        for method, where, body in asked:
            client.request(method, f"{session.base_url}{where}", body=json.dumps(body), headers=unsafe)
            answer = client.getresponse()
            said = answer.read()
            assert answer.status == 201, said
