"""Whoever the cluster or the portal turns away reads why, and what to do, on the page they look at; and the audit log
holds it. Real pages in front of real OpenSSH, one table: what is wrong, where it is met, what is read and kept.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from launcher import leaving, parts
from launcher.catalog import LaunchChoices
from launcher.clusters import Cluster
from launcher.flows.cancel import cancel
from launcher.flows.poll import poll
from launcher.flows.submit import submit
from launcher.models import EnrolledKey, InteractiveSession
from launcher.ssh.credentials import CertificateCredential
from launcher.states import SessionState
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from portal.clock import now
from tests.integration.openssh import PASSWORD, OpenSSH, needs_openssh, openssh
from tests.integration.openssh_portal import OTHER_KEY, forget_connections, leave, sign_in, words, write_clusters

pytestmark = [*needs_openssh, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey")]

STRANGER = "The cluster's login computer shows another key than the one the administrators wrote down"
KEY_REFUSED = "The cluster does not accept the portal's key for your account any more. Connect your cluster account"
PASSWORD_REFUSED = "The cluster does not accept the password that the portal had of you any more. Connect your cluster"
NOT_LET_IN = "The cluster did not let the portal in with your account."
NO_KEY = "The portal has no key of yours for the cluster. Connect your cluster account"
NO_PASSWORD = "The portal does not have your password for the cluster. Connect your cluster account"
AS_ALICE = CertificateCredential.options


@pytest.fixture(scope="module")
def _sshd(user_ca: Path) -> Iterator[OpenSSH]:
    parts.hands.cache_clear()
    with openssh(user_ca.with_suffix("")) as host:
        yield host
    parts.hands.cache_clear()


@pytest.fixture
def sshd(_sshd: OpenSSH) -> Iterator[OpenSSH]:
    _sshd.mend()
    yield _sshd
    forget_connections()


@dataclasses.dataclass(frozen=True)
class Scene:
    """Alice's browser, before a cluster that knows one kind of credential."""

    sshd: OpenSSH
    credential: str
    browser: Client
    monkeypatch: pytest.MonkeyPatch

    def clusters(self, **options: object) -> None:
        write_clusters(self.sshd, credential=self.credential, **options)


# what is wrong


def nothing(scene: Scene) -> None:
    """All is well."""


def another_host_key(scene: Scene) -> None:
    scene.clusters(host_keys=[OTHER_KEY])


def locked(scene: Scene) -> None:
    scene.sshd.lock()


def ended(scene: Scene) -> None:
    scene.sshd.expire()


def password_changed(scene: Scene) -> None:
    scene.sshd.change_password("another horse")


def line_taken_out(scene: Scene) -> None:
    scene.sshd.keys_file().write_bytes(b"")


def folder_taken_away(scene: Scene) -> None:
    shutil.rmtree(scene.sshd.keys_file().parent)


def revoked(scene: Scene) -> None:
    key = EnrolledKey.objects.get(revoked_at__isnull=True)
    page = words(scene.browser.post(reverse("accounts:key-revoke", args=[key.pk]), follow=True))
    assert "its line was removed from the cluster" in page
    assert scene.sshd.keys_file().read_bytes() == b""


def signed_out(scene: Scene) -> None:
    """In this browser, which is the only one; the person comes back by another door."""
    scene.browser.post(reverse("accounts:sign-out"))
    scene.browser.force_login(User.objects.get(username="alice"))


def disabled(scene: Scene) -> None:
    admin = User.objects.create(username="admin", password="!", role="administrator")
    leaving.disable(user=User.objects.get(username="alice"), actor=admin, address="")


def wrong_principal(scene: Scene) -> None:
    async def options(
        self: CertificateCredential, cluster: Cluster, username: str, reason: str
    ) -> Mapping[str, object]:
        return await AS_ALICE(self, cluster, "bob", reason)

    scene.monkeypatch.setattr(CertificateCredential, "options", options)


def ran_out(scene: Scene) -> None:
    async def options(
        self: CertificateCredential, cluster: Cluster, username: str, reason: str
    ) -> Mapping[str, object]:
        return await AS_ALICE(dataclasses.replace(self, lifetime_seconds=-10), cluster, username, reason)

    scene.monkeypatch.setattr(CertificateCredential, "options", options)


# where it is met


def signing_in(scene: Scene, username: str = "alice") -> HttpResponse:
    """The page after a right password was sent."""
    form = {"username": username, "password": PASSWORD}
    return Client().post(reverse("accounts:sign-in"), form)  # type: ignore[return-value]  # Django's own test type


def signing_in_as_root(scene: Scene) -> HttpResponse:
    return signing_in(scene, "root")


def coming_back(scene: Scene) -> HttpResponse:
    """The front page, in the browser that was signed in."""
    answer = scene.browser.get("/", follow=True)
    assert answer.redirect_chain == [(f"{reverse('accounts:sign-in')}?next=/", 302)]
    return signing_in(scene)


def launching(scene: Scene) -> HttpResponse:
    """The page of a session that a worker has tried to send; or the form, where that refuses."""
    answer = launch(scene.browser)
    if answer.status_code != 302:
        return answer
    session = InteractiveSession.objects.get()
    submit(session.pk)
    return page_of(scene, session)


def launching_in_a_folder(scene: Scene) -> HttpResponse:
    """The form, which has the folder looked up on the cluster."""
    return launch(scene.browser, folder="work")


def looking(scene: Scene) -> HttpResponse:
    """The page of a running session after a worker has asked for it."""
    session = running()
    poll("hpc")
    return page_of(scene, session)


def stopping(scene: Scene) -> HttpResponse:
    """The page of a running session after Stop, which a worker could not pass on."""
    session = running()
    scene.browser.post(reverse("launcher:stop", args=[session.pk]))
    cancel(session.pk)
    return page_of(scene, session)


def launch(browser: Client, **more: str) -> HttpResponse:
    form = {"cores": "1", "memory": "1gb", "hours": "1"} | more
    return browser.post(reverse("launcher:launch", args=["jupyter"]), form)  # type: ignore[return-value]  # as above


def page_of(scene: Scene, session: InteractiveSession) -> HttpResponse:
    answer = scene.browser.get(reverse("launcher:session", args=[session.pk]))
    assert answer.status_code == 200
    return answer  # type: ignore[return-value]  # as above


def running() -> InteractiveSession:
    return InteractiveSession.objects.create(
        owner=User.objects.get(username="alice"),
        username="alice",
        cluster="hpc",
        app="jupyter",
        state=SessionState.READY,
        job_id="1.pbs01",
        upstream_host="node1",
        upstream_port=8888,
        created_at=now(),
        started_at=now(),
        choices=LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600).as_dict(),
    )


# the table

Event = tuple[str, dict[str, object]]


def not_signed_in(cause: str) -> Event:
    return "user.sign_in_refused", {"cause": cause}


def not_taken(credential: str) -> Event:
    causes = {CERTIFICATE: "ssh.login_refused", KEY: "ssh.key_refused", KEPT: "ssh.password_refused"}
    return "credential.refused", {"cluster": "hpc", "credential": credential, "cause": causes[credential]}


def not_the_host() -> Event:
    return "cluster.host_key_rejected", {"cluster": "hpc"}


Row = tuple[str, Callable[[Scene], None], Callable[[Scene], HttpResponse], tuple[str, ...], Event]
CERTIFICATE, KEY, KEPT = "certificate", "enrolled-key", "password"
ROWS: list[Row] = [
    # at the door
    (
        CERTIFICATE,
        another_host_key,
        signing_in,
        (STRANGER, "so your password was not sent to it. They have been told."),
        not_signed_in("ssh.host_key_changed"),
    ),
    (CERTIFICATE, another_host_key, signing_in, (STRANGER,), not_the_host()),
    (
        CERTIFICATE,
        locked,
        signing_in,
        ("The cluster did not accept this account name and password.",),
        not_signed_in("password"),
    ),
    (
        KEY,
        ended,
        signing_in,
        ("The cluster did not accept this account name and password.",),
        not_signed_in("password"),
    ),
    (
        CERTIFICATE,
        nothing,
        signing_in_as_root,
        ("The cluster did not accept this account name and password.",),
        not_signed_in("name"),
    ),
    *(
        (credential, disabled, coming_back, ("You may not use this portal", "ask the administrators"), event)
        for credential in (CERTIFICATE, KEY, KEPT)
        for event in (not_signed_in("disabled"), ("user.disabled", {"username": "alice"}))
    ),
    # a launch
    (CERTIFICATE, wrong_principal, launching, (NOT_LET_IN, "ask the administrators"), not_taken(CERTIFICATE)),
    (CERTIFICATE, ran_out, launching, (NOT_LET_IN,), not_taken(CERTIFICATE)),
    (CERTIFICATE, locked, launching, (NOT_LET_IN,), not_taken(CERTIFICATE)),
    (CERTIFICATE, ended, launching_in_a_folder, (NOT_LET_IN, "Try again later"), not_taken(CERTIFICATE)),
    (KEY, line_taken_out, launching, (KEY_REFUSED,), not_taken(KEY)),
    (KEY, folder_taken_away, launching_in_a_folder, (KEY_REFUSED,), not_taken(KEY)),
    (KEY, locked, launching, (KEY_REFUSED,), not_taken(KEY)),
    (KEY, revoked, launching, (NO_KEY,), ("credential.revoked", {"cluster": "hpc"})),
    (
        KEY,
        another_host_key,
        launching,
        (STRANGER, "Last known: The session is being sent to the cluster", "Not asked since"),
        not_the_host(),
    ),
    (
        KEY,
        another_host_key,
        launching_in_a_folder,
        (STRANGER, "so nothing was sent to it. They have been told. Try again later."),
        not_the_host(),
    ),
    (
        KEPT,
        password_changed,
        launching,
        (PASSWORD_REFUSED,),
        not_taken(KEPT),
    ),
    (KEPT, password_changed, launching_in_a_folder, (NO_PASSWORD,), not_taken(KEPT)),
    (KEPT, signed_out, launching, (NO_PASSWORD,), ("user.signed_out", {})),
    # a session that runs
    (
        CERTIFICATE,
        ran_out,
        looking,
        ("The cluster does not let the portal in", "Not let in since"),
        not_taken(CERTIFICATE),
    ),
    (
        KEY,
        line_taken_out,
        looking,
        (KEY_REFUSED, "Not let in since"),
        not_taken(KEY),
    ),
    (
        KEY,
        revoked,
        looking,
        ("Connect your cluster account so that the portal can look. The session itself is not affected.",),
        ("credential.line_removed", {"cluster": "hpc", "removed": True}),
    ),
    (
        KEPT,
        another_host_key,
        looking,
        (STRANGER, "They have been told. Last known: Your notebook is ready.", "Not asked since"),
        not_the_host(),
    ),
    (
        CERTIFICATE,
        another_host_key,
        stopping,
        (STRANGER, "Last known: Stopping."),
        not_the_host(),
    ),
]


@pytest.mark.parametrize(
    ("credential", "spoil", "door", "sentences", "event"),
    ROWS,
    ids=[f"{row[0]}-{row[1].__name__}-{row[2].__name__}-{row[4][0]}" for row in ROWS],
)
def test_who_is_refused_reads_why_and_it_is_kept(
    sshd: OpenSSH,
    monkeypatch: pytest.MonkeyPatch,
    credential: str,
    spoil: Callable[[Scene], None],
    door: Callable[[Scene], HttpResponse],
    sentences: tuple[str, ...],
    event: Event,
) -> None:
    write_clusters(sshd, credential=credential)
    scene = Scene(sshd, credential, sign_in(), monkeypatch)
    leave()
    spoil(scene)
    page = words(door(scene))
    for sentence in sentences:
        assert sentence in page
    name, data = event
    kept = [kept.data for kept in AuditEvent.objects.filter(name=name)]
    assert [data.items() <= each.items() for each in kept] == [True], kept


def test_a_line_that_was_taken_out_is_back_after_the_advice_was_followed(sshd: OpenSSH) -> None:
    write_clusters(sshd, credential=KEY)
    scene = Scene(sshd, KEY, sign_in(), pytest.MonkeyPatch())
    leave()
    line_taken_out(scene)
    session = running()
    poll("hpc")
    scene = dataclasses.replace(scene, browser=sign_in())
    leave()
    assert KEY_REFUSED in words(page_of(scene, session))
    poll("hpc")
    assert KEY_REFUSED not in words(page_of(scene, session))
