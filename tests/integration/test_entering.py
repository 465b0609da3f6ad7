"""Into a session by a browser that follows redirects and keeps cookies: the portal's real pages and the real proxy.

At both kinds of address. What each step refuses by itself is in ``test_proxy_door.py`` and ``test_pages.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.test import Client

from launcher.demo.browser import Answer, Browser, forms_of
from launcher.models import AccessGrant, InteractiveSession
from launcher.proxy.entrance import MOST_ENTRIES
from portal.audit.models import AuditEvent
from portal.front import Front
from tests.integration.ssh_server import free_port
from tests.integration.test_refusals_table import House, addressed, opened
from tests.integration.test_robustness import ready

__all__ = ["addressed", "ready"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]


class Whole(House):
    """A portal with its pages."""

    def application(self) -> Any:
        return Front(pages=get_asgi_application(), proxy=self.proxy, hosts=["localhost"])


@pytest.fixture(autouse=True)
def forgotten(valkey: None) -> Iterator[None]:
    """Nothing was told before."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
async def house(addressed: InteractiveSession, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    """A portal with a session of alice's."""
    port = free_port()
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update={"url": f"http://localhost:{port}"}))
    async for one in opened(addressed, "fast", kind=Whole, port=port):
        assert isinstance(one, Whole)
        yield one


@dataclass
class Person:
    """A browser, and where it finds the session."""

    house: House
    browser: Browser = field(default_factory=lambda: Browser("127.0.0.1"))

    @property
    def portal(self) -> str:
        return settings.CONF.portal_url

    @property
    def address(self) -> str:
        """The session's, without the slash at its end."""
        return f"http://{self.house.host.decode()}{self.house.prefix}"

    def sign_in(self, client: Client) -> None:
        self.browser.cookies(self.portal)[settings.SESSION_COOKIE_NAME] = client.session.session_key or ""

    async def open(self, url: str) -> Answer:
        """What is there after all redirects."""
        return await asyncio.to_thread(self.browser.get, url)

    async def step(self, url: str) -> str:
        """Where one answer leads."""
        answer = await asyncio.to_thread(self.browser.request, "GET", url)
        assert answer.status in (302, 303), answer.brief
        return answer.location

    async def connect(self) -> str:
        """Press Connect; where that leads."""
        page = await self.open(f"{self.portal}/sessions/{self.house.session.pk}/")
        (form,) = [form for form in forms_of(page) if form.action.endswith("/connect/")]
        answer = await asyncio.to_thread(self.browser.submit, form)
        assert answer.status == 303, answer.brief
        return answer.location

    async def code(self) -> str:
        """Connect, up to the address with the code, which is not opened."""
        return await self.step(await self.step(await self.connect()))

    @property
    def nonces(self) -> list[str]:
        """The names of the cookies of entries that are under way."""
        return [name for name in self.browser.cookies(self.address) if "-entry-" in name]


@pytest.fixture
def alice_at(house: Whole, as_alice: Client) -> Person:
    """Alice, signed in."""
    person = Person(house)
    person.sign_in(as_alice)
    return person


@pytest.fixture
def bob_at(house: Whole, as_bob: Client) -> Person:
    """Bob, signed in; nothing here is his."""
    person = Person(house)
    person.sign_in(as_bob)
    return person


async def connected() -> int:
    return await AuditEvent.objects.filter(name="session.connected").acount()


async def refusals() -> list[str]:
    return [event.data["cause"] async for event in AuditEvent.objects.filter(name="session.access_denied")]


async def test_connect_leads_in_and_leaves_one_cookie(alice_at: Person) -> None:
    answer = await alice_at.open(await alice_at.connect())
    assert (answer.status, answer.text) == (200, "hello")
    assert alice_at.nonces == []
    assert "footbridge" in alice_at.browser.cookies(alice_at.address)


async def test_connecting_again_at_once_makes_a_grant_of_its_own_and_no_second_note(alice_at: Person) -> None:
    for number in (1, 2):
        await alice_at.open(await alice_at.connect())
        assert (await connected(), await AccessGrant.objects.acount()) == (1, number)


async def test_a_code_in_another_browser_is_refused_and_used_up(alice_at: Person, bob_at: Person) -> None:
    target = await alice_at.code()
    for person in (bob_at, alice_at):
        answer = await person.open(target)
        assert answer.status == 403
        assert "does not open the session" in answer.text
    assert not await AccessGrant.objects.aexists()
    assert await refusals() == ["code"]


async def test_a_browser_with_an_entry_of_its_own_under_way_is_not_led_into_somebody_elses(
    alice_at: Person, bob_at: Person
) -> None:
    await bob_at.step(f"{alice_at.address}/.footbridge/begin")
    (own,) = bob_at.nonces
    target = await alice_at.code()
    entry = parse_qs(urlsplit(target).query)["entry"][0]
    assert (await bob_at.open(target)).status == 403
    target = await alice_at.code()
    nonce = bob_at.browser.cookies(bob_at.address)[own]
    others = hashlib.sha256(nonce.encode()).hexdigest()
    assert (await bob_at.open(target.replace(parse_qs(urlsplit(target).query)["entry"][0], others))).status == 403
    assert entry != others
    assert not await AccessGrant.objects.aexists()


async def test_a_code_for_no_nonce_at_all_opens_nothing(alice_at: Person, bob_at: Person) -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    step = (await alice_at.step(f"{alice_at.address}/.footbridge/begin")).partition("?")[0]
    target = await alice_at.step(f"{step}?entry={nothing}")
    assert (await bob_at.open(target)).status == 403


async def test_two_tabs_that_connect_at_once_both_get_in(alice_at: Person) -> None:
    first, second = await alice_at.code(), await alice_at.code()
    assert len(alice_at.nonces) == 2
    for target in (first, second):
        assert (await alice_at.open(target)).status == 200
    assert (await connected(), await AccessGrant.objects.acount()) == (1, 2)


async def test_many_tabs_that_began_and_never_finished_keep_nobody_out(alice_at: Person) -> None:
    for _ in range(3 * MOST_ENTRIES):
        await alice_at.step(f"{alice_at.address}/.footbridge/begin")
    assert len(alice_at.nonces) == MOST_ENTRIES
    assert (await alice_at.open(await alice_at.connect())).status == 200


class Forgetful(dict[str, str]):
    """The cookies of an address from which a browser takes none."""

    def __setitem__(self, name: str, value: str) -> None:
        pass


@pytest.mark.parametrize("addressed", ["host"], indirect=True)
@pytest.mark.parametrize("way", ["connect", "bookmark"])
async def test_a_browser_that_refuses_cookies_is_told_so_and_does_not_go_round(alice_at: Person, way: str) -> None:
    alice_at.browser._cookies[urlsplit(alice_at.address).hostname or ""] = Forgetful()
    answer = await alice_at.open(await alice_at.connect() if way == "connect" else f"{alice_at.address}/lab")
    assert answer.status == 403
    assert "keeps no cookies for this address" in answer.text
    assert await connected() == 1


async def test_a_bookmark_of_the_session_leads_to_that_page(alice_at: Person) -> None:
    answer = await alice_at.open(f"{alice_at.address}/lab/tree/a.ipynb?x=1")
    assert (answer.url, answer.status) == (f"{alice_at.address}/lab/tree/a.ipynb?x=1", 200)
    assert await connected() == 1


async def test_a_bookmark_of_the_portals_own_step_goes_on_working(alice_at: Person) -> None:
    step = (await alice_at.step(f"{alice_at.address}/lab")).partition("?")[0]
    page = f"{alice_at.house.prefix}/lab"
    assert (await alice_at.open(f"{step}?next={page}")).url == f"{alice_at.address}/lab"
    assert await connected() == 1


async def test_who_must_sign_in_first_comes_back_to_that_page_however_long_it_took(
    house: Whole, as_alice: Client
) -> None:
    person = Person(house)
    page = await person.open(f"{person.address}/lab/tree/a.ipynb")
    assert urlsplit(page.url).path == "/sign-in/"
    goal = parse_qs(urlsplit(page.url).query)["next"][0]
    person.browser.cookies(person.address).clear()  # the nonce ran out meanwhile
    person.sign_in(as_alice)
    answer = await person.open(person.portal + goal)
    assert (answer.url, answer.status) == (f"{person.address}/lab/tree/a.ipynb", 200)
    assert await connected() == 1


async def test_somebody_else_who_begins_ends_at_the_portal_with_nothing(bob_at: Person) -> None:
    answer = await bob_at.open(f"{bob_at.address}/.footbridge/begin")
    assert answer.status == 404
    assert answer.url.startswith(f"{bob_at.portal}/sessions/by-address/")
    assert await connected() == 0
    assert await refusals() == ["stranger"]


async def test_a_begin_with_a_hostile_goal_ends_at_the_sessions_front_page(alice_at: Person) -> None:
    answer = await alice_at.open(f"{alice_at.address}/.footbridge/begin?next=https%3A%2F%2Fevil.example%2F")
    assert (answer.url, answer.status) == (f"{alice_at.address}/", 200)


async def test_no_log_learns_the_nonce(alice_at: Person, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        target = await alice_at.code()
        (name,) = alice_at.nonces
        nonce = alice_at.browser.cookies(alice_at.address)[name]
        assert (await alice_at.open(target)).status == 200
        assert (await alice_at.open(target)).status == 403
    assert len(nonce) == 43
    assert nonce not in caplog.text
