"""Personal tokens: shown once, kept as a sum, ended by time, withdrawal or the end of their owner."""

from __future__ import annotations

import datetime as dt
import io

import pytest
from django.core.management import CommandError, call_command
from pytest_django import DjangoAssertNumQueries

from portal import clock
from portal.accounts import tokens
from portal.accounts.models import PersonalToken, User
from portal.accounts.tokens import TokenError, authenticate_token, create_token, revoke_token
from portal.audit.models import AuditEvent

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    """A user."""
    return User.objects.create(username="alice", password="!")


def make(user: User, scope: str = "read") -> tokens.NewToken:
    """A token for a month."""
    return create_token(user=user, name="laptop", scope=scope, days=30)


def age(token: PersonalToken, **delta: float) -> None:
    """Let the token have run out so long ago."""
    PersonalToken.objects.filter(pk=token.pk).update(expires_at=clock.now() - dt.timedelta(**delta))


def test_text_is_long_known_by_its_beginning_and_not_stored(alice: User) -> None:
    token, text = make(alice)
    assert text.startswith("fbp_")
    assert len(text) == 47
    stored = str(PersonalToken.objects.filter(pk=token.pk).values().get())
    assert text not in stored
    assert text[4:] not in stored
    assert token.hint == text[:12]


def test_making_one_is_an_event_without_the_text(alice: User) -> None:
    token, text = make(alice, "write")
    event = AuditEvent.objects.get(name="token.created")
    assert event.actor == "alice"
    assert event.data["name"] == "laptop"
    assert event.data["scope"] == "write"
    assert event.data["expires_at"].startswith(f"{token.expires_at:%Y-%m-%dT%H:%M}")
    assert text[4:] not in event.data_json
    assert token.digest not in event.data_json


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": ""}, "token.name"),
        ({"name": "   "}, "token.name"),
        ({"name": "x" * 81}, "token.name"),
        ({"name": "two\nlines"}, "token.name"),
        ({"scope": "everything"}, "token.scope"),
        ({"days": 0}, "token.days"),
        ({"days": -3}, "token.days"),
        ({"days": 10**9}, "token.days"),
    ],
)
def test_wrong_wishes_are_refused(alice: User, changes: dict[str, object], code: str) -> None:
    wishes = {"name": "laptop", "scope": "read", "days": 30} | changes
    with pytest.raises(TokenError) as refused:
        create_token(user=alice, **wishes)  # type: ignore[arg-type]  # wrong on purpose
    assert refused.value.code == code
    assert not alice.tokens.exists()


def test_number_of_tokens_is_limited(alice: User) -> None:
    for _ in range(tokens.MOST_TOKENS):
        newest = make(alice).token
    with pytest.raises(TokenError) as refused:
        make(alice)
    assert refused.value.code == "token.too_many"
    age(newest, days=1)
    assert make(alice).text


def test_token_is_its_owners(alice: User) -> None:
    token, text = make(alice)
    found = authenticate_token(text)
    assert found == token
    assert found is not None
    assert found.user == alice


@pytest.mark.parametrize("text", ["", "fbp_", "nonsense", "fbp_" + "A" * 43, "x" * 1_000_000, "fbp_\udcff", "fbp_分析"])
def test_what_is_no_token_is_nobody(alice: User, text: str) -> None:
    make(alice)
    assert authenticate_token(text) is None


@pytest.mark.parametrize("text", ["", "nonsense", "fbp_" + "A" * 43])
def test_every_wrong_token_costs_the_same(
    alice: User, text: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make(alice)
    with django_assert_num_queries(1):
        authenticate_token(text)


def test_token_ends_with_its_time(alice: User) -> None:
    token, text = make(alice)
    age(token, seconds=1)
    assert authenticate_token(text) is None


def test_token_ends_with_its_withdrawal(alice: User) -> None:
    token, text = make(alice)
    assert revoke_token(user=alice, pk=token.pk)
    assert authenticate_token(text) is None
    assert AuditEvent.objects.get(name="token.revoked").data == {"name": "laptop"}


def test_token_ends_with_its_owners_account(alice: User) -> None:
    _, text = make(alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert authenticate_token(text) is None


def test_use_of_an_ended_token_is_recorded_once(alice: User) -> None:
    token, text = make(alice)
    age(token, days=3)
    for _ in range(3):
        authenticate_token(text, address="192.0.2.7")
    event = AuditEvent.objects.get(name="user.sign_in_refused")
    assert (event.actor, event.address) == ("alice", "192.0.2.7")
    assert event.data == {"way": "token", "cause": "expired"}


def test_withdrawing_twice_changes_nothing(alice: User) -> None:
    token = make(alice).token
    revoke_token(user=alice, pk=token.pk)
    assert not revoke_token(user=alice, pk=token.pk)
    assert AuditEvent.objects.filter(name="token.revoked").count() == 1


def test_nobody_withdraws_the_token_of_another(alice: User) -> None:
    token, text = make(alice)
    bob = User.objects.create(username="bob", password="!")
    assert not revoke_token(user=bob, pk=token.pk)
    assert authenticate_token(text) == token


def test_use_is_noted_at_most_once_a_minute(alice: User, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    token, text = make(alice)
    authenticate_token(text)
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        authenticate_token(text)
    PersonalToken.objects.update(last_used_at=first - dt.timedelta(seconds=61))
    authenticate_token(text)
    token.refresh_from_db()
    assert token.last_used_at is not None
    assert token.last_used_at >= first


def test_list_holds_what_is_in_force(alice: User) -> None:
    kept, ended, withdrawn = (make(alice).token for _ in range(3))
    age(ended, days=1)
    revoke_token(user=alice, pk=withdrawn.pk)
    assert list(tokens.tokens_of(alice)) == [kept]


def test_command_prints_a_token_that_works(alice: User) -> None:
    out, errors = io.StringIO(), io.StringIO()
    call_command(
        "createtoken",
        "alice",
        "--name",
        "nightly",
        "--scope",
        "write",
        "--days",
        "7",
        stdout=out,
        stderr=errors,
    )
    token = authenticate_token(out.getvalue().strip())
    assert token is not None
    assert (token.name, token.scope, token.user) == ("nightly", "write", alice)
    assert "7 days" in errors.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "nobody has never signed in"),
        (["alice", "--days", "0"], "valid for 1 to"),
        (["alice", "--name", "x" * 81], "1 to 80"),
    ],
)
def test_command_says_what_is_wrong(alice: User, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("createtoken", *arguments)
