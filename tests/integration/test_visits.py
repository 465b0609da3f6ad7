"""Administrators who open a session: off by default, with a reason, for a while, seen and ended by its owner."""

from __future__ import annotations

import datetime as dt

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from launcher import selectors, services
from launcher.models import InteractiveSession, SupportVisit
from launcher.proxy.access_types import Verdict
from launcher.selectors import open_target
from portal.accounts.models import Role, User
from portal.accounts.tokens import create_token
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.entering import code_for, entered
from tests.integration.test_pages import session

__all__ = ["session"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

REASON = "Alice asked for help with a kernel that does not start"


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that lets administrators open sessions."""
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update={"open_as_user": True}))


def ask(client: Client, session: InteractiveSession, reason: str = REASON) -> object:
    return client.post(reverse("launcher:open-as-user", args=[session.pk]), {"reason": reason})


def verdict(session: InteractiveSession, cookie: str) -> Verdict:
    return open_target(label=session.host_label, cookie_value=cookie).verdict


def visit_of(session: InteractiveSession, admin: User) -> SupportVisit:
    return services.open_as_user(session=session, actor=admin, reason=REASON, address="")


def test_it_is_off_by_default(session: InteractiveSession, as_admin: Client, admin: User) -> None:
    assert ask(as_admin, session).status_code == 404  # type: ignore[attr-defined]  # a response
    assert "Open it yourself" not in as_admin.get(f"/sessions/{session.pk}/").content.decode()
    with pytest.raises(services.VisitRefused):
        visit_of(session, admin)


@pytest.mark.parametrize("reason", ["", "   ", "because", "x" * 301, "because\0because\x1b"])
def test_it_needs_a_reason(allowed: None, session: InteractiveSession, as_admin: Client, reason: str) -> None:
    assert ask(as_admin, session, reason).status_code == 422  # type: ignore[attr-defined]  # a response
    assert not SupportVisit.objects.exists()


def test_it_leads_into_the_session_and_is_in_the_log_with_the_reason(
    allowed: None, session: InteractiveSession, as_admin: Client
) -> None:
    answer = ask(as_admin, session)
    assert answer.status_code == 303  # type: ignore[attr-defined]  # a response
    assert session.host_label in answer.headers["Location"]  # type: ignore[attr-defined]  # a response
    event = AuditEvent.objects.get(name="session.opened_as_user")
    assert (event.actor, event.session_id) == ("admin", session.pk)
    assert event.data == {"owner": "alice", "reason": REASON, "minutes": 30}
    code_for(as_admin, session)
    assert AuditEvent.objects.get(name="session.connected").data == {"via": "opened_as_user"}
    session.refresh_from_db()
    assert session.connected_at is None


def test_it_wants_a_fresh_proof(allowed: None, session: InteractiveSession, as_admin: Client) -> None:
    web = as_admin.session
    web["proved_at"] -= 16 * 60
    web.save()
    assert ask(as_admin, session).headers["Location"].startswith("/confirm/")  # type: ignore[attr-defined]  # a response
    assert not SupportVisit.objects.exists()


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
def test_nobody_but_administrators_may(
    allowed: None, session: InteractiveSession, as_bob: Client, bob: User, role: Role
) -> None:
    User.objects.filter(pk=bob.pk).update(role=role)
    assert ask(as_bob, session).status_code == 404  # type: ignore[attr-defined]  # a response


def test_the_visitor_passes_where_the_owner_does_and_only_there(
    allowed: None, session: InteractiveSession, admin: User, alice: User
) -> None:
    assert not selectors.may_open(admin, session)
    visit_of(session, admin)
    assert selectors.may_open(admin, session)
    assert verdict(session, entered(session, admin)) is Verdict.NOT_READY  # it lives, its server does not answer yet
    other = InteractiveSession.objects.create(
        owner=alice, username="alice", app="jupyter", cluster="demo", choices=session.choices, created_at=now()
    )
    assert not selectors.may_open(admin, other)


def test_a_visitor_may_open_but_not_keep_extend_or_continue(
    allowed: None, session: InteractiveSession, as_admin: Client, admin: User
) -> None:
    visit_of(session, admin)
    for door in ("keep", "extend", "continue"):
        assert as_admin.post(reverse(f"launcher:{door}", args=[session.pk])).status_code == 404


def test_after_half_an_hour_it_is_over(
    allowed: None, session: InteractiveSession, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit_of(session, admin)
    cookie = entered(session, admin)
    later = now() + dt.timedelta(minutes=30, seconds=1)
    monkeypatch.setattr("launcher.selectors.now", lambda: later)
    assert verdict(session, cookie) is Verdict.SIGN_IN
    assert not selectors.may_open(admin, session)


def test_the_owner_sees_who_came_and_why_and_ends_it(
    allowed: None, session: InteractiveSession, as_alice: Client, admin: User
) -> None:
    visit = visit_of(session, admin)
    cookie = entered(session, admin)
    for page in ("/", f"/sessions/{session.pk}/"):
        text = as_alice.get(page).content.decode()
        assert REASON in text
        assert "admin opened this session at" in text
    as_alice.post(reverse("launcher:visit-end", args=[session.pk, visit.pk]))
    assert verdict(session, cookie) is Verdict.SIGN_IN
    event = AuditEvent.objects.get(name="session.visit_ended")
    assert event.data == {"visitor": "admin", "by_owner": True}


def test_afterwards_the_owner_still_reads_of_it(
    allowed: None, session: InteractiveSession, as_alice: Client, admin: User
) -> None:
    visit = visit_of(session, admin)
    services.end_visit(visit=visit, actor=admin, address="")
    text = as_alice.get(f"/sessions/{session.pk}/").content.decode()
    assert "admin had opened this session" in text
    assert REASON in text


def test_a_reason_is_shown_escaped(allowed: None, session: InteractiveSession, as_alice: Client, admin: User) -> None:
    services.open_as_user(session=session, actor=admin, reason="<script>alert(1)</script>", address="")
    assert "<script>alert(1)" not in as_alice.get(f"/sessions/{session.pk}/").content.decode()


def test_a_stranger_ends_no_visit(allowed: None, session: InteractiveSession, as_bob: Client, admin: User) -> None:
    visit = visit_of(session, admin)
    assert as_bob.post(reverse("launcher:visit-end", args=[session.pk, visit.pk])).status_code == 404
    assert selectors.running_visit(admin, session) is not None


def test_the_administrators_sign_out_ends_the_visit(
    allowed: None, session: InteractiveSession, as_admin: Client, admin: User
) -> None:
    ask(as_admin, session)
    as_admin.post(reverse("accounts:sign-out"))
    assert selectors.running_visit(admin, session) is None


def test_who_is_no_administrator_any_more_is_out_at_once(
    allowed: None, session: InteractiveSession, admin: User
) -> None:
    visit_of(session, admin)
    cookie = entered(session, admin)
    User.objects.filter(pk=admin.pk).update(role=Role.AUDITOR)
    assert verdict(session, cookie) is Verdict.FORBIDDEN


def test_where_the_site_takes_the_setting_back_nobody_is_in(
    session: InteractiveSession, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(settings, "CONF", settings.CONF.model_copy(update={"open_as_user": True}))
        visit_of(session, admin)
        cookie = entered(session, admin)
    assert verdict(session, cookie) is Verdict.FORBIDDEN


# what auditors may not


def post_doors() -> list[tuple[str, str]]:
    """Every address of the launcher's and the audit log's pages, by name, with its pattern."""
    found = []
    for resolver in get_resolver().url_patterns:
        if isinstance(resolver, URLResolver) and resolver.namespace in ("launcher", "audit"):
            found += [
                (f"{resolver.namespace}:{pattern.name}", str(pattern.pattern))
                for pattern in resolver.url_patterns
                if isinstance(pattern, URLPattern)
            ]
    return found


OWN_DOORS = {"launcher:launch"}
"""An auditor is a user, too, and may launch sessions of their own."""


@pytest.mark.parametrize(("name", "pattern"), [door for door in post_doors() if door[0] not in OWN_DOORS])
def test_an_auditor_can_act_through_no_door(
    allowed: None, session: InteractiveSession, as_bob: Client, bob: User, alice: User, name: str, pattern: str
) -> None:
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    values = {"session_id": session.pk, "pk": 1, "label": session.host_label, "app_id": "jupyter", "allowance_id": 1}
    values["pk"] = alice.pk if "user" in name else 1
    path = reverse(name, kwargs={key: value for key, value in values.items() if f":{key}>" in pattern})
    before = InteractiveSession.objects.values().get(pk=session.pk)
    answer = as_bob.post(path, {"user": alice.pk, "sessions_allowed": 5, "reason": REASON})
    assert answer.status_code in (403, 404, 405), answer.status_code
    assert InteractiveSession.objects.values().get(pk=session.pk) == before
    assert User.objects.get(pk=alice.pk).is_active
    assert not alice.allowances.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [("delete", ""), ("post", "/stop"), ("post", "/extend"), ("post", "/continue")],
)
def test_an_auditors_token_changes_nothing_of_others(
    session: InteractiveSession, bob: User, valkey: None, method: str, path: str
) -> None:
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    token = create_token(user=bob, name="script", scope="write", days=1)
    before = InteractiveSession.objects.values().get(pk=session.pk)
    answer = getattr(Client(), method)(
        f"/api/v1/sessions/{session.pk}{path}",
        data="{}",
        content_type="application/json",
        headers={"authorization": f"Bearer {token.text}"},
    )
    assert answer.status_code in (403, 404)
    assert InteractiveSession.objects.values().get(pk=session.pk) == before
