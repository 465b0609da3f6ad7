"""Guessing is held back by all web processes together: two real ones, on the same Valkey and database."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
import redis

from launcher.demo import ports
from launcher.demo.browser import Browser, forms_of
from launcher.demo.folder import DemoFolder
from launcher.democluster.server import LoginServer
from launcher.democluster.settings import Account
from launcher.processes import web_command
from portal.accounts import throttle
from tests.integration.portal_processes import demo_cluster_of, processes, short_root, until_it_answers

pytestmark = pytest.mark.integration

RIGHT = {"alice": "right-Pa55word", "bob": "bobs-Pa55word"}
GUESSES = 20
ALLOWED = 5


@dataclass(slots=True)
class TwoWebs:
    """A portal with two web processes, and how often each account's password was judged at the login host."""

    folder: DemoFolder
    urls: tuple[str, str]
    judged: Counter[str] = field(default_factory=Counter)
    addresses: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def ready_to_sign_in(self, web: int) -> tuple[Browser, str, dict[str, str]]:
        """A new browser, elsewhere than all others, that has the form before it."""
        browser = Browser("127.0.0.1")
        (form,) = [form for form in forms_of(browser.get(f"{self.urls[web]}/sign-in/")) if "password" in form.values]
        return browser, form.action, form.values

    def send(self, ready: tuple[Browser, str, dict[str, str]], username: str, password: str) -> int:
        """The answer's status."""
        browser, action, values = ready
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Forwarded-For": f"192.0.2.{next(self.addresses)}",
        }
        body = urlencode(values | {"username": username, "password": password}).encode()
        return browser.request("POST", action, body=body, headers=headers).status

    def sign_in(self, web: int, username: str, password: str) -> int:
        return self.send(self.ready_to_sign_in(web), username, password)

    def let_time_pass(self, seconds: int) -> None:
        """Make every try that is counted older: the pause is longer than a test may wait."""
        with redis.Redis(unix_socket_path=str(self.folder.valkey_socket)) as link:
            for key in link.scan_iter(f"{throttle.PREFIX}*"):
                if link.type(key) == b"zset":
                    link.zadd(key, {name: at - seconds * 1e6 for name, at in link.zrange(key, 0, -1, withscores=True)})

    def causes(self) -> Counter[str]:
        """What the audit log says of refused sign-ins."""
        with contextlib.closing(sqlite3.connect(self.folder.root / "demo.sqlite3", timeout=20)) as link:
            rows = link.execute(
                "SELECT json_extract(data_json, '$.cause') FROM audit_auditevent WHERE name = 'user.sign_in_refused'"
            )
            return Counter(cause for (cause,) in rows)


@pytest.fixture
def webs(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoWebs]:
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(short_root("fb-two-"))
        folder = DemoFolder(root / "data")
        folder.prepare()
        ca = folder.user_ca.with_name(f"{folder.user_ca.name}.pub")
        accounts = [Account(name, password, ("users",)) for name, password in RIGHT.items()]
        cluster = stack.enter_context(demo_cluster_of(root, ca, *accounts))
        folder.clusters_file.write_text(cluster.toml(credential="certificate"), "utf-8")
        listen = [ports.free_port(), ports.free_port()]
        commands = {f"web{number}": web_command(host="127.0.0.1", port=port) for number, port in enumerate(listen)}
        more = {"PORTAL_TRUSTED_PROXIES": "127.0.0.1", "PORTAL_SIGN_IN_ATTEMPTS": str(ALLOWED)}
        stack.enter_context(processes(folder, port=listen[0], commands=commands, environment=more))
        first, second = (f"http://localhost:{port}" for port in listen)
        found = TwoWebs(folder, (first, second))
        judge = LoginServer.validate_password

        def counted(server: LoginServer, username: str, password: str) -> bool:
            found.judged[username] += 1
            return judge(server, username, password)

        monkeypatch.setattr(LoginServer, "validate_password", counted)
        for number, url in enumerate(found.urls):
            log = folder.logs / f"web{number}.log"
            until_it_answers(url, log.read_text)
        yield found


def test_of_twenty_guesses_at_two_processes_the_cluster_hears_five_and_the_right_one_works_after_the_pause(
    webs: TwoWebs,
) -> None:
    ready = [webs.ready_to_sign_in(number % 2) for number in range(GUESSES)]
    together, statuses = threading.Barrier(GUESSES, timeout=60), [0] * GUESSES

    def guess(number: int) -> None:
        together.wait()
        statuses[number] = webs.send(ready[number], "alice", f"wrong-{number}")

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(GUESSES)]
    for thread in threads:
        thread.start()
    while_it_lasts = [webs.sign_in(web, "bob", RIGHT["bob"]) for web in (0, 1)]
    for thread in threads:
        thread.join(90)

    assert Counter(statuses) == {200: ALLOWED, 429: GUESSES - ALLOWED}
    assert while_it_lasts == [302, 302]
    assert webs.judged == {"alice": ALLOWED, "bob": 2}
    assert webs.causes() == {"password": ALLOWED, "throttled": 1}

    assert [webs.sign_in(web, "alice", RIGHT["alice"]) for web in (0, 1)] == [429, 429]
    webs.let_time_pass(throttle.WINDOW_SECONDS - 120)
    assert [webs.sign_in(web, "ALICE", RIGHT["alice"]) for web in (1, 0)] == [429, 429]
    assert webs.judged["alice"] == ALLOWED  # not even the right one was asked about
    webs.let_time_pass(120)
    assert [webs.sign_in(web, "alice", RIGHT["alice"]) for web in (1, 0)] == [302, 302]
    assert webs.judged["alice"] == ALLOWED + 2
