"""The page on which an administrator has portal and clusters checked."""

from __future__ import annotations

import html
import re
import threading

import pytest
from celery import current_app
from django.test import Client

from launcher.checkup import last_check_up, parts_of, start_check_up
from launcher.doctor import processes
from portal.accounts.models import Role, User
from portal.audit.models import AuditEvent
from tests.conftest import RunningCluster
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]
PAGE = "/administration/check-up/"


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a worker nor a beat runs beside these tests."""
    ping = current_app.control.ping
    monkeypatch.setattr(processes, "TICK_SECONDS", 0.2)
    monkeypatch.setattr(current_app.control, "ping", lambda *, timeout: ping(timeout=timeout / 20))


def text_of(client: Client) -> str:
    """What the page says, without its tags."""
    answer = client.get(PAGE)
    assert answer.status_code == 200
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.content.decode())).split())


def has_ended() -> bool:
    last = last_check_up()
    return last is not None and last.ended_at is not None


def test_an_administrator_starts_a_check_up_and_sees_what_was_found(
    as_admin: Client, demo_cluster: RunningCluster
) -> None:
    demo_cluster.fault("home_full", "admin")
    answer = as_admin.post(PAGE)
    assert answer.status_code == 302
    wait_for(has_ended, seconds=90, what="the check-up to end")
    last = last_check_up()
    assert last is not None
    assert last.by == "admin"
    assert {finding.cluster for finding in last.findings} == {"", "demo"}
    text = text_of(as_admin)
    assert "Last check-up, by admin" in text
    assert "The home folder of admin is full" in text
    assert "quota -s; df -h ~" in text
    assert list(AuditEvent.objects.values_list("name", "actor")) == [("portal.examined", "admin")]


def test_a_second_one_waits_until_the_first_has_ended(
    admin: User, demo_cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(current_app.control, "ping", lambda *, timeout: [] if go_on.wait(60) else None)
    assert start_check_up(admin, address="")
    assert not start_check_up(admin, address="")
    go_on.set()
    wait_for(has_ended, seconds=90, what="the check-up to end")
    assert AuditEvent.objects.filter(name="portal.examined").count() == 1


def test_a_worker_that_is_not_there_is_found_from_the_page(admin: User, demo_cluster: RunningCluster) -> None:
    assert start_check_up(admin, address="")
    wait_for(has_ended, seconds=90, what="the check-up to end")
    last = last_check_up()
    assert last is not None
    found = next(finding for finding in last.findings if finding.id == "portal.worker")
    assert found.outcome == "broken"
    assert [part.title for part in parts_of(last)] == ["The portal", "Demo cluster"]


def test_starting_one_wants_a_fresh_proof(as_admin: Client, valkey: None) -> None:
    web = as_admin.session
    web["proved_at"] -= 16 * 60
    web.save()
    before = last_check_up()  # of another test: it is kept where tests do not roll back
    answer = as_admin.post(PAGE)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/confirm/")
    after = last_check_up()
    assert (after and after.began_at) == (before and before.began_at)


def test_an_auditor_sees_the_page_and_cannot_start_anything(bob: User, valkey: None) -> None:
    bob.role = Role.AUDITOR
    bob.save()
    client = Client()
    client.force_login(bob, backend="portal.accounts.backends.PortalBackend")
    assert "Check now" not in text_of(client)
    assert client.post(PAGE).status_code == 404
    assert not AuditEvent.objects.filter(name="portal.examined").exists()


def test_to_everybody_else_the_page_does_not_exist(as_alice: Client) -> None:
    assert as_alice.get(PAGE).status_code == 404
    assert as_alice.post(PAGE).status_code == 404
    assert Client().get(PAGE).status_code == 302
