"""Connecting one's account on the cluster after a sign-in that gave the portal nothing to act with.

Real pages, real OpenSSH, real Valkey; a real OpenID provider on loopback signs one of them in. What LDAP gives is in
``test_sign_in_ldap``, what a cluster asks beyond the password in ``test_questions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import connection as database
from django.test import Client

from launcher import cards, keyring, parts
from launcher.flows.launch import launch
from launcher.models import EnrolledKey, InteractiveSession, KeptPassword
from launcher.services import LaunchRefused
from portal.accounts import connecting
from portal.accounts.models import Role, User
from portal.accounts.ways import openid_provider
from portal.clock import now
from tests.conftest import _signed_in
from tests.integration.openid_peer import CLIENT, running_peer
from tests.integration.openssh import PASSWORD, OpenSSH, needs_openssh, openssh
from tests.integration.openssh_portal import events, forget_connections, leave, whoami, write_clusters
from tests.settings import FOLDER

pytestmark = [*needs_openssh, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey")]

Site = Callable[..., None]
CONNECT = "/profile/clusters/hpc/connect/"
POINTER = f'href="{CONNECT}?next='


@pytest.fixture(scope="module")
def _sshd(user_ca: Path) -> Iterator[OpenSSH]:
    forget_connections()  # a pool of this module's own
    with openssh(user_ca.with_suffix("")) as host:
        yield host
    forget_connections()


@pytest.fixture
def sshd(_sshd: OpenSSH, site: Site) -> Iterator[OpenSSH]:
    """A cluster, and a portal whose people sign in by OpenID Connect alone."""
    _sshd.mend()
    site(auth=("openid",), openid_client_id=CLIENT, openid_issuer="http://127.0.0.1:1")
    yield _sshd
    for username in ("alice", "bob"):
        leave(username)
    parts.forget()


@pytest.fixture
def by_key(sshd: OpenSSH) -> OpenSSH:
    """A cluster that knows enrolled keys."""
    write_clusters(sshd, credential="enrolled-key")
    return sshd


@pytest.fixture
def by_password(sshd: OpenSSH) -> OpenSSH:
    """A cluster that knows passwords alone."""
    write_clusters(sshd, credential="password")
    return sshd


@pytest.fixture
def me(db: None) -> Client:
    """Alice, signed in by a way that is not the cluster's."""
    return _signed_in(User.objects.create(username="alice", password="!"))


def connect(client: Client, password: str = PASSWORD, **more: str) -> str:
    """Where it leads, or the page."""
    answer = client.post(CONNECT, {"password": password, **more})
    return answer.headers.get("Location") or answer.content.decode()


def acts_as(username: str = "alice") -> str:
    """Who the portal is on the cluster over a connection that is made now."""
    leave(username)
    return whoami(username)


def unreachable(state: str, code: str = "") -> InteractiveSession:
    """A session of alice's that the portal cannot look after, and why."""
    return InteractiveSession.objects.create(
        owner=User.objects.get(username="alice"),
        username="alice",
        cluster="hpc",
        app="jupyter",
        state=state,
        created_at=now(),
        unreachable_since=now(),
        unreachable_code=code,
        choices={"cores": 1, "memory_mib": 1024, "walltime_seconds": 3600, "gpus": 0, "queue": ""},
    )


def page(client: Client, path: str = "/profile/") -> str:
    return client.get(path).content.decode()


def test_who_signed_in_by_openid_connects_and_the_portal_can_act(by_key: OpenSSH, site: Site, client: Client) -> None:
    with running_peer() as peer:
        site(openid_issuer=peer.issuer)
        openid_provider.forget()
        address = client.post("/sign-in/openid/").context["address"]
        asked = dict(part.split("=", 1) for part in address.split("?", 1)[1].split("&"))
        peer.nonce = asked["nonce"]
        client.get("/sign-in/openid/answer/", {"code": "c", "state": asked["state"]})
        openid_provider.forget()
    assert POINTER in page(client, "/")
    assert connect(client, next="/launch/jupyter/") == "/launch/jupyter/"
    assert acts_as() == "alice"
    assert POINTER not in page(client, "/launch/jupyter/")
    key = EnrolledKey.objects.get()
    assert events("credential.enrolled") == [{"cluster": "hpc", "fingerprint": key.fingerprint}]


def test_a_launch_is_refused_until_then_and_the_form_shows_where_to_connect(by_key: OpenSSH, me: Client) -> None:
    with pytest.raises(LaunchRefused) as caught:
        launch(user=User.objects.get(), app_id="jupyter", raw={"cores": 1}, address="")
    assert caught.value.code == "launch.not_connected.enrolled-key"
    assert f"{POINTER}%2Flaunch%2Fjupyter%2F" in page(me, "/launch/jupyter/")


def test_the_page_of_a_session_shows_where_to_connect_to_its_owner_alone(by_key: OpenSSH, me: Client) -> None:
    session = unreachable("submitting")
    assert "Connect your cluster account so that the portal can do it" in cards.card_of(session).state_text
    admin = _signed_in(User.objects.create(username="admin", password="!", role=Role.ADMINISTRATOR))
    assert POINTER in page(me, f"/sessions/{session.pk}/")
    assert POINTER not in page(admin, f"/sessions/{session.pk}/")


def test_a_session_whose_key_is_refused_shows_where_to_connect(by_key: OpenSSH, me: Client) -> None:
    connect(me)
    session = unreachable("ready", "ssh.key_refused")
    assert POINTER in page(me, f"/sessions/{session.pk}/")


def test_a_launch_that_fails_for_the_key_shows_where_to_connect(by_key: OpenSSH, me: Client) -> None:
    connect(me)
    by_key.keys_file().write_bytes(b"")
    leave()
    form = {"cores": "1", "memory": "1gb", "hours": "1", "folder": "work"}  # a folder makes the portal look
    answer = me.post("/launch/jupyter/", form)
    assert answer.status_code == 422
    assert POINTER in answer.content.decode()


def test_the_account_is_that_of_who_is_signed_in_whatever_the_form_says(by_key: OpenSSH, me: Client) -> None:
    connect(me, username="bob", user="bob", account="bob")
    assert [key.username for key in EnrolledKey.objects.all()] == ["alice"]


def test_a_wrong_password_is_told_counted_and_recorded(by_key: OpenSSH, me: Client) -> None:
    for _ in range(5):
        assert "did not accept this password" in connect(me, "wrong")
    before = by_key.log.count("Failed password for alice")
    assert me.post(CONNECT, {"password": PASSWORD}).status_code == 429
    assert by_key.log.count("Failed password for alice") == before == 5
    found = events("user.sign_in_refused")
    assert found == [{"way": "connect", "cause": "password"}] * 5 + [{"way": "connect", "cause": "throttled"}]
    assert not EnrolledKey.objects.exists()


def test_tries_to_sign_in_and_to_connect_count_together(by_key: OpenSSH, site: Site, me: Client) -> None:
    site(auth=("cluster",))
    for _ in range(5):
        Client().post("/sign-in/", {"username": "alice", "password": "wrong"})
    assert me.post(CONNECT, {"password": PASSWORD}).status_code == 429


def test_an_expired_account_is_refused(by_key: OpenSSH, me: Client) -> None:
    by_key.expire()
    assert "did not accept this password" in connect(me)


def test_what_is_in_the_way_on_the_cluster_is_told_on_the_page(by_key: OpenSSH, me: Client) -> None:
    by_key.home().chmod(0o500)
    answer = me.post(CONNECT, {"password": PASSWORD})
    assert answer.status_code == 422
    assert "could not write ~/.ssh/authorized_keys" in answer.content.decode()


def test_to_connect_is_no_proof_for_administration(by_key: OpenSSH) -> None:
    client = _signed_in(User.objects.create(username="alice", password="!", role=Role.ADMINISTRATOR))
    session = client.session
    session["proved_at"] = 1.0
    session.save()
    connect(client)
    assert EnrolledKey.objects.exists()
    assert client.get("/profile/second-steps/app/").status_code == 302


def test_an_operator_who_is_not_connected_keeps_nobody_else_from_it(sshd: OpenSSH, me: Client) -> None:
    write_clusters(sshd, credential="enrolled-key", operator="bob")
    assert connect(me) == "/profile/"
    assert acts_as() == "alice"


def test_an_account_is_connected_on_another_cluster_than_the_one_people_sign_in_at(
    by_key: OpenSSH, site: Site, me: Client
) -> None:
    other = (FOLDER / "clusters.toml").read_text().replace("clusters.hpc", "clusters.old").replace("workq", "batch")
    with (FOLDER / "clusters.toml").open("a") as file:
        file.write(other.replace(str(by_key.port), "1"))
    parts.forget()
    site(auth=("cluster",), auth_cluster="old")
    assert connect(me) == "/profile/"
    assert [key.cluster for key in EnrolledKey.objects.all()] == ["hpc"]


def test_nobody_connects_without_being_signed_in(by_key: OpenSSH, client: Client) -> None:
    assert connect(client).startswith("/sign-in/")
    assert not EnrolledKey.objects.exists()


def test_another_site_is_no_place_to_go_on_to(by_key: OpenSSH, me: Client) -> None:
    assert connect(me, next="https://evil.example/") == "/profile/"


def test_the_profile_shows_the_three_states_and_revoke_works(by_key: OpenSSH, me: Client) -> None:
    assert "Not connected" in page(me)
    connect(me)
    shown = page(me)
    assert "Not connected" not in shown
    assert "Connected" in shown
    key = EnrolledKey.objects.get()
    assert key.fingerprint in shown
    said = me.post(f"/profile/keys/{key.pk}/revoke/", follow=True).content.decode()
    assert "its line was removed from the cluster" in said
    assert "You took the portal&#x27;s key back." in said or "You took the portal's key back." in said
    assert by_key.keys_file().read_bytes() == b""


def test_who_revoked_can_connect_again(by_key: OpenSSH, me: Client) -> None:
    connect(me)
    me.post(f"/profile/keys/{EnrolledKey.objects.get().pk}/revoke/")
    connect(me)
    assert acts_as() == "alice"


def test_to_connect_again_puts_a_line_back_that_was_taken_out(by_key: OpenSSH, me: Client) -> None:
    connect(me)
    by_key.keys_file().write_bytes(b"")
    connect(me)
    assert acts_as() == "alice"
    assert EnrolledKey.objects.count() == 1


def test_a_password_is_kept_until_sign_out(by_password: OpenSSH, me: Client) -> None:
    assert "Not connected" in page(me)
    connect(me)
    assert acts_as() == "alice"
    assert "until you sign out" in page(me)
    assert events("credential.password_kept") == [{"cluster": "hpc"}]
    me.post("/sign-out/")
    assert not keyring.has_password("hpc", "alice")


def test_a_password_that_is_given_again_takes_the_place_of_the_first(by_password: OpenSSH, me: Client) -> None:
    connect(me)
    connect(me)
    assert KeptPassword.objects.count() == 1


def test_there_is_nothing_to_connect_where_the_portal_has_certificates(sshd: OpenSSH, me: Client) -> None:
    write_clusters(sshd, credential="certificate")
    assert me.get(CONNECT).status_code == 404
    assert "Your account on the cluster" not in page(me)
    assert POINTER not in page(me, "/")


def test_a_cluster_that_does_not_exist_has_no_such_page(by_key: OpenSSH, me: Client) -> None:
    assert me.get("/profile/clusters/other/connect/").status_code == 404


def test_a_password_that_arrives_after_the_sign_out_is_not_kept(by_password: OpenSSH, me: Client) -> None:
    web_session_key = me.session.session_key or ""
    me.post("/sign-out/")
    user = User.objects.get()
    trouble = connecting.connect(
        user=user,
        cluster=parts.clusters()["hpc"],
        password=PASSWORD,
        web_session_key=web_session_key,
        address="",
    )
    assert trouble == ""
    assert not KeptPassword.objects.exists()
    assert events("credential.password_kept") == []


def test_the_home_page_bears_a_clusters_file_that_is_wrong(by_key: OpenSSH, me: Client) -> None:
    (FOLDER / "clusters.toml").write_text("not = a clusters file")
    parts.forget()
    assert me.get("/").status_code == 200


def test_what_was_kept_and_sealed_is_nowhere_in_clear(by_password: OpenSSH, me: Client) -> None:
    connect(me)
    with database.cursor() as cursor:
        for table in database.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the database's own names
            assert PASSWORD not in repr(cursor.fetchall()), table
    assert PASSWORD not in repr(dict(me.session))
    assert PASSWORD.encode() not in cache.get(KeptPassword.objects.get().cache_key)
