"""Signing in where the cluster asks for more than the password, through the pages and a real SSH server that asks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from launcher import parts
from launcher.models import EnrolledKey, KeptPassword
from launcher.ssh import questions
from launcher.ssh.loop import LoopThread
from portal.accounts import proving, waiting
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from tests.settings import FOLDER
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

PASSWORD, CODE = "alices-own-password", "424242"
Rounds = list[list[tuple[str, bool]]]


@dataclasses.dataclass
class Asking:
    """A login host that asks round after round by keyboard-interactive, then compares all answers."""

    rounds: Rounds
    right: list[str]
    heard: list[str] = dataclasses.field(default_factory=list)
    breaks: bool = False  # the connection breaks after the first answers
    open: int = 0
    address: str = ""
    home: Path | None = None  # what SFTP shows; with it, keys count that are in its authorized_keys


class _Server(asyncssh.SSHServer):
    def __init__(self, host: Asking) -> None:
        self._host = host
        self._round = 0
        self._answers: list[str] = []

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.open -= 1

    def kbdint_auth_supported(self) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return self._host.home is not None

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        assert self._host.home is not None
        known = self._host.home / ".ssh" / "authorized_keys"
        return known.exists() and key.export_public_key("openssh").decode().split()[1] in known.read_text()

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        self._round, self._answers = 1, []
        return "", "Welcome\x1b[31m to <b>the cluster</b>", "", self._host.rounds[0]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        self._answers += responses
        self._host.heard += responses
        if self._host.breaks:
            self._connection.abort()
            return False
        if self._round < len(self._host.rounds):
            self._round += 1
            return "", "", "", self._host.rounds[self._round - 1]
        return self._answers == self._host.right


async def _process(process: asyncssh.SSHServerProcess[str]) -> None:
    words = {"id -un": "alice\n", "id -u": "1234\n", "printenv HOME": "/home/alice\n"}
    process.stdout.write(words.get(process.command or "", ""))
    process.exit(0)


class _Files(asyncssh.SFTPServer):
    """Files below one folder, in which alice has a home."""

    def realpath(self, path: bytes) -> bytes:
        return b"/alice" if path == b"." else bytes(super().realpath(path))  # type: ignore[arg-type]  # never to be awaited


@pytest.fixture
def asking(valkey: None, db: None, tmp_path: Path) -> Iterator[Callable[..., Asking]]:
    """Starts a login host that asks: ``asking(rounds, right answers)``. It is the last one of the portal's one
    cluster, after those named in ``before``. ``credential``: what the portal acts as people with there.
    """
    loop = LoopThread("asking host")
    servers: list[asyncssh.SSHAcceptor] = []
    hosts: list[Asking] = []
    keys: list[str] = []

    def start(
        rounds: Rounds, right: list[str], before: tuple[str, ...] = (), credential: str = "certificate"
    ) -> Asking:
        host, key = Asking(rounds, right), asyncssh.generate_private_key("ssh-ed25519")
        if credential == "enrolled-key":
            host.home = tmp_path / "alice"
            host.home.mkdir()
        hosts.append(host)

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                0,
                server_factory=lambda: _Server(host),
                server_host_keys=[key],
                process_factory=_process,
                sftp_factory=lambda chan: _Files(chan, chroot=str(tmp_path).encode()),
            )

        servers.append(loop.run(listen(), 10))
        login_hosts = [*before, f"127.0.0.1:{servers[-1].get_port()}"]
        keys.append(key.export_public_key("openssh").decode().strip())
        host.address = login_hosts[-1]
        (FOLDER / "clusters.toml").write_text(
            '[clusters.asks]\nname = "Asks"\nscheduler = "pbs"\n'
            f"login_hosts = {json.dumps(login_hosts)}\nhost_keys = {json.dumps(keys)}\nconnect_timeout_seconds = 4\n"
            f'credential = "{credential}"\n'
            '[[clusters.asks.queues]]\nname = "workq"\nmax_cores = 4\nmax_memory = "8gb"\nmax_hours = 8\n'
        )
        parts.forget()
        return host

    async def close() -> None:
        for server in servers:
            server.close()
            await server.wait_closed()

    yield start
    for held in list(waiting._held.values()):
        held.waiting.give_up()
    waiting._held.clear()
    parts.hands_loop().run(parts.hands().pool.close_user("asks", "alice"), 10)
    wait_for(lambda: not any(host.open for host in hosts), what="the end of all connections")
    loop.run(close(), 10)
    loop.stop()
    parts.forget()


TWO_STEPS: Rounds = [[("Password: ", False)], [("Verification code: ", False)]]


def begin(client: Client, password: str = PASSWORD) -> HttpResponse:
    form = {"username": "alice", "password": password, "next": "/history/"}
    return client.post(reverse("accounts:sign-in"), form)  # type: ignore[return-value]  # Django's own test type


def reply(client: Client, *answers: str) -> HttpResponse:
    form = {f"answer_{place}": answer for place, answer in enumerate(answers)}
    return client.post(reverse("accounts:questions"), form)  # type: ignore[return-value]  # Django's own test type


def causes() -> list[str]:
    return [event.data["cause"] for event in AuditEvent.objects.filter(name="user.sign_in_refused")]


def test_the_password_and_then_the_code_sign_in(asking: Callable[..., Asking], client: Client) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    answer = begin(client)
    assert answer.headers["Location"] == reverse("accounts:questions")
    page = client.get(reverse("accounts:questions")).content.decode()
    assert "Verification code" in page
    assert 'type="password"' in page
    assert not User.objects.exists()
    assert reply(client, CODE).headers["Location"] == "/history/"
    assert client.get("/history/").status_code == 200
    assert host.heard == [PASSWORD, CODE]
    assert AuditEvent.objects.get(name="user.signed_in").data == {"way": "cluster"}


def test_a_code_that_is_asked_for_first_is_not_answered_with_the_password(
    asking: Callable[..., Asking], client: Client
) -> None:
    host = asking([[("One-time password (OATH) for `alice': ", False)], [("Password: ", False)]], [CODE, PASSWORD])
    begin(client)
    assert host.heard == []
    assert reply(client, CODE).status_code == 302
    assert host.heard == [CODE, PASSWORD]
    assert User.objects.filter(username="alice").exists()


def test_several_questions_at_once_are_shown_at_once(asking: Callable[..., Asking], client: Client) -> None:
    asking([[("Password: ", False), ("Code: ", False), ("Colour? ", True)]], [PASSWORD, CODE, "green"])
    begin(client)
    page = client.get(reverse("accounts:questions")).content.decode()
    assert 'type="text"' in page
    assert reply(client, CODE, "green").status_code == 302
    assert User.objects.filter(username="alice").exists()


def test_one_round_after_the_other_is_shown(asking: Callable[..., Asking], client: Client) -> None:
    asking([[("Password: ", False)], [("Code: ", False)], [("Next code: ", False)]], [PASSWORD, "1", "2"])
    begin(client)
    assert reply(client, "1").headers["Location"] == reverse("accounts:questions")
    assert "Next code" in client.get(reverse("accounts:questions")).content.decode()
    assert reply(client, "2").headers["Location"] == "/history/"


def test_a_wrong_code_signs_nobody_in_and_counts_as_an_attempt(asking: Callable[..., Asking], client: Client) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    for _ in range(5):
        begin(client)
        assert "Begin again" in client.get(reply(client, "000000").headers["Location"]).content.decode()
    assert begin(client).status_code == 429
    assert len(host.heard) == 10
    assert sorted(causes()) == ["answer"] * 5 + ["throttled"]
    assert not User.objects.exists()


def test_a_wrong_password_is_told_only_after_the_code_by_such_a_host(
    asking: Callable[..., Asking], client: Client
) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE])
    begin(client, "wrong")
    assert reply(client, CODE).headers["Location"] == reverse("accounts:sign-in")
    assert not User.objects.exists()


def test_a_host_that_asks_for_the_password_alone_is_as_before(asking: Callable[..., Asking], client: Client) -> None:
    asking([[("Password: ", False)]], [PASSWORD])
    assert begin(client).headers["Location"] == "/history/"


def test_a_login_host_that_says_nothing_is_passed_over(asking: Callable[..., Asking], client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking(TWO_STEPS, [PASSWORD, CODE], before=(f"127.0.0.1:{silent.getsockname()[1]}",))
        assert begin(client).headers["Location"] == reverse("accounts:questions")
        assert reply(client, CODE).headers["Location"] == "/history/"


def test_a_break_after_the_password_was_handed_over_is_no_reason_to_hand_it_to_another_host(
    asking: Callable[..., Asking], client: Client
) -> None:
    first = asking(TWO_STEPS, [PASSWORD, CODE])
    first.breaks = True
    second = asking(TWO_STEPS, [PASSWORD, CODE], before=(first.address,))
    for _ in range(5):
        assert b"password cannot be checked" in begin(client).content
    assert begin(client).status_code == 429  # each may have counted at the cluster
    assert first.heard == [PASSWORD] * 5
    assert second.heard == []


def test_nobody_is_hurried_by_the_time_a_login_may_take(asking: Callable[..., Asking], client: Client) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE])
    begin(client)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 4.5, what="longer than a login may take")
    assert reply(client, CODE).headers["Location"] == "/history/"


def test_another_browser_cannot_answer(asking: Callable[..., Asking], client: Client) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    begin(client)
    stranger = Client()
    assert reply(stranger, CODE).headers["Location"] == reverse("accounts:sign-in")
    assert host.heard == [PASSWORD]
    assert reply(client, CODE).headers["Location"] == "/history/"


def test_two_answers_at_once_are_one(asking: Callable[..., Asking], client: Client) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE])
    begin(client)
    key = client.session["sign_in_questions"]
    first = waiting.take(key)
    assert first is not None
    assert waiting.take(key) is None
    first.waiting.give_up()


def test_who_is_late_begins_again_and_the_connection_is_closed(
    asking: Callable[..., Asking], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    monkeypatch.setattr(questions, "PATIENCE_SECONDS", 0.2)
    begin(client)
    wait_for(lambda: host.open == 0, what="the end of the connection")
    answer = client.get(reverse("accounts:questions"))
    assert answer.headers["Location"] == reverse("accounts:sign-in")
    assert "took too long" in client.get(reverse("accounts:sign-in")).content.decode()


def test_who_reaches_another_process_begins_again(asking: Callable[..., Asking], client: Client) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE])
    begin(client)
    held = dict(waiting._held)
    waiting._held.clear()  # as it is in a process that did not begin this
    assert reply(client, CODE).headers["Location"] == reverse("accounts:sign-in")
    for one in held.values():
        one.waiting.give_up()


def test_what_the_cluster_says_is_shown_as_text(asking: Callable[..., Asking], client: Client) -> None:
    nasty = "<script>alert(1)</script>\x1b[2J\u202ecode " + "x" * 100_000
    asking([[("Password: ", False)], [(nasty, True)]], [PASSWORD, CODE])
    begin(client)
    page = client.get(reverse("accounts:questions")).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "x" * 201 not in page


@pytest.mark.parametrize(
    "rounds",
    [
        [[("Password: ", False)], [(f"Question {number}", True) for number in range(6)]],
        [[("Password: ", False)], *[[("Code: ", False)]] * 9],
    ],
    ids=["six-at-once", "on-and-on"],
)
def test_a_host_that_asks_on_and_on_is_left(asking: Callable[..., Asking], client: Client, rounds: Rounds) -> None:
    host = asking(rounds, ["never"])
    answer = begin(client)
    for _ in range(8):
        if answer.status_code != 302 or answer.headers["Location"] != reverse("accounts:questions"):
            break
        answer = reply(client, "1")
    wait_for(lambda: host.open == 0, what="the end of the connection")
    assert not User.objects.exists()


def test_programs_and_the_page_that_asks_again_are_told_that_more_is_asked(asking: Callable[..., Asking]) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    with pytest.raises(proving.SignInRefused) as refused:
        proving.prove_password(username="alice", password=PASSWORD, address="")
    assert refused.value.code == "sign_in.asks_more"
    wait_for(lambda: host.open == 0, what="the end of the connection")


def test_only_so_many_wait_and_the_oldest_gives_way(
    asking: Callable[..., Asking], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = asking(TWO_STEPS, [PASSWORD, CODE])
    monkeypatch.setattr(waiting, "MOST", 2)
    for _ in range(3):
        begin(Client())
    wait_for(lambda: host.open == 2, what="the end of the oldest")
    assert len(waiting._held) == 2


async def test_an_answer_to_nobody_is_not_waited_for() -> None:
    conversation = questions.Conversation()
    conversation.answer(["early"])
    async with asyncio.timeout(60):
        assert await conversation.ask(questions.Round("", (questions.Question("?", True),))) == ["early"]


CONNECT = "/profile/clusters/asks/connect/"


def connect(client: Client, *answers: str, path: str = CONNECT + "questions/") -> HttpResponse:
    """The password on the page that connects an account, and then these answers."""
    answer = client.post(CONNECT, {"password": PASSWORD, "next": "/launch/jupyter/"})
    for said in answers:
        answer = client.post(path, {"answer_0": said})
    return answer  # type: ignore[return-value]  # Django's own test type


def test_an_account_is_connected_with_the_password_and_the_code(
    asking: Callable[..., Asking], as_alice: Client
) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE], credential="enrolled-key")
    assert connect(as_alice).headers["Location"] == CONNECT + "questions/"
    page = as_alice.get(CONNECT + "questions/").content.decode()
    assert "Verification code" in page
    assert f'action="{CONNECT}questions/"' in page
    assert connect(as_alice, CODE).headers["Location"] == "/launch/jupyter/"
    assert EnrolledKey.objects.get().enrolled_at is not None


def test_a_wrong_code_connects_nothing_and_leads_back_to_the_password(
    asking: Callable[..., Asking], as_alice: Client
) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE], credential="enrolled-key")
    answer = connect(as_alice, "000000")
    assert answer.headers["Location"] == CONNECT
    assert "did not accept this" in as_alice.get(CONNECT).content.decode()
    assert [event.data for event in AuditEvent.objects.filter(name="user.sign_in_refused")] == [
        {"way": "connect", "cause": "answer"}
    ]
    assert not EnrolledKey.objects.exists()


def test_where_codes_are_asked_for_each_time_no_password_is_kept_and_that_is_said(
    asking: Callable[..., Asking], as_alice: Client
) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE], credential="password")
    assert connect(as_alice, CODE).headers["Location"] == CONNECT
    assert "asks for more than your password each time" in as_alice.get(CONNECT).content.decode()
    assert not KeptPassword.objects.exists()


def test_what_waits_to_connect_an_account_signs_nobody_in(asking: Callable[..., Asking], as_alice: Client) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE], credential="enrolled-key")
    connect(as_alice)
    (key,) = waiting._held
    with pytest.raises(proving.SignInRefused):
        proving.answer(key=key, answers=[CODE], address="")
    assert waiting.find(key) is None
    assert list(waiting._held) == [key]  # it waits on, for whom it is


def test_what_waits_to_sign_in_connects_nothing(asking: Callable[..., Asking], as_alice: Client, alice: User) -> None:
    asking(TWO_STEPS, [PASSWORD, CODE], credential="enrolled-key")
    begin(Client())
    (key,) = waiting._held
    for purpose in (waiting.Connects(alice.pk, "asks"), waiting.Connects(alice.pk + 1, "asks")):
        with pytest.raises(proving.SignInRefused):
            proving.answer(key=key, answers=[CODE], address="", connects=purpose)
    assert list(waiting._held) == [key]
