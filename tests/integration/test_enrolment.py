"""Signing in where the portal has no certificates: what is kept afterwards, what works with it, how it is taken back.

Real pages, real OpenSSH, real Valkey; the workers' part is driven by hand.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import connection as database
from django.test import Client
from django.urls import reverse

from launcher import cards, keyring, leaving, parts, services
from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.flows import enrolment
from launcher.flows.launch import launch
from launcher.flows.submit import submit
from launcher.models import EnrolledKey, InteractiveSession, KeptPassword
from launcher.parts import hands, hands_loop
from launcher.services import LaunchRefused
from launcher.ssh.credentials import CertificateCredential
from launcher.ssh.errors import LoginRefused, SSHError
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.conftest import _signed_in
from tests.integration.openssh import PASSWORD, OpenSSH, needs_openssh, openssh
from tests.integration.openssh_portal import (
    OTHER_KEY,
    events,
    forget_connections,
    leave,
    sign_in,
    whoami,
    words,
    write_clusters,
)
from tests.waiting import wait_for

pytestmark = [*needs_openssh, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey")]


@pytest.fixture(scope="module")
def _sshd(user_ca: Path) -> Iterator[OpenSSH]:
    parts.hands.cache_clear()  # a pool of this module's own, which follows the news until the end of it
    with openssh(user_ca.with_suffix("")) as host:
        yield host
    forget_connections()


@pytest.fixture
def sshd(_sshd: OpenSSH) -> Iterator[OpenSSH]:
    _sshd.mend()
    yield _sshd
    for username in ("alice", "bob"):
        leave(username)
    wait_for(lambda: not hands().pool.health("hpc").retry_in_seconds, what="the pool to try the cluster again")


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


def notices(client: Client) -> str:
    return client.get(reverse("accounts:profile")).content.decode()


def connections() -> int:
    return hands().pool.health("hpc").connections


def launching() -> None:
    user = User.objects.get(username="alice")
    launch(user=user, app_id="jupyter", raw={"cores": 1, "memory": "1gb", "hours": 1}, address="")


# enrolled keys


def test_the_first_sign_in_enrols_a_key_that_works_afterwards(by_key: OpenSSH) -> None:
    sign_in()
    leave()
    assert whoami() == "alice"
    key = EnrolledKey.objects.get()
    assert (key.username, key.cluster) == ("alice", "hpc")
    assert key.last_used_at is not None
    assert key.public_key.split()[1] in by_key.keys_file().read_text()
    assert events("credential.enrolled") == [{"cluster": "hpc", "fingerprint": key.fingerprint}]


def test_the_private_half_and_the_password_are_nowhere_in_clear(by_key: OpenSSH) -> None:
    sign_in()
    with database.cursor() as cursor:
        for table in database.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the database's own names
            text = repr(cursor.fetchall())
            assert "OPENSSH PRIVATE KEY" not in text, table
            assert PASSWORD not in text, table


def test_a_second_sign_in_enrols_no_second_key(by_key: OpenSSH) -> None:
    sign_in()
    sign_in()
    assert EnrolledKey.objects.count() == 1
    assert by_key.keys_file().read_text().count("footbridge:") == 1


def test_a_line_that_the_user_took_out_is_back_after_the_next_sign_in(by_key: OpenSSH) -> None:
    sign_in()
    by_key.keys_file().write_bytes(b"")
    sign_in()
    leave()
    assert whoami() == "alice"


def test_sign_ins_at_the_same_time_leave_one_key_and_one_line(by_key: OpenSSH) -> None:
    threads = [threading.Thread(target=_sign_in_elsewhere) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert EnrolledKey.objects.count() == 1
    assert by_key.keys_file().read_text().count("footbridge:") == 1
    assert len(events("credential.enrolled")) == 1


def _sign_in_elsewhere() -> None:
    try:
        sign_in()
    finally:
        database.close()


def test_a_full_home_does_not_keep_anybody_out_and_is_told(by_key: OpenSSH) -> None:
    page = notices(sign_in("bob"))
    assert "Your home folder on the cluster is full" in page
    assert not EnrolledKey.objects.exists()


def test_a_read_only_home_is_told(by_key: OpenSSH) -> None:
    by_key.home().chmod(0o500)
    assert "could not write ~/.ssh/authorized_keys" in notices(sign_in())


def test_a_key_that_the_cluster_does_not_take_is_told_and_removed_again(by_key: OpenSSH) -> None:
    by_key.home().chmod(0o777)  # sshd's StrictModes
    assert "the cluster does not accept it" in notices(sign_in())
    assert by_key.keys_file().read_bytes() == b""
    assert not EnrolledKey.objects.exists()


def test_a_revoked_key_is_used_no_more_and_its_line_is_gone(by_key: OpenSSH) -> None:
    client = sign_in()
    leave()
    whoami()
    key = EnrolledKey.objects.get()
    page = client.post(reverse("accounts:key-revoke", args=[key.pk]), follow=True).content.decode()
    assert "its line was removed from the cluster" in page
    assert by_key.keys_file().read_bytes() == b""
    wait_for(lambda: connections() == 0, what="the pool to close alice's connections")
    with pytest.raises(LoginRefused) as caught:
        whoami()
    assert caught.value.code == "ssh.not_enrolled"
    names = AuditEvent.objects.order_by("sequence").values_list("name", flat=True)
    assert [name for name in names if name.startswith("credential.")] == [
        "credential.enrolled",
        "credential.revoked",
        "credential.line_removed",
    ]
    key.refresh_from_db()
    assert bytes(key.private_key_encrypted) == b""


def test_launching_after_revoking_says_to_connect_first(by_key: OpenSSH) -> None:
    client = sign_in()
    client.post(reverse("accounts:key-revoke", args=[EnrolledKey.objects.get().pk]))
    with pytest.raises(LaunchRefused) as caught:
        launching()
    assert caught.value.code == "launch.not_connected.enrolled-key"
    page = client.post(reverse("launcher:launch", args=["jupyter"]), {"cores": "1"}).content.decode()
    assert "Connect your cluster account on your profile page, then launch" in page


def test_signing_in_after_revoking_enrols_another_key(by_key: OpenSSH) -> None:
    client = sign_in()
    client.post(reverse("accounts:key-revoke", args=[EnrolledKey.objects.get().pk]))
    sign_in()
    wait_for(lambda: parts.clusters() and whoami() == "alice", what="the new key")
    assert EnrolledKey.objects.filter(revoked_at__isnull=True).count() == 1


def test_the_line_of_a_key_that_was_revoked_during_an_outage_goes_later(by_key: OpenSSH) -> None:
    client = sign_in()
    key = EnrolledKey.objects.get()
    write_clusters(by_key, credential="enrolled-key", login_hosts=["127.0.0.1:1"])
    page = client.post(reverse("accounts:key-revoke", args=[key.pk]), follow=True).content.decode()
    assert "will be removed there later" in page
    assert "revoked; its line will be removed from the cluster" in page
    assert key.public_key.split()[1] in by_key.keys_file().read_text()
    write_clusters(by_key, credential="enrolled-key")
    enrolment.remove_lines()
    enrolment.remove_lines()
    assert by_key.keys_file().read_bytes() == b""
    assert events("credential.line_removed") == [{"cluster": "hpc", "fingerprint": key.fingerprint, "removed": True}]


def test_a_key_whose_line_cannot_be_removed_for_a_week_is_destroyed(by_key: OpenSSH) -> None:
    client = sign_in()
    key = EnrolledKey.objects.get()
    by_key.lock()
    client.post(reverse("accounts:key-revoke", args=[key.pk]))
    enrolment.remove_lines()
    assert not events("credential.line_removed")
    EnrolledKey.objects.update(revoked_at=now() - dt.timedelta(days=8))
    enrolment.remove_lines()
    assert events("credential.line_removed") == [{"cluster": "hpc", "fingerprint": key.fingerprint, "removed": False}]
    key.refresh_from_db()
    assert bytes(key.private_key_encrypted) == b""


def test_nobody_revokes_another_persons_key(by_key: OpenSSH) -> None:
    sign_in()
    key = EnrolledKey.objects.get()
    other = User.objects.create(username="bob", password="!")
    assert services.revoke_key(user=other, key_id=key.pk, address="") is None
    key.refresh_from_db()
    assert key.revoked_at is None


def test_a_locked_account_is_refused_and_that_is_recorded(by_key: OpenSSH) -> None:
    sign_in()
    leave()
    by_key.lock()
    with pytest.raises(LoginRefused) as caught:
        whoami()
    assert caught.value.code == "ssh.key_refused"
    assert events("credential.refused") == [
        {"cluster": "hpc", "credential": "enrolled-key", "cause": "ssh.key_refused"}
    ]


def test_the_profile_shows_the_key(by_key: OpenSSH) -> None:
    page = notices(sign_in())
    assert EnrolledKey.objects.get().fingerprint in page
    assert "Test cluster" in page


# passwords


def test_the_password_of_somebody_signed_in_works_in_the_workers(by_password: OpenSSH) -> None:
    sign_in()
    leave()
    assert whoami() == "alice"
    leave()
    assert whoami() == "alice"


def test_the_password_is_in_clear_in_neither_database_nor_cache(by_password: OpenSSH) -> None:
    client = sign_in()
    with database.cursor() as cursor:
        for table in database.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the database's own names
            assert PASSWORD not in repr(cursor.fetchall()), table
    assert PASSWORD.encode() not in cache.get(KeptPassword.objects.get().cache_key)
    assert PASSWORD not in repr(dict(client.session))


def test_sign_out_takes_the_password_away_and_closes_what_it_opened(by_password: OpenSSH) -> None:
    client = sign_in()
    leave()
    whoami()
    kept = KeptPassword.objects.get()
    client.post(reverse("accounts:sign-out"))
    assert not KeptPassword.objects.exists()
    assert cache.get(kept.cache_key) is None
    wait_for(lambda: connections() == 0, what="the pool to close alice's connections")
    with pytest.raises(LoginRefused) as caught:
        whoami()
    assert caught.value.code == "ssh.no_password"


def test_another_browser_that_is_still_signed_in_goes_on(by_password: OpenSSH) -> None:
    first, _ = sign_in(), sign_in()
    first.post(reverse("accounts:sign-out"))
    leave()
    assert whoami() == "alice"


def test_a_password_that_was_changed_is_dropped_at_the_first_refusal(by_password: OpenSSH) -> None:
    sign_in()
    leave()
    by_password.change_password("another horse")
    before = by_password.log.count("Failed password for alice")
    with pytest.raises(LoginRefused):
        whoami()
    leave()  # and forget the back-off
    with pytest.raises(LoginRefused) as caught:
        whoami()
    assert caught.value.code == "ssh.no_password"
    assert by_password.log.count("Failed password for alice") - before == 1
    assert not KeptPassword.objects.exists()
    assert events("credential.refused") == [
        {"cluster": "hpc", "credential": "password", "cause": "ssh.password_refused"}
    ]


def test_processes_that_connect_at_once_try_a_wrong_password_once(by_password: OpenSSH) -> None:
    sign_in()
    leave()
    by_password.change_password("another horse")
    before = by_password.log.count("Failed password for alice")
    pools = [parts.new_pool() for _ in range(4)]  # as many processes have

    async def all_at_once() -> list[object]:
        cluster = parts.clusters()["hpc"]
        found = await asyncio.gather(*(pool.connection(cluster, "alice") for pool in pools), return_exceptions=True)
        for pool in pools:
            await pool.aclose()
        return list(found)

    assert all(isinstance(found, SSHError) for found in hands_loop().run(all_at_once(), 30))
    assert by_password.log.count("Failed password for alice") - before == 1


def test_launching_without_a_password_says_to_connect_first(by_password: OpenSSH) -> None:
    client = sign_in()
    client.post(reverse("accounts:sign-out"))
    with pytest.raises(LaunchRefused) as caught:
        launching()
    assert caught.value.code == "launch.not_connected.password"


def test_a_card_says_to_connect_so_that_the_portal_can_look(by_password: OpenSSH) -> None:
    client = sign_in()
    user = User.objects.get(username="alice")
    session = InteractiveSession(
        owner=user,
        username="alice",
        cluster="hpc",
        app="jupyter",
        state="ready",
        created_at=now(),
        choices=LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600).as_dict(),
    )
    session.unreachable_since = now()
    assert "does not answer" in cards.card_of(session, user).state_text
    client.post(reverse("accounts:sign-out"))
    assert "so that the portal can look" in cards.card_of(session, user).state_text


def test_a_password_ends_with_its_portal_session(by_password: OpenSSH) -> None:
    sign_in()
    KeptPassword.objects.update(expires_at=now())
    services.drop_expired_passwords()
    assert not keyring.has_password("hpc", "alice")
    assert not KeptPassword.objects.exists()


# host keys


def test_a_changed_host_key_is_recorded_and_shown_to_administrators_alone(sshd: OpenSSH) -> None:
    write_clusters(sshd, host_keys=[OTHER_KEY])
    with pytest.raises(SSHError):
        whoami()
    assert events("cluster.host_key_rejected") == [{"cluster": "hpc", "login_host": f"127.0.0.1:{sshd.port}"}]
    for username, role, shown in (("admin", "administrator", True), ("alice", "user", False)):
        client = _signed_in(User.objects.create(username=username, password="!", role=role))
        assert ("shows a key that is not in the clusters file" in notices(client)) is shown


def test_a_sign_in_at_a_host_with_another_key_is_refused_and_recorded(sshd: OpenSSH) -> None:
    write_clusters(sshd, host_keys=[OTHER_KEY])
    answer = Client().post(reverse("accounts:sign-in"), {"username": "alice", "password": PASSWORD})
    assert answer.status_code == 200
    assert "shows another key than the one the administrators wrote down, so your password" in words(answer)
    assert len(events("cluster.host_key_rejected")) == 1
    assert [event["cause"] for event in events("user.sign_in_refused")] == ["ssh.host_key_changed"]


# what the owner of a session reads, and what is recorded


SHUT_OUT = {
    "certificate": "The cluster did not let the portal in with your account.",
    "enrolled-key": "The cluster does not accept the portal's key for your account any more.",
}


def sent_after(client: Client, spoil: Callable[[], object]) -> tuple[InteractiveSession, str]:
    """A session of alice that is sent once something has changed on the cluster, and its page."""
    launching()
    spoil()
    leave()
    session = InteractiveSession.objects.get()
    submit(session.id)
    session.refresh_from_db()
    return session, words(client.get(reverse("launcher:session", args=[session.id])))


@pytest.mark.parametrize("credential", ["certificate", "enrolled-key", "password"])
def test_a_session_waits_in_words_while_the_login_host_is_another(sshd: OpenSSH, credential: str) -> None:
    write_clusters(sshd, credential=credential)
    client = sign_in()
    session, page = sent_after(client, lambda: write_clusters(sshd, credential=credential, host_keys=[OTHER_KEY]))
    assert (session.state, session.unreachable_code) == ("submitting", "ssh.host_key_changed")
    assert "shows another key than the one the administrators wrote down" in page
    assert "Not let in" not in page
    assert events("cluster.host_key_rejected") == [{"cluster": "hpc", "login_host": f"127.0.0.1:{sshd.port}"}]


def test_a_key_whose_line_the_cluster_lost_is_told_with_the_way_back(by_key: OpenSSH) -> None:
    session, page = sent_after(sign_in(), lambda: by_key.keys_file().write_text(""))
    assert (session.state, session.end_code) == ("ended", "ssh.key_refused")
    assert "does not accept the portal's key for your account any more." in page
    assert "Connect your cluster account on your profile page, then launch again." in page
    assert [event["cause"] for event in events("credential.refused")] == ["ssh.key_refused"]


@pytest.mark.parametrize("spoil", [OpenSSH.lock, OpenSSH.expire])
@pytest.mark.parametrize("credential", ["certificate", "enrolled-key"])
def test_a_closed_account_ends_the_session_in_words(
    sshd: OpenSSH, credential: str, spoil: Callable[[OpenSSH], None]
) -> None:
    write_clusters(sshd, credential=credential)
    session, page = sent_after(sign_in(), lambda: spoil(sshd))
    assert session.state == "ended"
    assert SHUT_OUT[credential] in page
    assert [event["credential"] for event in events("credential.refused")] == [credential]


@pytest.mark.parametrize("credential", ["certificate", "enrolled-key", "password"])
def test_who_is_shut_out_is_signed_out_and_reads_whom_to_ask(sshd: OpenSSH, credential: str) -> None:
    write_clusters(sshd, credential=credential)
    client = sign_in()
    whoami()
    admin = User.objects.create(username="admin", password="!", role="administrator")
    leaving.disable(user=User.objects.get(username="alice"), actor=admin, address="")
    assert client.get("/").status_code == 302
    assert events("user.disabled") == [{"username": "alice"}]
    answer = Client().post(reverse("accounts:sign-in"), {"username": "alice", "password": PASSWORD})
    assert answer.status_code == 403
    assert "is not among those that may use this portal" in words(answer)
    assert [event["cause"] for event in events("user.sign_in_refused")] == ["disabled"]


# what a cluster refuses, where the portal has certificates


@pytest.mark.parametrize("spoil", [OpenSSH.lock, OpenSSH.expire])
def test_an_account_that_is_locked_or_ended_cannot_sign_in_with_its_right_password(
    sshd: OpenSSH, spoil: Callable[[OpenSSH], None]
) -> None:
    write_clusters(sshd, credential="certificate")
    spoil(sshd)
    answer = Client().post(reverse("accounts:sign-in"), {"username": "alice", "password": PASSWORD})
    assert "The cluster did not accept this account name and password." in answer.content.decode()
    assert not User.objects.exists()
    assert [event["cause"] for event in events("user.sign_in_refused")] == ["password"]


def test_root_is_refused_before_the_cluster_is_asked(sshd: OpenSSH) -> None:
    write_clusters(sshd, credential="certificate")
    before = sshd.log.count("Connection from")
    Client().post(reverse("accounts:sign-in"), {"username": "root", "password": PASSWORD})
    assert [event["cause"] for event in events("user.sign_in_refused")] == ["name"]
    assert sshd.log.count("Connection from") == before


@pytest.mark.parametrize("spoil", ["wrong_principal", "ran_out"])
def test_a_certificate_that_the_cluster_does_not_take_is_recorded(
    sshd: OpenSSH, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    write_clusters(sshd, credential="certificate")
    real = CertificateCredential.options

    async def spoilt(self: CertificateCredential, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        if spoil == "wrong_principal":
            return await real(self, cluster, "bob", reason)
        return await real(dataclasses.replace(self, lifetime_seconds=-10), cluster, username, reason)

    monkeypatch.setattr(CertificateCredential, "options", spoilt)
    with pytest.raises(LoginRefused):
        whoami()
    assert events("credential.refused") == [
        {"cluster": "hpc", "credential": "certificate", "cause": "ssh.login_refused"}
    ]
