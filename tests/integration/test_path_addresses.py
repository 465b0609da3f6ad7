"""Sessions below the portal's own address: where they are launched to, who gets in, and who does not."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from launcher import selectors
from launcher.models import AccessGrant, InteractiveSession
from launcher.proxy.access_types import Verdict
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.clock import now
from tests.entering import connect, redeemed
from tests.integration.proxy_peers import ENTRY
from tests.integration.test_pages import session as launched

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

hosted = launched
"""A session with a host of its own."""


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site without wildcard DNS that lets administrators open sessions."""
    changes = {"session_addresses": "path", "open_as_user": True}
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update=changes))


@pytest.fixture
def session(below: None, hosted: InteractiveSession) -> InteractiveSession:
    """A session of alice's below the portal's address."""
    return hosted


def test_a_session_is_launched_to_the_path_of_its_id(session: InteractiveSession) -> None:
    assert session.base_url == f"/s/{session.pk}/"
    assert selectors.address_of(session) == f"{settings.CONF.portal_url}/s/{session.pk}/"


def test_connect_leads_there_and_the_code_opens_that_path_alone(session: InteractiveSession, as_alice: Client) -> None:
    location = as_alice.post(reverse("launcher:connect", args=[session.pk])).headers["Location"]
    assert location == f"{settings.CONF.portal_url}/s/{session.pk}/.footbridge/begin"
    code = connect(as_alice, session)
    issued = redeemed(session, code)
    assert issued is not None
    assert redeemed(session, code) is None
    assert selectors.open_target(label=session.pk, cookie_value=issued.cookie_value).verdict is Verdict.NOT_READY


def test_its_host_label_names_nothing(session: InteractiveSession, as_alice: Client) -> None:
    assert redeemed(session, connect(as_alice, session), label=session.host_label) is None
    assert selectors.open_target(label=session.host_label, cookie_value="").verdict is Verdict.UNKNOWN


def test_the_owner_who_comes_to_the_path_itself_is_led_in_and_nobody_else(
    session: InteractiveSession, as_alice: Client, as_bob: Client
) -> None:
    address = reverse("launcher:by-address", args=[session.pk])
    wanted = f"/s/{session.pk}/lab/tree/a.ipynb"
    location = as_alice.get(address, {"next": wanted, "entry": ENTRY}).headers["Location"]
    assert location.startswith(f"{settings.CONF.portal_url}/s/{session.pk}/.footbridge/enter?code=")
    assert as_bob.get(address).status_code == 404


def test_signing_out_and_the_end_close_it(session: InteractiveSession, as_alice: Client) -> None:
    issued = redeemed(session, connect(as_alice, session))
    assert issued is not None
    as_alice.post(reverse("accounts:sign-out"))
    assert AccessGrant.objects.get().revoked_at is not None
    assert selectors.open_target(label=session.pk, cookie_value=issued.cookie_value).verdict is Verdict.SIGN_IN
    InteractiveSession.objects.filter(pk=session.pk).update(
        state=SessionState.ENDED, ended_at=now(), end_reason=EndReason.STOPPED_BY_USER
    )
    assert selectors.open_target(label=session.pk, cookie_value=issued.cookie_value).verdict is Verdict.ENDED


def test_not_even_an_administrator_opens_somebody_elses(session: InteractiveSession, admin: User) -> None:
    assert not selectors.may_visit(admin, session)
    InteractiveSession.objects.filter(pk=session.pk).update(base_url="/")
    session.refresh_from_db()
    assert selectors.may_visit(admin, session)


def test_what_was_launched_before_keeps_its_host(hosted: InteractiveSession, below: None, as_alice: Client) -> None:
    location = as_alice.post(reverse("launcher:connect", args=[hosted.pk])).headers["Location"]
    assert location.startswith(f"http://{hosted.host_label}.localhost:")
    assert selectors.open_target(label=hosted.pk, cookie_value="").verdict is Verdict.UNKNOWN
