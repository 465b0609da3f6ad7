"""The table of refusals at a session's address: who is kept out, how it looks, and that the audit log hears of it once.

The real front, proxy, selectors, grants and audit log, with a session in the database, behind a real web server; each
row at both doors, in both lanes and at both kinds of address. The portal's own pages are not asked here.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from channels.db import database_sync_to_async
from django.core.cache import cache
from django.db import OperationalError

from launcher import grants, sealing, selectors, services
from launcher.models import AccessGrant, InteractiveSession
from launcher.proxy.access_types import Access
from launcher.states import EndReason, SessionState
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from portal.front import Front
from tests import entering
from tests.integration.proxy_peers import BEGUN, ENTRY, Answer, Portal, Upstream
from tests.integration.test_robustness import ready, valkey_away
from tests.story import signed_in
from tests.waiting import wait_for

__all__ = ["ready"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

Door = Literal["http", "websocket"]
TIMES = 12
STRANGER = "anonymous"
MOST_LINES = 3


async def no_pages(scope: Any, receive: Any, send: Any) -> None:
    """The portal's own pages, which nothing here is for."""
    raise AssertionError(f"asked for {scope['path']}")


@dataclass
class House(Portal):
    """A portal that asks the database."""

    session: InteractiveSession = field(default_factory=InteractiveSession)
    strange_host: bytes = b""

    def application(self) -> Any:
        return Front(pages=no_pages, proxy=self.proxy, hosts=["localhost"])

    async def look_up(self, *, label: str, cookie_value: str) -> Access:
        self.lookups += 1
        return await database_sync_to_async(selectors.open_target)(label=label, cookie_value=cookie_value)

    async def redeem(self, *, label: str, code: str, nonce: str) -> Any:
        return await database_sync_to_async(grants.redeem_entry_code)(label=label, code=code, nonce=nonce)

    async def deny(self, **what: str) -> None:
        await database_sync_to_async(services.record_access_denied)(**what)

    @property
    def host(self) -> bytes:
        if self.strange_host:
            return self.strange_host
        if self.address == "path":
            return b"localhost:%d" % self.port
        return b"%s.localhost:%d" % (self.session.host_label.encode(), self.port)

    async def try_it(self, door: Door, cookie: str, *, target: str = "/api/contents", origin: bytes = b"") -> Answer:
        """A program's request, or a handshake."""
        if door == "http":
            method = "POST" if origin else "GET"
            return await self.ask(method, target, *([b"Origin: " + origin] if origin else []), cookie=cookie)
        raw = await self.connect()
        try:
            raw.writer.write(self.handshake(target, cookie=cookie, origin=origin))
            return await raw.answer()
        finally:
            await raw.close()


@pytest.fixture(params=["host", "path"])
def addressed(request: pytest.FixtureRequest, ready: InteractiveSession) -> InteractiveSession:
    """A session with a server, at one of the two kinds of address."""
    base_url = "/" if request.param == "host" else f"/s/{ready.pk}/"
    InteractiveSession.objects.filter(pk=ready.pk).update(base_url=base_url)
    ready.refresh_from_db()
    return ready


@pytest.fixture(params=["fast", "portable"])
async def house(request: pytest.FixtureRequest, addressed: InteractiveSession) -> AsyncIterator[House]:
    """The portal in front of that session."""
    async for one in opened(addressed, request.param):
        yield one


async def opened(
    session: InteractiveSession, lane: str, *, kind: type[House] = House, **options: Any
) -> AsyncIterator[House]:
    address: Literal["host", "path"] = "host" if session.base_url == "/" else "path"
    async with Upstream().running() as server:
        change = InteractiveSession.objects.filter(pk=session.pk).aupdate
        await change(upstream_host="127.0.0.1", upstream_port=server.port)
        house = kind(server, lane=lane, address=address, session=session, **options)
        house.base_url, house.prefix = session.base_url, session.base_url.rstrip("/")
        server.prefix = house.prefix.encode()
        async with house.running():
            yield house


@pytest.fixture(autouse=True)
def forgotten(valkey: None) -> Iterator[None]:
    """Nothing was told before."""
    cache.clear()
    yield
    cache.clear()


# Who comes


async def entered(house: House, user: User) -> str:
    """A cookie for the session, by the front door."""
    return await database_sync_to_async(entering.entered)(house.session, user)


async def a_stranger(house: House, alice: User, bob: User) -> str:
    return ""


async def a_guesser(house: House, alice: User, bob: User) -> str:
    return "guessed"


async def bob_with_a_cookie(house: House, alice: User, bob: User) -> str:
    await AccessGrant.objects.acreate(
        digest=sealing.digest("bobs"), session=house.session, user=bob, web_session_digest="",
        created_at=now(), expires_at=now() + dt.timedelta(hours=1),
    )  # fmt: skip
    return "bobs"


async def alice_signed_out(house: House, alice: User, bob: User) -> str:
    cookie = await entered(house, alice)
    key = await database_sync_to_async(signed_in)(alice)
    await database_sync_to_async(grants.revoke_web_sessions)(user=alice, digests=[sealing.digest(key)])
    return cookie


async def alice_disabled(house: House, alice: User, bob: User) -> str:
    cookie = await entered(house, alice)
    await User.objects.filter(pk=alice.pk).aupdate(is_active=False)
    return cookie


async def alice_too_late(house: House, alice: User, bob: User) -> str:
    cookie = await entered(house, alice)
    await AccessGrant.objects.aupdate(expires_at=now())
    return cookie


async def alice_after_the_end(house: House, alice: User, bob: User) -> str:
    cookie = await entered(house, alice)
    ended = {"state": SessionState.ENDED, "ended_at": now(), "end_reason": EndReason.STOPPED_BY_USER}
    await InteractiveSession.objects.filter(pk=house.session.pk).aupdate(**ended)
    return cookie


async def alice(house: House, alice: User, bob: User) -> str:
    return await entered(house, alice)


Comes = Callable[[House, User, User], Awaitable[str]]


@dataclass(frozen=True)
class Row:
    """One way of being refused."""

    who: Comes
    cause: str
    actor: str
    status: int  # of a request; a handshake gets 403 instead of 404
    origin: bytes = b""
    host: bytes = b""
    label: str = ""
    names_session: bool = True


EVIL = b"https://evil.example"
ROWS = {
    "a stranger": Row(a_stranger, "no_cookie", STRANGER, 403),
    "a guessed cookie": Row(a_guesser, "unknown_cookie", STRANGER, 403),
    "somebody else": Row(bob_with_a_cookie, "forbidden", "bob", 403),
    "signed out": Row(alice_signed_out, "signed_out", "alice", 403),
    "revoked: the account was disabled": Row(alice_disabled, "forbidden", "alice", 403),
    "the right to enter ran out": Row(alice_too_late, "expired", "alice", 403),
    "the session has ended": Row(alice_after_the_end, "ended", "alice", 503),
    "a page of another site": Row(alice, "origin", "alice", 403, origin=EVIL),
    "a host that is none of ours": Row(alice, "wrong_host", STRANGER, 404, host=b"evil.example", names_session=False),
    "another port of our host": Row(
        alice, "wrong_host", STRANGER, 404, host=b"abcdefghijklmnopqrstuvwx.localhost:1", names_session=False
    ),
    "an address without a session": Row(alice, "unknown_session", STRANGER, 403, label="z" * 24, names_session=False),
}


@pytest.mark.parametrize("door", ["http", "websocket"])
@pytest.mark.parametrize("name", ROWS)
async def test_who_may_not_is_refused_each_time_and_kept_once(
    house: House, alice: User, bob: User, door: Door, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = ROWS[name]
    cookie = await row.who(house, alice, bob)
    if row.host:
        house.strange_host = row.host
    elif row.label:
        house.strange_host = b"%s.localhost:%d" % (row.label.encode(), house.port)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(TIMES):
            answer = await house.try_it(door, cookie, origin=row.origin)
            assert answer.status == (403 if door == "websocket" and row.status == 404 else row.status)
            assert house.session.pk.encode() not in answer.head + answer.body
            assert EVIL not in answer.head + answer.body
    assert house.upstream.requests == []
    kept = [event async for event in AuditEvent.objects.filter(name="session.access_denied")]
    session_id = house.session.pk if row.names_session else ""
    told = [(event.actor, event.session_id, event.address, event.data) for event in kept]
    assert told == [(row.actor, session_id, "127.0.0.1", {"door": door, "cause": row.cause})]
    assert len(lines(caplog)) <= MOST_LINES, lines(caplog)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a portal would have logged."""
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("fault", ["used twice", "late", "another browser's"])
async def test_a_code_that_is_no_longer_good_opens_nothing_and_is_kept_once(
    house: House, alice: User, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "CODE_SECONDS", 1 if fault == "late" else 30)
    key = await database_sync_to_async(signed_in)(alice)
    code = await database_sync_to_async(grants.create_entry_code)(
        session=house.session, user=alice, web_session_key=key, entry=ENTRY, address=""
    )
    target = f"/.footbridge/enter?code={code}&entry={ENTRY}"
    if fault == "late":
        await database_sync_to_async(wait_for)(lambda: not cache.get(f"entry:{sealing.digest(code)}"))
    elif fault == "used twice":
        assert (await house.ask("GET", target, BEGUN, cookie="")).status == 303
    else:
        assert (await house.ask("GET", target, cookie="")).status == 403  # and so it is used up
    grants_made = await AccessGrant.objects.acount()
    for _ in range(TIMES):
        answer = await house.ask("GET", target, BEGUN, cookie="")
        assert answer.status == 403
        assert code.encode() not in answer.head + answer.body
    handshake = await house.try_it("websocket", "", target=target)
    assert handshake.status == 403
    assert await AccessGrant.objects.acount() == grants_made
    kept = AuditEvent.objects.filter(name="session.access_denied")
    told = [(event.actor, event.session_id, event.data["cause"]) async for event in kept]
    assert told == [(STRANGER, house.session.pk, "code")]


async def test_a_person_who_opens_a_bookmark_is_led_to_the_portal_and_that_is_no_offence(house: House) -> None:
    answer = await house.ask("GET", "/lab", b"Sec-Fetch-Mode: navigate", cookie="")
    assert answer.status == 302
    assert answer.values(b"location")[0].startswith(b"http://localhost:%d/sessions/by-address/" % house.port)
    assert not await AuditEvent.objects.filter(name="session.access_denied").aexists()


async def test_many_addresses_labels_and_cookies_fill_neither_the_audit_log_nor_the_log(
    ready: InteractiveSession, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(5)
    async for house in opened(ready, "fast", trusted_proxies=frozenset({"127.0.0.1"})):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for number in range(300):
                address = b"X-Forwarded-For: 2001:db8::%x" % number
                label = "".join(chance.choices("abcdefgh", k=24)) if number % 3 else ready.host_label
                host = b"%s.localhost:%d" % (label.encode(), house.port)
                if number % 5 == 4:
                    host = b"h%d.example" % number
                cookie = f"guess-{number}" if number % 2 else ""
                answer = await house.ask("GET", "/api", address, cookie=cookie, host=host)
                assert answer.status == (404 if number % 5 == 4 else 403)
    kept = AuditEvent.objects.filter(name="session.access_denied")
    causes = sorted([event.data["cause"] async for event in kept])
    assert causes == ["no_cookie", "unknown_cookie", "unknown_session", "wrong_host"]
    assert len(lines(caplog)) <= MOST_LINES


def test_without_valkey_the_audit_log_itself_knows_what_it_has(ready: InteractiveSession) -> None:
    with valkey_away():
        for cause, username in (("no_cookie", ""), ("forbidden", "bob"), ("origin", "")):
            for number in range(5):
                services.record_access_denied(
                    session_id=ready.pk, username=username, door="http", cause=cause, address=f"2001:db8::{number}"
                )
    told = AuditEvent.objects.filter(name="session.access_denied").order_by("sequence")
    assert [(event.actor, event.data["cause"]) for event in told] == [
        (STRANGER, "no_cookie"), ("bob", "forbidden"), (STRANGER, "origin"),
    ]  # fmt: skip


def test_what_could_not_be_kept_is_tried_again(ready: InteractiveSession, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = {"session_id": ready.pk, "username": "", "door": "http", "cause": "no_cookie", "address": "192.0.2.1"}
    with monkeypatch.context() as broken:
        broken.setattr("launcher.services.facts.record_once", _no_database)
        with pytest.raises(OperationalError):
            services.record_access_denied(**refusal)
    services.record_access_denied(**refusal)
    assert AuditEvent.objects.filter(name="session.access_denied").count() == 1


def _no_database(*_: object, **__: object) -> None:
    raise OperationalError
