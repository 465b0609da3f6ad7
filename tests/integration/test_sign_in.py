"""Signing in: guessing is held back for all web processes together, and who may not enter is told whom to ask."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from launcher.ssh.errors import Unreachable
from portal.accounts import proving, throttle
from portal.accounts.models import User
from portal.accounts.ways.base import Identity
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.conftest import RunningCluster
from tests.integration.test_pages import names
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]


@dataclasses.dataclass
class CountingWay:
    """A way that counts how often it is asked, and knows one password."""

    right: str = "right"
    asked: list[str] = dataclasses.field(default_factory=list)
    name: str = "cluster"

    def check(self, username: str, password: str) -> Identity | None:
        self.asked.append(username)
        return Identity(username) if password == self.right else None


@pytest.fixture
def way(valkey: None, db: None, monkeypatch: pytest.MonkeyPatch) -> CountingWay:
    one = CountingWay()
    monkeypatch.setattr(proving, "password_ways", lambda conf: [one])
    return one


def post(client: Client, username: str, password: str) -> HttpResponse:
    return client.post(reverse("accounts:sign-in"), {"username": username, "password": password})  # type: ignore[return-value]  # Django's own test type


def guess(username: str, address: str, typed: str = "wrong") -> str:
    try:
        proving.prove_password(username=username, password=typed, address=address)
    except proving.SignInRefused as error:
        return error.code
    return "right"


def test_of_twenty_guesses_at_once_from_many_addresses_five_are_asked_about(way: CountingWay) -> None:
    codes: list[str] = []

    def try_it(number: int) -> None:
        try:
            codes.append(guess("alice", f"192.0.2.{number}"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(codes) == ["sign_in.throttled"] * 15 + ["sign_in.wrong"] * 5
    assert way.asked == ["alice"] * 5
    causes = [event.data["cause"] for event in AuditEvent.objects.filter(name="user.sign_in_refused")]
    assert sorted(causes) == ["password"] * 5 + ["throttled"]


def test_the_right_password_is_not_asked_about_before_the_pause_and_works_after_it(
    way: CountingWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "WINDOW_SECONDS", 6)
    for _ in range(5):
        assert guess("alice", "192.0.2.1") == "sign_in.wrong"
    assert guess("alice", "192.0.2.1", "right") == "sign_in.throttled"
    assert len(way.asked) == 5
    wait_for(lambda: guess("alice", "192.0.2.1", "right") == "right", what="the end of the pause")
    assert len(way.asked) == 6


def test_the_pause_slides_with_each_guess_of_its_own(way: CountingWay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than five within any window: a fixed one would let ten through around its end."""
    monkeypatch.setattr(throttle, "WINDOW_SECONDS", 60)
    one = throttle.take(throttle.counter("account", "alice", 5))
    for _ in range(4):
        guess("alice", "192.0.2.1")
    assert guess("alice", "192.0.2.1") == "sign_in.throttled"
    one.give_back()
    assert [guess("alice", "192.0.2.1") for _ in range(2)] == ["sign_in.wrong", "sign_in.throttled"]


def test_guesses_at_one_account_do_not_hold_back_another(way: CountingWay) -> None:
    for _ in range(20):
        guess("alice", "192.0.2.1")
    assert guess("bob", "192.0.2.1", "right") == "right"


def test_one_address_is_held_back_after_guesses_at_many_accounts_and_others_are_not(way: CountingWay) -> None:
    codes = [guess(f"user{number}", "192.0.2.1") for number in range(60)]
    assert codes == ["sign_in.wrong"] * 50 + ["sign_in.throttled"] * 10
    assert guess("bob", "192.0.2.1", "right") == "sign_in.throttled"
    assert guess("bob", "192.0.2.2", "right") == "right"


@pytest.mark.parametrize(
    "addresses",
    [
        [f"2001:db8:1:2:{number:x}::1" for number in range(60)],
        [f"192.0.2.1:{4000 + number}" for number in range(60)],
        ["192.0.2.1", "::ffff:192.0.2.1"] * 30,
    ],
    ids=["one network of IPv6", "the ports of an address", "two spellings"],
)
def test_a_household_is_one_address(way: CountingWay, addresses: list[str]) -> None:
    codes = [guess(f"user{number}", address) for number, address in enumerate(addresses)]
    assert codes == ["sign_in.wrong"] * 50 + ["sign_in.throttled"] * 10


def test_another_network_of_ipv6_is_another_address(way: CountingWay) -> None:
    for number in range(51):
        guess(f"user{number}", "2001:db8:1:2::1")
    assert guess("bob", "2001:db8:1:3::1", "right") == "right"


def test_a_right_password_clears_the_slate(way: CountingWay) -> None:
    for _ in range(3):
        assert [guess("alice", "192.0.2.1") for _ in range(4)] == ["sign_in.wrong"] * 4
        assert guess("alice", "192.0.2.1", "right") == "right"


def test_while_the_cluster_is_away_no_attempt_is_used_up(
    demo_cluster: RunningCluster, db: None, client: Client
) -> None:
    demo_cluster.fault("login", "gone")
    for _ in range(6):
        assert b"password cannot be checked" in post(client, "alice", "x").content
    demo_cluster.mend()
    password = demo_cluster.password("alice")  # the portal asks a cluster that was away again after a moment
    wait_for(lambda: post(client, "alice", password).status_code == 302, what="the sign-in")


def test_guesses_that_one_way_refuses_count_while_another_is_away(
    way: CountingWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(CountingWay):
        def check(self, username: str, password: str) -> Identity | None:
            raise Unreachable("no route to host")

    monkeypatch.setattr(proving, "password_ways", lambda conf: [Away(), way])
    assert [guess("alice", "192.0.2.1") for _ in range(8)] == ["sign_in.cluster_away"] * 5 + ["sign_in.throttled"] * 3
    assert len(way.asked) == 5


def test_no_counter_is_left_without_an_end(way: CountingWay) -> None:
    for number in range(8):
        guess("alice", f"192.0.2.{number}")
    client = throttle._client()
    keys = list(client.scan_iter(throttle.PREFIX + "*"))
    assert len(keys) >= 3
    assert all(0 < client.pttl(key) <= throttle.WINDOW_SECONDS * 1000 for key in keys)


def test_a_counter_with_marks_from_the_future_is_counted_anew(way: CountingWay) -> None:
    """Valkey's clock was set back: what it wrote before must not shut anybody out for years."""
    account = throttle.counter("account", "alice", 5)
    throttle._client().zadd(account.key, {str(number): 9e18 for number in range(5)})
    assert guess("alice", "192.0.2.1", "right") == "right"


def test_while_nothing_can_be_counted_nobody_gets_in_and_the_page_says_so(
    way: CountingWay, client: Client, site: Callable[..., None]
) -> None:
    site(valkey_url="redis://127.0.0.1:1/0")
    answer = post(client, "alice", "right")
    assert answer.status_code == 503
    assert "Try again in a minute" in answer.content.decode()
    assert way.asked == []


def test_who_may_not_enter_reads_whom_to_ask(
    demo_cluster: RunningCluster, db: None, client: Client, site: Callable[..., None]
) -> None:
    site(allowed_users=("bob",), support="help@cluster.example")
    answer = post(client, "alice", demo_cluster.password("alice"))
    assert answer.status_code == 403
    page = answer.content.decode()
    assert "mailto:help@cluster.example" in page
    assert "alice" in page
    assert not User.objects.filter(username="alice").exists()
    assert [event.data["cause"] for event in AuditEvent.objects.all()] == ["policy"]
    assert client.get("/").status_code == 302


def test_who_is_disabled_reads_whom_to_ask(
    demo_cluster: RunningCluster, alice: User, client: Client, site: Callable[..., None]
) -> None:
    site(support="https://help.cluster.example/")
    User.objects.filter(pk=alice.pk).update(is_active=False)
    answer = post(client, "alice", demo_cluster.password("alice"))
    assert answer.status_code == 403
    assert 'href="https://help.cluster.example/"' in answer.content.decode()
    assert names() == ["user.sign_in_refused"]


@pytest.mark.parametrize("name", ["root", "Root", "-oProxyCommand=x", "a b", "", "alice\n", "аlice"])
def test_a_way_that_answers_with_a_name_nobody_may_have_lets_nobody_in(
    way: CountingWay, client: Client, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(way, "check", lambda username, password: Identity(name))
    answer = post(client, "alice", "right")
    assert answer.status_code == 403
    assert not User.objects.exists()


def test_a_name_that_differs_only_in_case_is_no_second_person(
    way: CountingWay, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell of an account says how its name is spelt: who was shut out must not come back as a new person."""
    post(client, "alice", "right")
    User.objects.update(is_active=False)
    monkeypatch.setattr(way, "check", lambda username, password: Identity("ALICE"))
    assert post(Client(), "ALICE", "right").status_code == 403
    assert [user.username for user in User.objects.all()] == ["alice"]
    assert AuditEvent.objects.get(name="user.sign_in_refused").data["cause"] == "other_spelling"


def test_two_spellings_at_once_are_one_person(way: CountingWay) -> None:
    User.objects.create(username="alice")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="Alice")


def test_a_name_that_no_database_holds_keeps_nobody_out(
    way: CountingWay, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = Identity("alice", groups=("a\udce9", "b"), display_name="Andr\udce9\n" + 300 * "x", email="no address")
    monkeypatch.setattr(way, "check", lambda username, password: who)
    assert post(client, "alice", "right").status_code == 302
    user = User.objects.get()
    assert (user.groups_on_cluster, user.email) == (["b"], "")
    assert user.display_name == "Andr" + 196 * "x"


@pytest.mark.parametrize("where", ["questions", "second-step"])
def test_who_is_signed_in_meanwhile_is_led_on(way: CountingWay, client: Client, where: str) -> None:
    """Another tab was first. A half sign-in that is left over must not make somebody else of this browser."""
    post(client, "alice", "right")
    bob = User.objects.create(username="bob")
    session = client.session
    session["second_step"] = {"user": bob.pk, "way": "cluster", "target": "", "at": now().timestamp()}
    session.save()
    answer = client.get(reverse(f"accounts:{where}"))
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


@pytest.mark.parametrize("where", ["accounts:profile", "accounts:sign-in"])
def test_pages_about_a_person_are_kept_by_no_browser(
    demo_cluster: RunningCluster, way: CountingWay, client: Client, where: str
) -> None:
    post(client, "alice", "right")
    assert "no-store" in client.get(reverse(where)).headers["Cache-Control"]


def test_a_web_session_of_before_the_sign_in_is_worth_nothing_after_it(way: CountingWay, client: Client) -> None:
    """Somebody may have planted it in this browser, and know its key."""
    client.get(reverse("accounts:sign-in"))
    planted = client.session
    planted["planted"] = True
    planted.save()
    post(client, "alice", "right")
    assert client.session.session_key != planted.session_key
    other = Client()
    other.cookies[settings.SESSION_COOKIE_NAME] = planted.session_key
    assert "_auth_user_id" not in other.session
    assert other.get("/").status_code == 302
