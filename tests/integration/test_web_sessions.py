"""Browsers on the profile page: listed, signed out one by one or all, and closed when a person is shut out."""

from __future__ import annotations

import datetime as dt

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client
from django.urls import reverse

from launcher import live_sockets
from launcher.models import AccessGrant, InteractiveSession
from launcher.proxy.access_types import Verdict
from launcher.selectors import open_target
from portal.accounts.models import Role, User, WebSession
from portal.accounts.tokens import authenticate_token, create_token
from portal.audit.models import AuditEvent
from tests.conftest import RunningCluster
from tests.entering import entered
from tests.integration.test_pages import session, sign_in

__all__ = ["session"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.0 Mobile/15E148 Safari/604.1"
)


@pytest.fixture
def browsers(demo_cluster: RunningCluster, db: None) -> tuple[Client, Client]:
    """Two browsers in which alice has signed in with her password."""
    pair = Client(headers={"user-agent": FIREFOX}), Client(headers={"user-agent": SAFARI})
    for client in pair:
        sign_in(client, "alice", demo_cluster.password("alice"))
    return pair


def grant_of(client: Client, session: InteractiveSession) -> str:
    """Enter the session's own address from this browser; the cookie's value there."""
    return entered(session, User.objects.get(username="alice"), web_session_key=client.session.session_key or "")


def last_event() -> tuple[str, dict[str, object]]:
    event = AuditEvent.objects.order_by("sequence").last()
    assert event is not None
    return event.name, event.data


def is_signed_in(client: Client) -> bool:
    return client.get("/history/").status_code == 200


def test_the_profile_lists_both_browsers_in_words_and_marks_this_one(browsers: tuple[Client, Client]) -> None:
    rows = browsers[0].get("/profile/").context["browsers"]
    assert [(row["browser"], row["is_here"]) for row in rows] == [
        ("Firefox on Windows", True),
        ("Safari on iPhone", False),
    ]


def test_the_table_keeps_no_key_that_would_open_a_session(browsers: tuple[Client, Client]) -> None:
    keys = {client.session.session_key for client in browsers}
    assert not keys & set(WebSession.objects.values_list("key_digest", flat=True))


def test_signing_one_out_leaves_the_other(browsers: tuple[Client, Client]) -> None:
    here, there = browsers
    pk = next(row["id"] for row in here.get("/profile/").context["browsers"] if not row["is_here"])
    here.post(reverse("accounts:browser-sign-out", args=[pk]))
    assert is_signed_in(here)
    assert not is_signed_in(there)
    assert last_event() == (
        "user.signed_out_elsewhere",
        {"everywhere": False, "web_sessions": 1, "tokens": 0},
    )


def test_somebody_elses_browser_cannot_be_signed_out(browsers: tuple[Client, Client], as_bob: Client) -> None:
    for row in WebSession.objects.filter(user__username="alice"):
        as_bob.post(reverse("accounts:browser-sign-out", args=[row.pk]))
    assert all(is_signed_in(client) for client in browsers)


def test_everywhere_ends_all_sign_ins_and_keeps_tokens_unless_asked(browsers: tuple[Client, Client]) -> None:
    token = create_token(user=User.objects.get(username="alice"), name="script", scope="read", days=1)
    browsers[0].post(reverse("accounts:sign-out-everywhere"))
    assert not any(is_signed_in(client) for client in browsers)
    assert authenticate_token(token.text) is not None
    assert last_event() == ("user.signed_out_elsewhere", {"everywhere": True, "web_sessions": 2, "tokens": 0})


def test_everywhere_withdraws_tokens_when_asked(browsers: tuple[Client, Client]) -> None:
    token = create_token(user=User.objects.get(username="alice"), name="script", scope="read", days=1)
    browsers[0].post(reverse("accounts:sign-out-everywhere"), {"tokens": "on"})
    assert authenticate_token(token.text) is None


def test_everywhere_takes_back_every_grant(session: InteractiveSession, alice: User) -> None:
    clients = [Client(), Client()]
    for client in clients:
        client.force_login(alice, backend="portal.accounts.backends.PortalBackend")
        client.get("/history/")
    cookies = [grant_of(client, session) for client in clients]
    clients[0].post(reverse("accounts:sign-out-everywhere"))
    for cookie in cookies:
        assert open_target(label=session.host_label, cookie_value=cookie).verdict is Verdict.SIGN_IN


def test_signing_out_takes_back_the_grants_of_this_browser_alone(session: InteractiveSession, alice: User) -> None:
    clients = [Client(), Client()]
    for client in clients:
        client.force_login(alice, backend="portal.accounts.backends.PortalBackend")
        client.get("/history/")
    mine, other = (grant_of(client, session) for client in clients)
    clients[0].post(reverse("accounts:sign-out"))
    assert open_target(label=session.host_label, cookie_value=mine).verdict is Verdict.SIGN_IN
    assert open_target(label=session.host_label, cookie_value=other).verdict is not Verdict.SIGN_IN


def test_a_stolen_copy_of_the_cookie_is_worth_nothing_after_signing_out_elsewhere(
    browsers: tuple[Client, Client],
) -> None:
    here, there = browsers
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = there.cookies[settings.SESSION_COOKIE_NAME].value
    assert is_signed_in(thief)
    here.post(reverse("accounts:sign-out-everywhere"))
    assert not is_signed_in(thief)


def test_last_seen_is_written_once_a_minute(browsers: tuple[Client, Client]) -> None:
    row = WebSession.objects.get(user_agent=FIREFOX)
    browsers[0].get("/history/")
    assert WebSession.objects.get(pk=row.pk).last_seen_at == row.last_seen_at
    earlier = row.last_seen_at - dt.timedelta(minutes=2)
    WebSession.objects.filter(pk=row.pk).update(last_seen_at=earlier)
    browsers[0].get("/history/")
    assert WebSession.objects.get(pk=row.pk).last_seen_at > earlier


def test_a_sign_in_ends_after_its_hours(browsers: tuple[Client, Client]) -> None:
    hours = dt.timedelta(hours=settings.CONF.hours_signed_in, minutes=1)
    WebSession.objects.update(created_at=WebSession.objects.first().created_at - hours)  # type: ignore[union-attr]  # there are two
    assert not is_signed_in(browsers[0])


def test_a_live_socket_closes_with_the_news_of_a_sign_out(browsers: tuple[Client, Client]) -> None:
    alice = User.objects.get(username="alice")

    async def scenario() -> None:
        socket = await opened(browsers[1])
        await sync_to_async(browsers[0].post)(reverse("accounts:sign-out-everywhere"))
        live_sockets.drop(user_id=alice.pk)  # what the front does with the news
        assert await socket.receive_output(timeout=60) == {"type": "websocket.close", "code": 4401}

    async_to_sync(scenario)()


def test_one_person_opens_no_flood_of_live_sockets(
    browsers: tuple[Client, Client], as_bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sockets, "MOST_FOR_A_PERSON", 1)

    async def scenario() -> None:
        first = await opened(browsers[0])
        more = await asked(browsers[0])
        assert await more.receive_output(timeout=60) == {"type": "websocket.close", "code": 4429}
        for socket in (first, await opened(as_bob)):
            await socket.send_input({"type": "websocket.disconnect", "code": 1000})
            await socket.wait(60)
        await opened(browsers[0])

    async_to_sync(scenario)()


async def opened(client: Client) -> ApplicationCommunicator:
    """A live socket of this browser."""
    socket = await asked(client)
    assert (await socket.receive_output(timeout=60))["type"] == "websocket.accept"
    return socket


async def asked(client: Client) -> ApplicationCommunicator:
    """One that was asked for."""
    from portal.asgi import _pages

    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    headers = [(b"cookie", cookie.encode()), (b"origin", settings.CONF.portal_url.encode())]
    scope = {"type": "websocket", "path": "/live/", "headers": headers, "query_string": b"", "subprotocols": []}
    socket = ApplicationCommunicator(_pages, scope)
    await socket.send_input({"type": "websocket.connect"})
    return socket


def test_a_live_socket_of_an_auditor_closes_when_the_role_is_gone(browsers: tuple[Client, Client]) -> None:
    User.objects.filter(username="alice").update(role=Role.AUDITOR)

    async def scenario() -> None:
        socket = await opened(browsers[0])
        await sync_to_async(User.objects.filter(username="alice").update)(role=Role.USER)
        live_sockets.drop()
        assert (await socket.receive_output(timeout=60))["type"] == "websocket.close"

    async_to_sync(scenario)()


def test_a_person_who_is_shut_out_loses_everything_at_once(
    session: InteractiveSession, as_alice: Client, as_admin: Client, alice: User
) -> None:
    as_alice.get("/history/")
    cookie = grant_of(as_alice, session)
    as_admin.post(reverse("launcher:admin-user-disable", args=[alice.pk]))
    assert not is_signed_in(as_alice)
    assert open_target(label=session.host_label, cookie_value=cookie).verdict is Verdict.FORBIDDEN
    assert not AccessGrant.objects.filter(user=alice, revoked_at=None).exists()
    assert last_event() == ("user.disabled", {"username": "alice"})
    session.refresh_from_db()
    assert session.is_live


def test_a_person_who_is_let_in_again_signs_in_again(
    demo_cluster: RunningCluster, alice: User, as_admin: Client, client: Client
) -> None:
    as_admin.post(reverse("launcher:admin-user-disable", args=[alice.pk]))
    sign_in(client, "alice", demo_cluster.password("alice"))
    assert not is_signed_in(client)
    as_admin.post(reverse("launcher:admin-user-enable", args=[alice.pk]))
    assert last_event() == ("user.enabled", {"username": "alice"})
    sign_in(client, "alice", demo_cluster.password("alice"))
    assert is_signed_in(client)


def test_nobody_shuts_themselves_out(as_admin: Client, admin: User) -> None:
    assert as_admin.post(reverse("launcher:admin-user-disable", args=[admin.pk])).status_code == 404
    assert User.objects.get(pk=admin.pk).is_active


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
def test_only_administrators_shut_people_out(as_bob: Client, bob: User, alice: User, role: Role) -> None:
    User.objects.filter(pk=bob.pk).update(role=role)
    assert as_bob.post(reverse("launcher:admin-user-disable", args=[alice.pk])).status_code == 404
    assert User.objects.get(pk=alice.pk).is_active
