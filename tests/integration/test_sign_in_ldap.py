"""Signing in with a directory's password, against a real slapd over TLS."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client
from pydantic import SecretStr, ValidationError

from launcher import parts
from launcher.flows.submit import submit
from launcher.models import InteractiveSession, KeptPassword
from portal.accounts.models import Role, User
from portal.audit.models import AuditEvent
from portal.conf import Conf
from tests.conftest import RunningCluster
from tests.integration import directory as directories
from tests.integration.directory import Directory
from tests.integration.test_sign_in import post
from tests.settings import FOLDER
from tests.unit.test_conf import SECRET

pytest.importorskip("ldap", reason="python-ldap is not installed: it needs the headers of libldap and libsasl")
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.integration,
    pytest.mark.skipif(directories.SLAPD is None, reason="slapd is not installed"),
]

from ldap import ldapobject  # noqa: E402  # the same

from portal.accounts.ways.ldap import DirectoryAway, DirectoryPassword, DirectoryRefused  # noqa: E402  # what it needs may be missing

PASSWORD = "alice-in-the-directory"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    with directories.directory(tmp_path_factory.mktemp("directory")) as one:
        yield one


def conf_of(running: Directory, **changes: object) -> Conf:
    return Conf(_env_file=None, secret_key=SECRET, demo=False, **{**running.settings, **changes})  # type: ignore[arg-type, call-arg]  # settings by name


def way(running: Directory, **changes: object) -> DirectoryPassword:
    return DirectoryPassword(conf_of(running, **changes))


@pytest.fixture
def signed_by(running: Directory, site: Callable[..., None], demo_cluster: RunningCluster) -> Callable[..., None]:
    """The portal with this directory, and more settings."""

    def change(**values: object) -> None:
        settings = {**running.settings, **values}
        site(**{**settings, "ldap_bind_password": SecretStr(str(settings["ldap_bind_password"]))})

    return change


def test_a_right_password_gives_the_account_its_groups_and_its_name(running: Directory) -> None:
    who = way(running, ldap_claims="employeeType").check("alice", PASSWORD)
    assert who is not None
    assert (who.username, who.groups, who.display_name) == ("alice", ("hpc", "physics"), "Alice Demo")
    assert who.email == "alice@cluster.example"
    assert who.claims == {"employeeType": ("staff",)}


def test_the_account_is_spelt_as_the_directory_spells_it(running: Directory) -> None:
    who = way(running).check("ALICE", PASSWORD)
    assert who is not None
    assert who.username == "alice"


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("nobody", PASSWORD),
        ("*", PASSWORD),
        ("alice)(uid=*", PASSWORD),
        ("*)(uid=alice", PASSWORD),
        ("alice\0", PASSWORD),
        ("bob", "bob-in-the-directory"),
    ],
    ids=["wrong", "empty", "unknown", "star", "filter", "filter-2", "nul", "locked"],
)
def test_all_else_is_refused(running: Directory, username: str, password: str) -> None:
    assert way(running).check(username, password) is None


def test_start_tls_works_too(running: Directory) -> None:
    one = way(running, ldap_url=f"ldap://127.0.0.1:{running.port}", ldap_start_tls=True)
    assert one.check("alice", PASSWORD) is not None


def test_a_directory_with_another_authoritys_certificate_is_told_nothing(running: Directory, tmp_path: Path) -> None:
    directories.write_certificates(tmp_path)
    for changes in ({}, {"ldap_url": f"ldap://127.0.0.1:{running.port}", "ldap_start_tls": True}):
        with pytest.raises(DirectoryAway):
            way(running, ldap_ca_file=tmp_path / "ca.pem", **changes).check("alice", PASSWORD)


@pytest.mark.parametrize(("scheme", "start_tls"), [("ldap", False), ("ldap", True), ("ldaps", False)])
def test_a_directory_that_is_away_or_hangs_is_not_a_wrong_password(
    running: Directory, scheme: str, start_tls: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(DirectoryAway):
            way(running, ldap_url=f"{scheme}://127.0.0.1:{port}", ldap_start_tls=start_tls, ldap_seconds=1).check(
                "alice", PASSWORD
            )
        assert time.monotonic() - began < 60
    with pytest.raises(DirectoryAway):
        way(running, ldap_url=f"{scheme}://127.0.0.1:{port}", ldap_start_tls=start_tls).check("alice", PASSWORD)


def test_a_wrong_password_of_the_portal_itself_is_not_taken_for_the_persons(running: Directory) -> None:
    with pytest.raises(DirectoryRefused):
        way(running, ldap_bind_password="wrong").check("alice", PASSWORD)


def test_a_filter_that_fits_several_people_finds_nobody(running: Directory) -> None:
    assert way(running, ldap_user_filter="(|(uid=%(user)s)(sn=Demo))").check("alice", PASSWORD) is None


def test_somebody_signs_in_and_the_groups_decide_the_role(signed_by: Callable[..., None], client: Client) -> None:
    signed_by(administrator_groups=("physics",), allowed_groups=("hpc",))
    assert post(client, "alice", PASSWORD).status_code == 302
    user = User.objects.get(username="alice")
    assert user.role == Role.ADMINISTRATOR
    assert user.email == "alice@cluster.example"
    assert AuditEvent.objects.get(name="user.signed_in").data == {"way": "ldap"}


def test_who_is_in_no_allowed_group_reads_whom_to_ask(signed_by: Callable[..., None], client: Client) -> None:
    signed_by(allowed_groups=("chemistry",))
    assert post(client, "alice", PASSWORD).status_code == 403
    assert not User.objects.exists()


def test_root_of_the_directory_is_nobody_here(signed_by: Callable[..., None], client: Client) -> None:
    signed_by()
    assert post(client, "root", "root-in-the-directory").status_code != 302
    assert not User.objects.exists()


def test_an_entry_with_the_number_of_root_is_refused_whatever_another_way_says(
    signed_by: Callable[..., None], client: Client
) -> None:
    signed_by(auth=("ldap", "cluster"))
    assert b"administers the cluster" in post(client, "toor", "toor-in-the-directory").content
    assert b"Check both and try again" in post(client, "toor", "wrong").content
    assert not User.objects.exists()


def test_what_the_directory_says_is_in_the_log_and_the_password_is_not(
    signed_by: Callable[..., None], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    signed_by(ldap_bind_password="not-the-readers")
    post(client, "alice", PASSWORD)
    (said,) = [record.getMessage() for record in caplog.records if "sign_in_not_judged" in record.getMessage()]
    assert "ldap.bind" in said
    assert "Invalid credentials" in said
    assert PASSWORD not in caplog.text
    assert "not-the-readers" not in caplog.text


def test_a_wrong_and_a_locked_account_read_the_same(signed_by: Callable[..., None], client: Client) -> None:
    signed_by()
    for name, password in (("alice", "wrong"), ("bob", "bob-in-the-directory"), ("nobody", "x")):
        assert b"Check both and try again" in post(client, name, password).content
    causes = {event.data["cause"] for event in AuditEvent.objects.filter(name="user.sign_in_refused")}
    assert causes == {"password"}


def test_a_directory_that_is_away_is_said_and_uses_no_attempt_up(
    signed_by: Callable[..., None], client: Client
) -> None:
    signed_by(ldap_url="ldap://127.0.0.1:1")
    for _ in range(6):
        assert b"password cannot be checked" in post(client, "alice", PASSWORD).content
    signed_by()
    assert post(client, "alice", PASSWORD).status_code == 302


def test_an_account_that_the_directory_holds_back_reads_as_a_wrong_password(running: Directory) -> None:
    """Some directories have a code of their own for an account with too many tries."""
    assert way(running).check("carol", "any") is None


def test_a_password_that_was_handed_over_counts_whatever_the_directory_answers(
    signed_by: Callable[..., None], client: Client
) -> None:
    signed_by()
    codes = [post(client, "dora", "guess").status_code for _ in range(6)]
    assert codes == [200] * 5 + [429]


def test_an_unknown_account_costs_the_directory_as_many_questions(
    running: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the time of the answer would tell which accounts there are."""
    binds: list[str] = []
    real = ldapobject.SimpleLDAPObject.simple_bind_s
    monkeypatch.setattr(
        ldapobject.SimpleLDAPObject, "simple_bind_s", lambda *args: (binds.append(args[1]), real(*args))[1]
    )
    for name in ("alice", "nobody"):
        assert way(running).check(name, "wrong") is None
    assert len(binds) == 4


def test_what_no_record_can_hold_keeps_nobody_out(signed_by: Callable[..., None], client: Client) -> None:
    signed_by()
    assert post(client, "erin", "erin-in-the-directory").status_code == 302
    user = User.objects.get(username="erin")
    assert (user.email, user.display_name[:6], len(user.display_name)) == ("", "Erin x", 200)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ldap_url": "ldap://directory.example.org"}, "in the clear"),
        ({"ldap_url": ""}, "PORTAL_LDAP_URL"),
        ({"ldap_user_base": ""}, "PORTAL_LDAP_USER_BASE"),
        ({"ldap_user_filter": "(uid=alice)"}, "PORTAL_LDAP_USER_FILTER"),
        ({"ldap_user_filter": "(uid=%(user)s)(x=%s)"}, "PORTAL_LDAP_USER_FILTER"),
        ({"ldap_bind_password": ""}, "PORTAL_LDAP_BIND_PASSWORD"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    running: Directory, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        conf_of(running, **changes)


def test_who_signed_in_by_the_directory_connects_the_cluster_account_and_launches(
    signed_by: Callable[..., None], demo_cluster: RunningCluster, client: Client
) -> None:
    signed_by()
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(credential="password"), encoding="utf-8")
    parts.forget()
    asked = {"cores": "1", "memory": "1gb", "hours": "1"}
    try:
        assert post(client, "alice", PASSWORD).status_code == 302
        assert not KeptPassword.objects.exists()  # the directory's opens nothing on the cluster
        page = client.post("/launch/jupyter/", asked)
        assert (page.status_code, InteractiveSession.objects.count()) == (422, 0)
        assert "/profile/clusters/demo/connect/?next=" in page.content.decode()
        client.post("/profile/clusters/demo/connect/", {"password": demo_cluster.password("alice")})
        assert client.post("/launch/jupyter/", asked).status_code == 302
        submit(InteractiveSession.objects.get().pk)
        assert InteractiveSession.objects.get().job_id
    finally:
        parts.hands_loop().run(parts.hands().pool.close_user("demo", "alice"), 10)
        parts.forget()
