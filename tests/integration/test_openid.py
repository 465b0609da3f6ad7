"""Signing in by OpenID Connect: with a real provider, and with one that lies."""

from __future__ import annotations

import http.client
import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from pydantic import SecretStr

from portal.accounts import factors, totp
from portal.accounts.models import OpenIdTie, Role, User
from portal.accounts.ways import openid_provider
from portal.audit.models import AuditEvent
from tests.integration.openid_peer import CLIENT, Peer, running_peer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

Site = Callable[..., None]


@pytest.fixture
def site(valkey: None, db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Change settings for one test; sign-in is by OpenID Connect."""

    def change(**values: object) -> None:
        monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update=values))

    change(auth=("openid",), openid_client_id=CLIENT)
    openid_provider.forget()
    yield change
    openid_provider.forget()


@pytest.fixture
def peer(site: Site) -> Iterator[Peer]:
    with running_peer() as one:
        site(openid_issuer=one.issuer)
        yield one


def begin(client: Client, **values: str) -> dict[str, str]:
    """Press the button; what the provider is asked."""
    page = client.post("/sign-in/openid/", values)
    assert page.status_code == 200
    return dict(parse_qsl(urlsplit(page.context["address"]).query))


def come_back(client: Client, peer: Peer, **values: str) -> Any:
    """Press the button, and come back as the provider says."""
    asked = begin(client, **values)
    peer.nonce = asked["nonce"]
    return client.get("/sign-in/openid/answer/", {"code": "c", "state": asked["state"]})


def is_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def causes() -> list[str]:
    rows = AuditEvent.objects.filter(name="user.sign_in_refused").order_by("sequence")
    return [row.data["cause"] for row in rows]


@pytest.mark.parametrize("ways", [("openid",), ("cluster", "openid")])
def test_the_sign_in_page_has_the_button_and_a_form_only_where_there_is_a_password(
    peer: Peer, site: Site, client: Client, ways: tuple[str, ...]
) -> None:
    site(auth=ways, openid_button="University <login>")
    page = client.get("/sign-in/?next=/history/").content.decode()
    assert 'action="/sign-in/openid/"' in page
    assert "University &lt;login&gt;" in page
    assert ('type="password"' in page) == ("cluster" in ways)


@pytest.fixture
def provider() -> Any:
    """The well-behaved provider's module. Imported here: it says at every import that a library of its own is old."""
    with warnings.catch_warnings(record=True):
        return importlib.import_module("oidc_provider_mock")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the provider's own, which it would answer 500 for
def test_a_real_provider_signs_somebody_in(provider: Any, site: Site, client: Client) -> None:
    people = [provider.User(sub="alice", claims={"preferred_username": "alice"})]
    with provider.run_server_in_thread(user_claims=people, require_nonce=True) as server:
        site(
            openid_issuer=f"http://localhost:{server.server_port}",
            openid_client_secret=SecretStr("any"),
            openid_account_claim="sub",
        )
        address = client.post("/sign-in/openid/").context["address"]
        parts = urlsplit(address)
        there = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        there.request("POST", f"{parts.path}?{parts.query}", urlencode({"sub": "alice"}), form)
        back = there.getresponse().headers["Location"]
        there.close()
        assert back.startswith(f"{settings.CONF.portal_url}/sign-in/openid/answer/?")
        client.get("/sign-in/openid/answer/?" + urlsplit(back).query)
    assert is_in(client)
    assert User.objects.get().username == "alice"


def test_the_code_is_bound_to_the_browser_that_asked(peer: Peer, client: Client) -> None:
    asked = begin(client)
    peer.nonce = asked["nonce"]
    client.get("/sign-in/openid/answer/", {"code": "c", "state": asked["state"]})
    sent = peer.forms[0]
    assert asked["code_challenge_method"] == "S256"
    assert openid_provider.challenge(sent["code_verifier"][0]) == asked["code_challenge"]
    assert sent["redirect_uri"] == [asked["redirect_uri"]]


def test_an_answer_to_another_browser_signs_nobody_in(peer: Peer, client: Client) -> None:
    asked = begin(Client())
    client.get("/sign-in/openid/answer/", {"code": "c", "state": asked["state"]})
    assert (is_in(client), peer.forms) == (False, [])


def test_an_answer_counts_once(peer: Peer, client: Client) -> None:
    asked = begin(client)
    for _ in range(2):
        client.get("/sign-in/openid/answer/", {"code": "c", "state": asked["state"]})
    assert (is_in(client), len(peer.forms)) == (False, 1)


def test_two_tabs_do_not_disturb_each_other(peer: Peer, client: Client) -> None:
    first = begin(client, next="/history/")
    begin(client)
    peer.nonce = first["nonce"]
    answer = client.get("/sign-in/openid/answer/", {"code": "c", "state": first["state"]})
    assert answer.headers["Location"] == "/history/"


def test_another_site_is_no_place_to_go_on_to(peer: Peer, client: Client) -> None:
    assert come_back(client, peer, next="https://evil.example/").headers["Location"] == "/"


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "other"},
        {"nonce": None},
        {"aud": "other"},
        {"aud": [CLIENT, "other"]},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"iss": "https://other.example"},
        {"exp": 1},
        {"exp": None},
        {"iat": 1},
        {"sub": ""},
        {"sub": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_question_signs_nobody_in(
    peer: Peer, client: Client, wrong: dict[str, Any]
) -> None:
    peer.claims |= wrong
    come_back(client, peer)
    assert not is_in(client)
    assert not User.objects.exists()


@pytest.mark.parametrize(("algorithm", "key"), [("none", ""), ("HS256", "0123456789abcdef0123456789abcdef")])
def test_a_token_that_anybody_could_have_signed_signs_nobody_in(
    peer: Peer, client: Client, algorithm: str, key: str
) -> None:
    peer.algorithm, peer.sign_with = algorithm, key  # type: ignore[assignment]  # a test's own choice
    come_back(client, peer)
    assert not is_in(client)


def test_a_token_signed_with_another_key_signs_nobody_in(peer: Peer, client: Client) -> None:
    other = Peer("")
    peer.sign_with = other.key  # type: ignore[assignment]  # a test's own choice
    come_back(client, peer)
    assert not is_in(client)


def test_a_new_key_of_the_provider_is_asked_for_once(
    peer: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client)
    monkeypatch.setattr(openid_provider, "_ASK_AGAIN_SECONDS", 0.0)
    peer.rotate("two")
    come_back(client, peer)
    assert (is_in(client), peer.key_requests) == (True, 2)


def test_unknown_keys_do_not_make_the_portal_ask_all_the_time(peer: Peer, client: Client) -> None:
    begin(client)
    peer.kid = "unknown"
    come_back(client, peer)
    come_back(client, peer)
    assert peer.key_requests == 1


def test_a_provider_that_is_away_is_said_in_words(site: Site, client: Client) -> None:
    site(openid_issuer="http://127.0.0.1:1")
    page = client.post("/sign-in/openid/", follow=True)
    assert "does not answer properly" in page.content.decode()


def test_a_provider_that_calls_itself_otherwise_is_not_believed(peer: Peer, client: Client) -> None:
    peer.named_issuer = "https://other.example"
    assert client.post("/sign-in/openid/").status_code == 302


def test_what_the_provider_says_in_the_address_is_not_shown(peer: Peer, client: Client) -> None:
    asked = begin(client)
    values = {"error": "access_denied", "error_description": "ring 0900", "state": asked["state"]}
    page = client.get("/sign-in/openid/answer/", values, follow=True)
    assert "did not say who you are" in page.content.decode()
    assert "0900" not in page.content.decode()


@pytest.mark.parametrize("said", [None, "", "root", "ROOT", "-oProxyCommand=x", "Alice", "аlice", "alice\n", ["alice"]])
def test_a_claim_that_is_no_account_is_refused(peer: Peer, client: Client, said: object) -> None:
    peer.claims["preferred_username"] = said
    refusal = come_back(client, peer)
    assert refusal.status_code == 403
    assert "does not say which account on the cluster is yours" in refusal.content.decode()
    assert not User.objects.exists()
    assert causes() == ["no_account"]


@pytest.mark.parametrize(
    ("email", "verified", "account"),
    [
        ("bob@uni.example", True, "bob"),
        ("bob@uni.example", False, None),
        ("bob@uni.example", "true", None),
        ("bob@uni.example.evil", True, None),
        ("x bob@uni.example", True, None),
    ],
)
def test_a_rule_makes_the_account_of_a_verified_address(
    peer: Peer, client: Client, site: Site, email: str, verified: object, account: str | None
) -> None:
    site(openid_account_claim="email", openid_account_rule=r"([a-z0-9]+)@uni\.example")
    peer.claims |= {"email": email, "email_verified": verified}
    come_back(client, peer)
    assert [user.username for user in User.objects.all()] == ([account] if account else [])


def test_who_is_in_no_allowed_group_is_told_whom_to_ask(peer: Peer, client: Client, site: Site) -> None:
    site(allowed_groups=("hpc",))
    peer.claims["groups"] = ["staff"]
    assert come_back(client, peer).status_code == 403
    peer.claims["groups"] = ["hpc"]
    assert come_back(client, peer).status_code == 302


def test_a_claim_makes_an_administrator(peer: Peer, client: Client, site: Site) -> None:
    site(administrator_claims=("role=hpc-admin",))
    peer.claims["role"] = ["hpc-admin"]
    come_back(client, peer)
    assert User.objects.get().role == Role.ADMINISTRATOR


def test_somebody_else_cannot_take_an_account_over_until_it_is_released(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    peer.claims |= {"sub": "8", "groups": ["staff"]}
    other = Client()
    assert come_back(other, peer).status_code == 403
    assert causes() == ["openid_tie"]
    assert User.objects.get().groups_on_cluster == []
    call_command("releaseopenid", "alice")
    come_back(other, peer)
    assert is_in(other)
    assert OpenIdTie.objects.get().subject == "8"


def test_one_person_does_not_get_a_second_account(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    peer.claims["preferred_username"] = "bob"
    assert come_back(Client(), peer).status_code == 403


def age_proof(client: Client) -> None:
    session = client.session
    session["proved_at"] = 1.0
    session.save()


def test_an_administrator_proves_anew_at_the_provider(peer: Peer, client: Client, site: Site) -> None:
    site(administrators=("alice",))
    come_back(client, peer)
    age_proof(client)
    peer.claims["auth_time"] = int(time.time())
    come_back(client, peer, again="1", next="/profile/second-steps/app/")
    assert client.get("/profile/second-steps/app/").status_code == 200


@pytest.mark.parametrize("wrong", [{}, {"auth_time": 5}, {"auth_time": 2**40, "sub": "8"}], ids=str)
def test_a_provider_that_did_not_ask_anew_proves_nothing(
    peer: Peer, client: Client, site: Site, wrong: dict[str, Any]
) -> None:
    site(administrators=("alice",))
    come_back(client, peer)
    age_proof(client)
    peer.claims |= wrong
    come_back(client, peer, again="1")
    assert client.get("/profile/second-steps/app/").status_code == 302


def test_proving_anew_makes_the_provider_ask(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    asked = begin(client, again="1")
    assert (asked["prompt"], asked["max_age"]) == ("login", "0")


@pytest.mark.parametrize("said", [{}, {"auth_time": 5}, {"auth_time": float("nan")}, {"auth_time": True}], ids=str)
def test_a_sign_in_that_the_provider_asked_nothing_for_is_no_fresh_proof(
    peer: Peer, client: Client, site: Site, said: dict[str, Any]
) -> None:
    """Who finds a desk with the portal open could else sign out, sign in without a password, and administer."""
    site(administrators=("alice",))
    peer.claims |= said
    come_back(client, peer)
    assert is_in(client)
    assert client.get("/profile/second-steps/app/").status_code == 302


def test_a_sign_in_that_the_provider_has_just_asked_for_is_a_fresh_proof(
    peer: Peer, client: Client, site: Site
) -> None:
    site(administrators=("alice",))
    peer.claims["auth_time"] = int(time.time())
    come_back(client, peer)
    assert client.get("/profile/second-steps/app/").status_code == 200


@pytest.mark.parametrize(("verified", "role"), [(True, Role.ADMINISTRATOR), (False, Role.USER), (None, Role.USER)])
def test_an_address_that_nobody_verified_gives_no_rights(
    peer: Peer, client: Client, site: Site, verified: bool | None, role: Role
) -> None:
    site(administrator_claims=("email=boss@uni.example",))
    peer.claims |= {"email": "boss@uni.example", "email_verified": verified}
    come_back(client, peer)
    assert User.objects.get().role == role


def test_a_provider_without_a_usable_key_is_not_gone_to_and_is_asked_again(peer: Peer, client: Client) -> None:
    good = peer.keys
    peer.keys = lambda: {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}  # type: ignore[method-assign]  # it lies for a while
    assert client.post("/sign-in/openid/").status_code == 302
    peer.keys = good  # type: ignore[method-assign]  # the truth again
    come_back(client, peer)
    assert is_in(client)


@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_a_time_without_end_is_refused_in_words(peer: Peer, client: Client, claim: str) -> None:
    peer.claims[claim] = float("inf")
    assert come_back(client, peer).status_code == 302
    assert not is_in(client)


def test_no_token_is_kept_in_the_web_session(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    assert "eyJ" not in str(dict(client.session))


def test_without_the_setting_there_is_no_such_page(peer: Peer, client: Client, site: Site) -> None:
    site(auth=("cluster",))
    assert client.post("/sign-in/openid/").status_code == 404
    assert client.get("/sign-in/openid/answer/").status_code == 404


def test_who_fails_at_the_provider_still_goes_where_they_wanted_to(peer: Peer, client: Client) -> None:
    asked = begin(client, next="/history/")
    failed = client.get("/sign-in/openid/answer/", {"error": "access_denied", "state": asked["state"]})
    assert failed.headers["Location"] == "/sign-in/?next=%2Fhistory%2F"
    assert come_back(client, peer, next="/history/").headers["Location"] == "/history/"


def test_who_fails_to_prove_anew_still_goes_where_they_wanted_to(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    asked = begin(client, again="1", next="/audit/?page=2")
    failed = client.get("/sign-in/openid/answer/", {"error": "access_denied", "state": asked["state"]})
    assert failed.headers["Location"] == "/confirm/?next=%2Faudit%2F%3Fpage%3D2"


def test_a_provider_that_is_away_does_not_lose_where_they_wanted_to_go(site: Site, client: Client) -> None:
    site(openid_issuer="http://127.0.0.1:1")
    failed = client.post("/sign-in/openid/", {"next": "/history/"})
    assert failed.headers["Location"] == "/sign-in/?next=%2Fhistory%2F"


def test_a_second_step_is_asked_for_after_the_provider(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    secret = totp.new_secret()
    codes = factors.add_app(user=User.objects.get(), secret=secret, code=code_of(secret), name="phone", address="")
    other = Client()
    assert come_back(other, peer, next="/history/").headers["Location"] == "/sign-in/second-step/"
    assert not is_in(other)
    assert other.post("/sign-in/second-step/", {"code": codes[0]}).headers["Location"] == "/history/"
    assert is_in(other)
    ways = AuditEvent.objects.filter(name="user.signed_in").order_by("sequence")
    assert [event.data["way"] for event in ways] == ["openid", "openid+recovery"]


def test_who_has_a_second_step_proves_anew_with_that_and_not_at_the_provider(peer: Peer, client: Client) -> None:
    come_back(client, peer)
    secret = totp.new_secret()
    factors.add_app(user=User.objects.get(), secret=secret, code=code_of(secret), name="phone", address="")
    age_proof(client)
    peer.claims["auth_time"] = int(time.time())
    come_back(client, peer, again="1")
    assert client.get("/profile/second-steps/app/").status_code == 302
    assert 'action="/sign-in/openid/"' not in client.get("/confirm/").content.decode()


def code_of(secret: str) -> str:
    return totp.code_at(secret, int(time.time()) // 30)


END = {"end_session_endpoint": "https://login.example/end"}


def left_for(client: Client, path: str = "/sign-out/") -> dict[str, str]:
    """With what a sign-out sends the browser to the provider."""
    page = client.post(path)
    assert page.status_code == 200
    address = page.context["address"]
    assert address.startswith("https://login.example/end?")
    assert page.headers["Refresh"] == f"0; url={address}"
    return dict(parse_qsl(urlsplit(address).query))


@pytest.mark.parametrize("path", ["/sign-out/", "/profile/browsers/sign-out-everywhere/"])
def test_signing_out_leads_on_to_the_provider_where_the_site_wants_it(
    peer: Peer, site: Site, client: Client, path: str
) -> None:
    peer.more = END
    site(openid_sign_out=True)
    come_back(client, peer)
    back = f"{settings.CONF.portal_url}/sign-in/"
    assert left_for(client, path) == {"client_id": CLIENT, "post_logout_redirect_uri": back}
    assert not is_in(client)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(False, END), (True, {}), (True, {"end_session_endpoint": "javascript:1"}), (True, {"end_session_endpoint": 7})],
    ids=["not-wanted", "no-such-page", "no-address", "no-text"],
)
def test_otherwise_signing_out_ends_at_the_sign_in_page(
    peer: Peer, site: Site, client: Client, wanted: bool, said: dict[str, Any]
) -> None:
    peer.more = said
    site(openid_sign_out=wanted)
    come_back(client, peer)
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert not is_in(client)


def test_who_signed_in_otherwise_is_not_led_to_the_provider(peer: Peer, site: Site, as_alice: Client) -> None:
    peer.more = END
    site(openid_sign_out=True)
    assert as_alice.post("/sign-out/").headers["Location"] == "/sign-in/"


def test_a_provider_that_is_away_keeps_nobody_signed_in(peer: Peer, site: Site, client: Client) -> None:
    come_back(client, peer)
    site(openid_sign_out=True, openid_issuer="http://127.0.0.1:1")
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert not is_in(client)
