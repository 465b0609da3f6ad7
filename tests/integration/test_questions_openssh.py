"""One-time codes as clusters have them: OpenSSH asks PAM, PAM asks for the password and a code, and the sign-in page
hands the cluster's own question on.

Real pages, sshd, ``pam_unix`` and ``pam_oath``, all of it in namespaces that end with sshd.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from launcher import parts
from launcher.models import EnrolledKey
from launcher.ssh import questions
from portal.accounts import totp, waiting
from portal.accounts.models import User
from tests.integration.openssh import PASSWORD, OpenSSH, needs_openssh, openssh
from tests.integration.openssh_portal import events, forget_connections, leave, whoami, words, write_clusters
from tests.waiting import wait_for

MODULES = sorted(Path("/usr/lib").glob("*-linux-gnu/security/pam_oath.so"))
pytestmark = [
    *needs_openssh,
    pytest.mark.skipif(not MODULES, reason="no pam_oath here (Debian: libpam-oath)"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("valkey"),
]

KEY = secrets.token_bytes(20)
ANOTHER_WORDS = "The cluster did not accept this. Begin again, with a new code if it was one."
PASSWORD_ASKED = "auth required pam_unix.so nodelay"


def code(steps: int = 0) -> str:
    """The code of now, or of so many half minutes later."""
    return totp.code_at(base64.b32encode(KEY).decode(), int(time.time()) // totp.STEP_SECONDS + steps)


def code_asked(host: OpenSSH) -> str:
    return f"auth required pam_oath.so usersfile={host.folder}/oath window=20 digits=6"


def ask(host: OpenSSH, *lines: str) -> None:
    """From now on PAM goes by these lines for ``auth``; no code has been used yet."""
    (host.folder / "oath").touch(mode=0o600)
    (host.folder / "oath").write_text(f"HOTP/T30 alice - {KEY.hex()}\n")
    host.pam(*lines, "account required pam_unix.so", "session required pam_permit.so", "password required pam_unix.so")


@pytest.fixture(scope="module")
def _sshd(user_ca: Path) -> Iterator[OpenSSH]:
    parts.hands.cache_clear()
    with openssh(user_ca.with_suffix(""), uses_pam=True) as host:
        yield host
    parts.hands.cache_clear()


@pytest.fixture
def sshd(_sshd: OpenSSH) -> Iterator[OpenSSH]:
    """Asks for the password, then for a code, whatever the password was. The portal enrols keys on it."""
    _sshd.mend()
    ask(_sshd, PASSWORD_ASKED, code_asked(_sshd))
    write_clusters(_sshd, credential="enrolled-key")
    yield _sshd
    give_up()
    forget_connections()


def give_up() -> None:
    for held in list(waiting._held.values()):
        held.waiting.give_up()
    waiting._held.clear()


def begin(client: Client, password: str = PASSWORD, username: str = "alice") -> HttpResponse:
    form = {"username": username, "password": password}
    return client.post(reverse("accounts:sign-in"), form, follow=True)  # type: ignore[return-value]  # Django's type


def reply(client: Client, answer: str) -> HttpResponse:
    form = {"answer_0": answer}
    return client.post(reverse("accounts:questions"), form, follow=True)  # type: ignore[return-value]  # as above


def is_signed_in(client: Client) -> bool:
    return client.get(reverse("accounts:profile")).status_code == 200


def causes() -> list[object]:
    return [event["cause"] for event in events("user.sign_in_refused")]


def test_the_clusters_own_question_is_shown_and_the_right_code_signs_in(sshd: OpenSSH, client: Client) -> None:
    page = begin(client)
    assert "One-time password (OATH) for `alice'" in words(page)
    assert "You have about two minutes." in words(page)
    assert 'type="password"' in page.content.decode()
    assert not is_signed_in(client)
    reply(client, code())
    assert is_signed_in(client)
    assert events("user.signed_in") == [{"way": "cluster"}]


def test_after_that_the_key_opens_the_door_without_a_code(sshd: OpenSSH, client: Client) -> None:
    begin(client)
    reply(client, code())
    leave()
    asked_before = sshd.log.count("keyboard-interactive/pam for alice")
    assert whoami() == "alice"
    assert EnrolledKey.objects.get().last_used_at is not None
    assert sshd.log.count("keyboard-interactive/pam for alice") == asked_before


def test_a_wrong_code_is_refused_in_words_and_can_be_typed_anew(sshd: OpenSSH, client: Client) -> None:
    begin(client)
    assert ANOTHER_WORDS in words(reply(client, "000000"))
    assert (causes(), is_signed_in(client)) == (["answer"], False)
    begin(client)
    reply(client, code())
    assert is_signed_in(client)


def test_a_code_counts_once(sshd: OpenSSH, client: Client) -> None:
    used = code()
    begin(client)
    reply(client, used)
    somebody = Client()
    begin(somebody)
    assert ANOTHER_WORDS in words(reply(somebody, used))
    assert not is_signed_in(somebody)


def test_a_wrong_password_is_not_told_before_the_code_nor_after(sshd: OpenSSH, client: Client) -> None:
    assert "One-time password" in words(begin(client, "wrong"))
    assert ANOTHER_WORDS in words(reply(client, code()))
    assert causes() == ["answer"]
    assert not User.objects.exists()


@pytest.mark.parametrize("username", ["bob", "nobody-here"])
def test_who_has_no_codes_is_refused_like_a_stranger(sshd: OpenSSH, client: Client, username: str) -> None:
    page = words(begin(client, username=username))
    assert "The cluster did not accept this account name and password." in page
    assert causes() == ["password"]


def test_a_password_that_is_refused_at_once_is_told_at_once(sshd: OpenSSH, client: Client) -> None:
    ask(sshd, "auth requisite pam_unix.so nodelay", code_asked(sshd))
    page = words(begin(client, "wrong"))
    assert "The cluster did not accept this account name and password." in page
    assert sshd.log.count("Failed keyboard-interactive/pam for alice") >= 1


def test_a_code_that_is_asked_for_first_does_not_get_the_password(sshd: OpenSSH, client: Client) -> None:
    ask(sshd, code_asked(sshd), PASSWORD_ASKED)
    assert "One-time password" in words(begin(client))
    reply(client, code())
    assert is_signed_in(client)


def test_an_account_that_ended_is_refused_after_the_right_code(sshd: OpenSSH, client: Client) -> None:
    sshd.expire()
    begin(client)
    reply(client, code())
    assert not is_signed_in(client)
    assert causes() == ["answer"]


def test_a_password_that_must_be_changed_is_told_after_the_right_code(sshd: OpenSSH, client: Client) -> None:
    sshd.change_password_first()
    begin(client)
    page = words(reply(client, code()))
    assert "The cluster wants you to choose a new password first. Sign in to it once by SSH" in page
    assert causes() == ["ssh.password_expired"]


def test_who_does_not_answer_begins_again(sshd: OpenSSH, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PATIENCE_SECONDS", 0.5)
    begin(client)
    wait_for(lambda: all(held.waiting.is_over for held in waiting._held.values()), what="the portal to give up")
    page = words(reply(client, code()))
    assert "That took too long, or went wrong on the way. Please begin again." in page
    assert not is_signed_in(client)


def test_a_login_host_that_loses_patience_is_no_fault_of_the_persons(user_ca: Path, client: Client) -> None:
    with openssh(user_ca.with_suffix(""), uses_pam=True, more="LoginGraceTime 5") as host:
        ask(host, PASSWORD_ASKED, code_asked(host))
        write_clusters(host)
        assert "One-time password" in words(begin(client))
        wait_for(lambda: all(held.waiting.is_over for held in waiting._held.values()), what="sshd to give up")
        page = words(reply(client, code()))
        assert "That took too long, or went wrong on the way. Please begin again." in page
        give_up()


def test_whoever_was_shut_out_of_the_portal_reads_that_after_the_right_code(sshd: OpenSSH, client: Client) -> None:
    User.objects.create(username="alice", password="!", is_active=False)
    begin(client)
    assert "You may not use this portal" in words(reply(client, code()))
    assert causes() == ["disabled"]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("You are required to change your password immediately.\nCurrent password: ", True),
        ("New UNIX password: ", True),
        ("(current) UNIX password: Changing password for alice.", True),
        ("新的密码：", True),
        ("Password: ", False),
        ("Password for alice@EXAMPLE.ORG: ", False),
        ("One-time password (OATH) for `alice': ", False),
        ("密码：", False),
    ],
)
def test_a_question_of_a_change_of_password_is_known_by_its_words(text: str, is_one: bool) -> None:
    assert questions.wants_new_password(text) is is_one
