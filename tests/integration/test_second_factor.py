"""The second step at sign-in, and proving again who one is before administering."""

from __future__ import annotations

import datetime as dt
import re
import threading

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.urls import reverse

from launcher.models import Allowance
from portal.accounts import factors, totp
from portal.accounts.models import RecoveryCode, Role, SecondFactor, User
from portal.accounts.tokens import create_token
from portal.audit.models import AuditEvent
from tests.conftest import RunningCluster
from tests.integration.test_pages import session, sign_in

__all__ = ["session"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

SECOND_STEP = "/sign-in/second-step/"


class Clock:
    """The portal's time for codes; goes on only when told."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def step(self, seconds: float = 30) -> None:
        self.now += dt.timedelta(seconds=seconds)

    def code(self, secret: str, drift: int = 0) -> str:
        return totp.code_at(secret, int(self.now.timestamp()) // 30 + drift)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("factors", "reauthentication"):
        monkeypatch.setattr(f"portal.accounts.{module}.now", lambda: clock.now)
    return clock


@pytest.fixture
def secret(as_alice: Client, clock: Clock) -> str:
    """Alice has added an app with this secret, half a minute ago."""
    secret, _ = add_app(as_alice, clock)
    clock.step()
    return secret


def add_app(client: Client, clock: Clock) -> tuple[str, list[str]]:
    """Add an app on the profile page; its secret, and the recovery codes if any were shown."""
    secret = client.get(reverse("accounts:add-app")).context["secret"]
    answer = client.post(reverse("accounts:add-app"), {"code": clock.code(secret), "name": "Phone"})
    return secret, answer.context["codes"] if answer.status_code == 200 else []


def events(*names: str) -> list[tuple[str, dict[str, object]]]:
    rows = AuditEvent.objects.filter(name__in=names).order_by("sequence")
    return [(row.name, row.data) for row in rows]


@pytest.fixture
def waiting(demo_cluster: RunningCluster, secret: str) -> Client:
    """A browser in which alice has given her password, and no more."""
    client = Client()
    answer = sign_in(client, "alice", demo_cluster.password("alice"), next="/history/")
    assert answer.headers["Location"] == SECOND_STEP
    return client


def test_an_app_is_kept_sealed_and_ten_recovery_codes_are_shown_once_and_kept_hashed(
    demo_cluster: RunningCluster, as_alice: Client, alice: User, clock: Clock
) -> None:
    secret, codes = add_app(as_alice, clock)
    row = SecondFactor.objects.get(user=alice)
    assert secret.encode() not in bytes(row.secret_encrypted)
    assert len(codes) == 10
    kept = set(RecoveryCode.objects.values_list("digest", flat=True))
    assert len(kept) == 10
    assert not kept & {code.replace("-", "") for code in codes}
    assert codes[0] not in as_alice.get("/profile/").content.decode()
    assert events("second_factor.added") == [("second_factor.added", {"kind": "totp", "name": "Phone"})]


def test_the_secret_is_not_readable_in_the_web_session(as_alice: Client) -> None:
    secret = as_alice.get(reverse("accounts:add-app")).context["secret"]
    assert secret not in str(dict(as_alice.session))


def test_the_picture_is_in_the_page_itself(as_alice: Client) -> None:
    page = as_alice.get(reverse("accounts:add-app")).content.decode()
    assert re.search(r'<svg class="qr".*<path fill="#000" d="M', page, re.S)
    assert not re.search(r'<(img|script|link)[^>]*(src|href)="https?:', page)


def test_a_wrong_code_adds_nothing(as_alice: Client, alice: User) -> None:
    as_alice.get(reverse("accounts:add-app"))
    assert as_alice.post(reverse("accounts:add-app"), {"code": "000000"}).status_code == 422
    assert not factors.has_any(alice)


def test_the_password_alone_signs_nobody_in_and_is_no_sign_in_in_the_log(waiting: Client) -> None:
    assert waiting.get("/history/").status_code == 302
    assert events("user.signed_in") == []


def test_the_right_code_signs_in_and_leads_where_one_wanted_to_go(waiting: Client, secret: str, clock: Clock) -> None:
    answer = waiting.post(SECOND_STEP, {"code": clock.code(secret)})
    assert answer.headers["Location"] == "/history/"
    assert waiting.get("/history/").status_code == 200
    assert events("user.signed_in") == [("user.signed_in", {"way": "cluster+totp"})]


def test_the_key_of_the_web_session_changes_with_the_sign_in(waiting: Client, secret: str, clock: Clock) -> None:
    before = waiting.session.session_key
    waiting.post(SECOND_STEP, {"code": clock.code(secret)})
    assert waiting.session.session_key != before


def test_a_code_works_once(demo_cluster: RunningCluster, waiting: Client, secret: str, clock: Clock) -> None:
    code = clock.code(secret)
    waiting.post(SECOND_STEP, {"code": code})
    other = Client()
    sign_in(other, "alice", demo_cluster.password("alice"))
    assert other.post(SECOND_STEP, {"code": code}).status_code == 422
    assert other.get("/history/").status_code == 302
    clock.step()
    assert other.post(SECOND_STEP, {"code": clock.code(secret)}).status_code == 302


def test_of_two_racing_requests_with_one_code_one_gets_in(alice: User, secret: str, clock: Clock) -> None:
    start, results = threading.Barrier(2), []

    def attempt() -> None:
        try:
            start.wait(60)
            proof = factors.Proof(code=clock.code(secret))
            results.append(factors.prove(user=alice, proof=proof, address=""))
        except factors.FactorRefused as error:
            results.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(results) == ["factor.wrong", "totp"]


def test_five_wrong_codes_hold_back_the_sixth_even_when_it_is_right(
    demo_cluster: RunningCluster, waiting: Client, secret: str, clock: Clock
) -> None:
    for _ in range(5):
        assert waiting.post(SECOND_STEP, {"code": "000000"}).status_code == 422
    other = Client(REMOTE_ADDR="203.0.113.9")
    sign_in(other, "alice", demo_cluster.password("alice"))
    page = other.post(SECOND_STEP, {"code": clock.code(secret)})
    assert "Too many attempts" in page.content.decode()
    assert other.get("/history/").status_code == 302
    causes = [data["cause"] for _, data in events("user.sign_in_refused")]
    assert causes == ["code"] * 5 + ["throttled"]


def test_a_recovery_code_works_once(demo_cluster: RunningCluster, as_alice: Client, alice: User, clock: Clock) -> None:
    _, codes = add_app(as_alice, clock)
    for expected in (302, 422):
        client = Client()
        sign_in(client, "alice", demo_cluster.password("alice"))
        assert client.post(SECOND_STEP, {"code": codes[0].upper()}).status_code == expected
    assert events("second_factor.code_used") == [("second_factor.code_used", {"left": 9})]


def test_new_recovery_codes_void_those_of_before(as_alice: Client, alice: User, clock: Clock) -> None:
    _, old = add_app(as_alice, clock)
    new = as_alice.post(reverse("accounts:recovery-codes")).context["codes"]
    with pytest.raises(factors.FactorRefused):
        factors.prove(user=alice, proof=factors.Proof(code=old[0]), address="")
    assert factors.prove(user=alice, proof=factors.Proof(code=new[0]), address="") == "recovery"


def test_the_half_sign_in_is_forgotten_after_ten_minutes(waiting: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=601)
    monkeypatch.setattr("portal.accounts.entering.now", lambda: later)
    assert waiting.get(SECOND_STEP).headers["Location"] == "/sign-in/"


def test_a_person_shut_out_meanwhile_gets_no_second_step(waiting: Client, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert waiting.get(SECOND_STEP).headers["Location"] == "/sign-in/"


def test_the_command_for_a_lost_phone_takes_all_away_and_is_kept(
    demo_cluster: RunningCluster, secret: str, alice: User, client: Client
) -> None:
    call_command("resetfactor", "alice")
    assert not factors.has_any(alice)
    assert not RecoveryCode.objects.exists()
    sign_in(client, "alice", demo_cluster.password("alice"))
    assert client.get("/history/").status_code == 200
    assert events("second_factor.reset") == [("second_factor.reset", {"username": "alice", "factors": 1})]


@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", "x" * 30_000, '{"rawId": "AA", "id": "AA", "response": 7}'])
def test_a_hostile_passkey_answer_is_refused(as_alice: Client, alice: User, answer: str) -> None:
    as_alice.get(reverse("accounts:add-passkey"))
    assert as_alice.post(reverse("accounts:add-passkey"), {"passkey": answer}).status_code == 422
    assert not factors.has_any(alice)


def wants(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update=changes))


@pytest.mark.parametrize(
    ("wanted", "role", "led"),
    [
        ("optional", Role.ADMINISTRATOR, False),
        ("administrators", Role.USER, False),
        ("administrators", Role.ADMINISTRATOR, True),
        ("everybody", Role.USER, True),
    ],
)
def test_who_must_have_a_second_step_is_led_to_it_before_anything_else(
    as_bob: Client, bob: User, monkeypatch: pytest.MonkeyPatch, wanted: str, role: Role, led: bool
) -> None:
    User.objects.filter(pk=bob.pk).update(role=role)
    wants(monkeypatch, second_factor=wanted)
    for path in ("/history/", "/profile/", "/audit/"):
        answer = as_bob.get(path)
        assert (answer.headers.get("Location") == reverse("accounts:add-app")) is led, path
    assert (as_bob.get("/api/v1/sessions").status_code == 403) is led


def test_once_it_is_there_everything_is_open(as_bob: Client, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    wants(monkeypatch, second_factor="everybody")
    add_app(as_bob, clock)
    assert as_bob.get("/history/").status_code == 200


def test_tokens_are_not_asked_for_a_second_step(bob: User, valkey: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wants(monkeypatch, second_factor="everybody")
    token = create_token(user=bob, name="script", scope="read", days=1)
    answer = Client().get("/api/v1/sessions", headers={"authorization": f"Bearer {token.text}"})
    assert answer.status_code == 200


def test_a_header_that_looks_like_a_token_opens_no_page(as_bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    wants(monkeypatch, second_factor="everybody")
    headers = {"authorization": "Bearer fbp_x"}
    assert as_bob.get("/history/", headers=headers).status_code == 302
    assert as_bob.get("/api/v1/sessions", headers=headers).status_code == 401


# proving again who one is


def later(client: Client, minutes: float) -> None:
    """So long ago this browser's person proved who they are."""
    session = client.session
    session["proved_at"] -= minutes * 60
    session.save()


ASKS = ["/administration/users/", "/administration/limits/", "/audit/export/?format=csv"]


@pytest.mark.parametrize("path", ASKS)
def test_pages_of_administration_ask_again_after_a_while_and_lead_back(as_admin: Client, path: str) -> None:
    later(as_admin, 16)
    answer = as_admin.get(path)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/confirm/?next=" + path.split("?")[0].replace("/", "%2F"))


@pytest.mark.parametrize("path", ASKS)
def test_a_fresh_proof_is_not_asked_for_again(as_admin: Client, path: str) -> None:
    later(as_admin, 14)
    assert as_admin.get(path).status_code == 200


def test_a_browser_without_any_proof_is_asked(as_admin: Client) -> None:
    session = as_admin.session
    del session["proved_at"]
    session.save()
    assert as_admin.get("/administration/limits/").status_code == 302


def test_what_was_sent_is_not_done_and_the_person_is_told_to_press_again(
    demo_cluster: RunningCluster, as_admin: Client
) -> None:
    later(as_admin, 16)
    values = {"whose": "group", "name": "students", "app": "", "cluster": "", "sessions": "3", "hours": ""}
    page = "http://testserver/administration/limits/"
    answer = as_admin.post("/administration/limits/", values, headers={"referer": page})
    assert not Allowance.objects.exists()
    asked = as_admin.get(answer.headers["Location"])
    assert "press again" in asked.content.decode()
    back = as_admin.post("/confirm/", {"password": demo_cluster.password("admin"), "next": page})
    assert back.headers["Location"] == page
    assert as_admin.get("/administration/limits/").status_code == 200
    assert events("user.confirmed") == [("user.confirmed", {"way": "cluster"})]


def test_a_foreign_referer_leads_nowhere(as_admin: Client) -> None:
    later(as_admin, 16)
    answer = as_admin.post("/administration/limits/", {}, headers={"referer": "https://evil.example/"})
    assert answer.headers["Location"] == "/confirm/?next="


def test_a_wrong_password_proves_nothing_and_is_held_back(demo_cluster: RunningCluster, as_admin: Client) -> None:
    later(as_admin, 16)
    for _ in range(6):
        assert as_admin.post("/confirm/", {"password": "wrong"}).status_code == 422
    assert "Too many attempts" in as_admin.post("/confirm/", {"password": "wrong"}).content.decode()
    assert as_admin.get("/administration/limits/").status_code == 302


def test_somebody_elses_password_proves_nothing(demo_cluster: RunningCluster, as_admin: Client) -> None:
    later(as_admin, 16)
    as_admin.post("/confirm/", {"password": demo_cluster.password("alice")})
    assert as_admin.get("/administration/limits/").status_code == 302


def test_who_has_a_second_step_proves_with_it(as_admin: Client, clock: Clock) -> None:
    secret, _ = add_app(as_admin, clock)
    clock.step(16 * 60)
    assert as_admin.get("/administration/limits/").status_code == 302
    assert as_admin.post("/confirm/", {"password": "anything"}).status_code == 422
    assert as_admin.post("/confirm/", {"code": clock.code(secret)}).status_code == 302
    assert as_admin.get("/administration/limits/").status_code == 200


def test_removing_a_second_step_asks_again_and_takes_the_recovery_codes_with_it(
    as_alice: Client, alice: User, secret: str, clock: Clock
) -> None:
    url = reverse("accounts:factor-remove", args=[SecondFactor.objects.get(user=alice).pk])
    clock.step(16 * 60)
    as_alice.post(url)
    assert factors.has_any(alice)
    as_alice.post("/confirm/", {"code": clock.code(secret)})
    as_alice.post(url)
    assert not factors.has_any(alice)
    assert not RecoveryCode.objects.exists()


def test_somebody_elses_second_step_cannot_be_removed(as_bob: Client, alice: User, secret: str) -> None:
    as_bob.post(reverse("accounts:factor-remove", args=[SecondFactor.objects.get(user=alice).pk]))
    assert factors.has_any(alice)


def test_stopping_somebody_elses_session_asks_again_on_the_page_and_in_the_api(
    session: object, as_admin: Client
) -> None:
    pk = session.pk  # type: ignore[attr-defined]  # a session
    later(as_admin, 16)
    assert as_admin.post(f"/sessions/{pk}/stop/").headers["Location"].startswith("/confirm/")
    answer = as_admin.delete(f"/api/v1/sessions/{pk}")
    assert (answer.status_code, answer.json()["code"]) == (403, "confirm.wanted")
    session.refresh_from_db()  # type: ignore[attr-defined]  # likewise
    assert session.stop_requested_at is None  # type: ignore[attr-defined]  # likewise


def test_stopping_ones_own_session_never_asks(session: object, as_alice: Client) -> None:
    later(as_alice, 16)
    pk = session.pk  # type: ignore[attr-defined]  # a session
    assert as_alice.post(f"/sessions/{pk}/stop/").headers["Location"] == f"/sessions/{pk}/"


def test_a_new_role_is_kept_in_the_log(demo_cluster: RunningCluster, admin: User, client: Client) -> None:
    User.objects.filter(pk=admin.pk).update(role=Role.USER)
    sign_in(client, "admin", demo_cluster.password("admin"))
    assert events("user.role_changed") == [
        ("user.role_changed", {"username": "admin", "before": "user", "role": "administrator"})
    ]
