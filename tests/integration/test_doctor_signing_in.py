"""What the check-up finds about the ways to sign in: each test breaks one thing of a real directory or provider."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.conf import settings
from pydantic import SecretStr

from launcher.doctor import host_accounts, plan
from launcher.doctor.findings import Finding, Outcome
from launcher.doctor.runner import examine
from portal.conf import Conf
from tests.integration import directory as directories
from tests.integration.directory import Directory
from tests.integration.openid_peer import Peer, running_peer

pytestmark = pytest.mark.integration

Look = Callable[..., list[Finding]]


def look(monkeypatch: pytest.MonkeyPatch, way: str, **changes: object) -> list[Finding]:
    """All findings about one way, with these settings."""
    conf: Conf = settings.CONF.model_copy(update={"auth": (way,), **changes})
    monkeypatch.setattr(settings, "CONF", conf)
    return list(examine(plan.WAYS[way], None))


def only(findings: list[Finding], check: str, outcome: Outcome = Outcome.BROKEN) -> str:
    """What the one finding says that is not fine; all after it are left out."""
    trouble = [one for one in findings if one.outcome in (Outcome.DOUBTFUL, Outcome.BROKEN)]
    assert [(one.id, one.outcome) for one in trouble] == [(check, outcome)], [
        one.said.what.english() for one in findings
    ]
    assert trouble[0].said.cure
    trouble[0].said.cure.english()
    return trouble[0].said.what.english()


@contextlib.contextmanager
def tls_server(folder: Path) -> Iterator[str]:
    """A server with a certificate by an authority of its own; its address."""
    directories.write_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # who does not trust it hangs up
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("ways", [("cluster",), ("openid", "cluster"), ("ldap", "pam")])
def test_there_are_lines_only_about_the_ways_in_use(monkeypatch: pytest.MonkeyPatch, ways: tuple[str, ...]) -> None:
    monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update={"auth": ways}))
    more = {check.id for check in plan._portal_checks()} - {check.id for check in plan.PORTAL}
    assert more == {check.id for way in ways for check in plan.WAYS.get(way, ())}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    pytest.importorskip("ldap", reason="python-ldap is not installed: it needs the headers of libldap and libsasl")
    with directories.directory(tmp_path_factory.mktemp("directory")) as one:
        yield one


@pytest.mark.skipif(directories.SLAPD is None, reason="slapd is not installed")
class TestDirectory:
    @pytest.fixture
    def ask(self, running: Directory, monkeypatch: pytest.MonkeyPatch) -> Look:
        def asked(**changes: object) -> list[Finding]:
            values = {**running.settings, **changes}
            values["ldap_bind_password"] = SecretStr(str(values["ldap_bind_password"]))
            return look(monkeypatch, "ldap", **values)

        return asked

    def test_a_directory_that_is_in_order_is_all_fine(self, running: Directory, ask: Look) -> None:
        plain = {"ldap_url": f"ldap://127.0.0.1:{running.port}"}
        for changes in ({}, plain, {**plain, "ldap_start_tls": True}):
            found = ask(**changes)
            assert [one.outcome for one in found] == [Outcome.OK] * 3, [one.said.what.english() for one in found]

    def test_one_that_is_away_is_named_and_nothing_more_is_asked(self, ask: Look) -> None:
        found = ask(ldap_url="ldaps://127.0.0.1:1")
        assert "does not answer: Connection refused" in only(found, "portal.ldap")
        assert [one.outcome for one in found[1:]] == [Outcome.SKIPPED] * 2

    def test_one_that_says_nothing_is_given_up(self, ask: Look) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            found = ask(ldap_url=f"ldaps://127.0.0.1:{silent.getsockname()[1]}", ldap_seconds=0.5)
        assert "timed out" in only(found, "portal.ldap")

    @pytest.mark.parametrize("start_tls", [False, True])
    def test_another_authoritys_certificate_is_named(
        self, running: Directory, ask: Look, tmp_path: Path, start_tls: bool
    ) -> None:
        directories.write_certificates(tmp_path)
        url = f"ldap://127.0.0.1:{running.port}" if start_tls else running.settings["ldap_url"]
        found = ask(ldap_url=url, ldap_start_tls=start_tls, ldap_ca_file=tmp_path / "ca.pem")
        assert "certificate" in only(found, "portal.ldap")

    def test_a_certificate_of_another_name_is_named(self, running: Directory, ask: Look) -> None:
        assert "localhost" in only(ask(ldap_url=f"ldaps://localhost:{running.tls_port}"), "portal.ldap")

    def test_tls_on_the_port_without_it_is_named(self, running: Directory, ask: Look) -> None:
        only(ask(ldap_url=f"ldaps://127.0.0.1:{running.port}"), "portal.ldap")

    def test_a_file_of_the_authority_that_is_not_there_is_named(self, ask: Look, tmp_path: Path) -> None:
        assert str(tmp_path / "none.pem") in only(ask(ldap_ca_file=tmp_path / "none.pem"), "portal.ldap")

    def test_the_wrong_password_of_the_portals_account_is_named_and_not_shown(self, ask: Look) -> None:
        said = only(ask(ldap_bind_password="hush-hush"), "portal.ldap_bind")
        assert directories.READER in said
        assert "hush" not in said

    @pytest.mark.parametrize("setting", ["ldap_user_base", "ldap_group_base"])
    def test_a_base_that_is_not_there_is_named(self, ask: Look, setting: str) -> None:
        found = ask(**{setting: f"ou=nowhere,{directories.BASE}"})
        assert "ou=nowhere" in only(found, "portal.ldap_people")

    def test_a_base_that_the_portal_may_not_see_is_named(self, ask: Look) -> None:
        only(ask(ldap_bind_dn=f"uid=alice,ou=people,{directories.BASE}", ldap_bind_password="alice-in-the-directory"),
             "portal.ldap_people")  # fmt: skip

    def test_a_filter_that_is_none_is_named(self, ask: Look) -> None:
        assert "(uid=%(user)s" in only(ask(ldap_user_filter="(uid=%(user)s"), "portal.ldap_people")

    def test_a_filter_that_fits_whatever_is_typed_is_named(self, ask: Look) -> None:
        found = ask(ldap_user_filter="(|(uid=%(user)s)(sn=Demo))")
        assert "whatever name is typed" in only(found, "portal.ldap_people")

    def test_a_filter_that_finds_nobody_is_named(self, ask: Look) -> None:
        only(ask(ldap_user_filter="(sAMAccountName=%(user)s)"), "portal.ldap_people", Outcome.DOUBTFUL)

    def test_an_account_attribute_that_nobody_has_is_named(self, ask: Look) -> None:
        found = ask(ldap_account_attribute="sAMAccountName")
        assert "sAMAccountName" in only(found, "portal.ldap_people", Outcome.DOUBTFUL)


class TestProvider:
    @pytest.fixture
    def peer(self) -> Iterator[Peer]:
        with running_peer() as one:
            yield one

    def test_a_provider_that_is_in_order_is_all_fine_and_the_address_to_register_is_printed(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = look(monkeypatch, "openid", openid_issuer=peer.issuer, url="https://notebooks.example.org")
        assert [one.outcome for one in found] == [Outcome.OK] * 3, [one.said.what.english() for one in found]
        assert "https://notebooks.example.org/sign-in/openid/answer/" in found[2].said.what.english()

    def test_one_that_is_away_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = look(monkeypatch, "openid", openid_issuer="http://127.0.0.1:1")
        assert "Connection refused" in only(found, "portal.openid")
        assert found[1].outcome is Outcome.SKIPPED

    def test_a_certificate_that_nobody_here_trusts_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with tls_server(tmp_path) as address:
            assert "certificate" in only(look(monkeypatch, "openid", openid_issuer=address), "portal.openid")

    def test_one_that_calls_itself_otherwise_is_named(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        peer.named_issuer = f"{peer.issuer}/"
        said = only(look(monkeypatch, "openid", openid_issuer=peer.issuer), "portal.openid")
        assert f"{peer.issuer}/," in said

    @pytest.mark.parametrize(
        ("value", "outcome"),
        [
            ({"authorization_endpoint": "http://login.example.org/auth"}, Outcome.BROKEN),
            ({"token_endpoint": None}, Outcome.BROKEN),
            ({"response_types_supported": ["id_token"]}, Outcome.BROKEN),
            ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, Outcome.BROKEN),
            ({"code_challenge_methods_supported": ["plain"]}, Outcome.DOUBTFUL),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
    )
    def test_what_the_portal_cannot_go_on_with_is_named(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch, value: dict[str, object], outcome: Outcome
    ) -> None:
        good = peer.document()
        monkeypatch.setattr(peer, "document", lambda: good | value)
        only(look(monkeypatch, "openid", openid_issuer=peer.issuer), "portal.openid", outcome)

    @pytest.mark.parametrize(
        "keys",
        [[], [{"kty": "oct", "k": "c2VjcmV0"}], [{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}]],
        ids=["none", "a shared secret", "for encryption"],
    )
    def test_keys_that_sign_nothing_are_named(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch, keys: list[dict[str, str]]
    ) -> None:
        monkeypatch.setattr(peer, "keys", lambda: {"keys": keys})
        only(look(monkeypatch, "openid", openid_issuer=peer.issuer), "portal.openid_keys")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """Look at a service of these lines; ``shadow`` is whether this process may read it."""
    pytest.importorskip("pam", reason="python-pam is not installed")

    def asked(text: str | None, *, shadow: bool = False) -> list[Finding]:
        monkeypatch.setattr(host_accounts, "FOLDERS", (tmp_path,))
        monkeypatch.setattr(host_accounts, "SHADOW", tmp_path / "shadow")
        if shadow:
            (tmp_path / "shadow").touch()
        if text is not None:
            (tmp_path / "site").write_text(text)
        (tmp_path / "common-auth").write_text("auth [success=1 default=ignore] pam_unix.so nullok\n@include site\n")
        return look(monkeypatch, "pam", pam_service="site")

    return asked


def test_a_service_with_a_module_that_checks_for_us_is_fine(service: Callable[..., list[Finding]]) -> None:
    (found,) = service("auth required pam_env.so\nauth required pam_sss.so\naccount required pam_sss.so\n")
    assert (found.outcome, "pam_sss" in found.said.what.english()) == (Outcome.OK, True)


def test_a_service_that_is_not_there_is_named(service: Callable[..., list[Finding]], tmp_path: Path) -> None:
    assert "“site”" in only(service(None), "portal.pam")


def test_a_service_in_which_nobody_checks_is_named(service: Callable[..., list[Finding]]) -> None:
    only(service("# auth required pam_sss.so\nauth required pam_permit.so\n"), "portal.pam")


@pytest.mark.parametrize("line", ["auth required pam_unix.so", "@include common-auth", "auth substack common-auth"])
def test_a_password_file_that_this_process_may_not_read_is_named(
    service: Callable[..., list[Finding]], line: str
) -> None:
    only(service(f"{line}\n"), "portal.pam", Outcome.DOUBTFUL)
    assert service(f"{line}\n", shadow=True)[0].outcome is Outcome.OK


@pytest.mark.parametrize(("way", "library", "check"), [("pam", "pam", "portal.pam"), ("ldap", "ldap", "portal.ldap")])
def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, way: str, library: str, check: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert "cannot be loaded" in only(look(monkeypatch, way), check)
