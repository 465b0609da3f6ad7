"""The pages' doors: who gets in, what a wrong request is told, and that nothing is lost or half done."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from launcher import parts
from launcher.flows.launch import launch
from launcher.models import AccessGrant, InteractiveSession
from launcher.states import EndReason, SessionState
from launcher.tasks import tick
from portal import clock
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from tests.conftest import FOLDER, RunningCluster
from tests.entering import connect, redeemed
from tests.integration.proxy_peers import ENTRY

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}


@pytest.fixture
def session(demo_cluster: RunningCluster, alice: User) -> InteractiveSession:
    """A session of alice."""
    return launch(user=alice, app_id="jupyter", raw=RAW, address="")


def names() -> list[str]:
    return list(AuditEvent.objects.order_by("sequence").values_list("name", flat=True))


def sign_in(client: Client, username: str, password: str, **extra: str) -> object:
    return client.post(reverse("accounts:sign-in"), {"username": username, "password": password, **extra})


def test_the_clusters_password_signs_in(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    password = demo_cluster.password("alice")
    answer = sign_in(client, "alice", password)
    assert answer.status_code == 302
    assert client.get("/").status_code == 200
    assert names() == ["user.signed_in"]
    assert not User.objects.get(username="alice").is_administrator


def test_the_named_administrator_is_one(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    sign_in(client, "admin", demo_cluster.password("admin"))
    assert User.objects.get(username="admin").is_administrator


@pytest.mark.parametrize("username", ["alice", "nobody-here", "root", "a b", "x" * 64])
def test_a_wrong_password_and_an_unknown_account_get_the_same_words(
    demo_cluster: RunningCluster, db: None, client: Client, username: str
) -> None:
    answer = sign_in(client, username, "wrong-Pa55word")
    assert b"did not accept" in answer.content
    assert names() == ["user.sign_in_refused"]
    assert b"wrong-Pa55word" not in answer.content


def test_an_empty_password_never_reaches_the_cluster(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    demo_cluster.fault("login", "gone")
    answer = sign_in(client, "alice", "")
    assert answer.status_code == 200
    assert b"password cannot be checked" not in answer.content


def test_twenty_wrong_passwords_reach_the_cluster_at_most_five_times_and_others_still_get_in(
    demo_cluster: RunningCluster, db: None, client: Client
) -> None:
    statuses = [sign_in(client, "alice", "wrong").status_code for _ in range(20)]
    assert statuses == [200] * 5 + [429] * 15
    assert sign_in(client, "bob", demo_cluster.password("bob")).status_code == 302


def test_while_the_login_host_is_away_sign_in_says_so(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    demo_cluster.fault("login", "gone")
    answer = sign_in(client, "alice", demo_cluster.password("alice"))
    assert b"password cannot be checked" in answer.content


def test_next_stays_on_the_site(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    answer = sign_in(client, "alice", demo_cluster.password("alice"), next="https://evil.example/")
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize("url", ["/", "/launch/jupyter/", "/history/", "/profile/", "/audit/"])
def test_without_signing_in_every_page_leads_to_the_sign_in_page(db: None, client: Client, url: str) -> None:
    assert client.get(url).headers["Location"].startswith("/sign-in/")


def test_the_form_names_a_wrong_value_and_keeps_what_was_typed(demo_cluster: RunningCluster, as_alice: Client) -> None:
    answer = as_alice.post("/launch/jupyter/", {**RAW, "cores": "1000000", "title": "Keep me 🧪"})
    assert answer.status_code == 422
    text = answer.content.decode()
    assert "At most 4 cores" in text
    assert "Keep me 🧪" in text
    assert not InteractiveSession.objects.exists()


@pytest.mark.parametrize("kind", ["environment", "image"])
def test_a_wrong_path_is_marked_where_it_was_typed(demo_cluster: RunningCluster, as_alice: Client, kind: str) -> None:
    app = {"environment": "jupyter", "image": "jupyter-container"}[kind]
    answer = as_alice.post(f"/launch/{app}/", {**RAW, kind: "path", f"{kind}_path": "envs/mine"})
    assert answer.status_code == 422
    assert [name for name in answer.context["form"].errors if name != "__all__"] == [f"{kind}_path"]


def test_a_second_launch_shows_the_session_that_exists(session: InteractiveSession, as_alice: Client) -> None:
    answer = as_alice.post("/launch/jupyter/", RAW)
    assert answer.status_code == 409
    text = answer.content.decode()
    assert "You already have a session" in text
    assert reverse("launcher:session", args=[session.pk]) in text
    assert InteractiveSession.objects.count() == 1


def test_a_refused_launch_says_the_limit_once(session: InteractiveSession, as_alice: Client) -> None:
    page = as_alice.post("/launch/jupyter/", RAW).content.decode()
    assert page.count("may have one at a time") == 1


def test_a_gpu_in_a_queue_without_shows_the_queues_and_which_has_some(
    demo_cluster: RunningCluster, as_alice: Client
) -> None:
    gpus = '\n[[clusters.demo.queues]]\nname = "gpuq"\nlabel = "GPU"\nmax_gpus = 2\n'
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml() + gpus, encoding="utf-8")
    parts.forget()
    page = as_alice.post("/launch/jupyter/", RAW | {"gpus": "1"}).content.decode()
    assert "The queue Work has no GPUs." in page
    assert "Queues that have some: GPU." in page
    assert '<details class="panel fold" open>' in page


def test_a_session_names_its_queue_as_the_form_does(session: InteractiveSession, as_alice: Client) -> None:
    page = as_alice.get(f"/sessions/{session.pk}/").content.decode()
    assert re.search(r"<dd>\s*Work\s*</dd>", page)


def test_an_image_that_was_typed_last_time_is_filled_in_again(
    demo_cluster: RunningCluster, alice: User, as_alice: Client
) -> None:
    library = demo_cluster.demo.image_folder
    own = demo_cluster.demo.settings.home("alice") / "my.sif"
    own.write_bytes(next(library.glob("*.sif")).read_bytes())
    launch(user=alice, app_id="jupyter-container", raw={**RAW, "image": "path", "image_path": str(own)}, address="")
    page = as_alice.get("/launch/jupyter-container/").content.decode()
    assert '<option value="path" selected>' in page
    assert f'value="{own}"' in page


def test_an_app_that_does_not_exist_is_404(demo_cluster: RunningCluster, as_alice: Client) -> None:
    assert as_alice.get("/launch/nothing/").status_code == 404
    assert as_alice.post("/launch/nothing/", RAW).status_code == 404


@pytest.mark.parametrize("name", ["session", "session-live"])
def test_a_stranger_gets_404_for_a_session_and_it_is_kept_once(
    session: InteractiveSession, as_bob: Client, name: str
) -> None:
    for _ in range(3):
        assert as_bob.get(reverse(f"launcher:{name}", args=[session.pk])).status_code == 404
    assert names().count("session.access_denied") == 1


@pytest.mark.parametrize("name", ["connect", "stop"])
def test_a_stranger_can_neither_enter_nor_stop(session: InteractiveSession, as_bob: Client, name: str) -> None:
    assert as_bob.post(reverse(f"launcher:{name}", args=[session.pk])).status_code == 404
    session.refresh_from_db()
    assert session.stop_requested_at is None
    assert not AccessGrant.objects.exists()


@pytest.mark.parametrize(
    ("reason", "own", "others"),
    [
        ("", "Your notebook is ready.", "The notebook is ready."),
        (EndReason.STOPPED_BY_USER, "You stopped it.", "alice stopped it."),
        (EndReason.COMPLETED, "Jupyter was shut down.", "Jupyter was shut down."),
    ],
)
def test_what_is_said_of_a_session_is_said_to_whom_it_is_about(
    session: InteractiveSession, as_alice: Client, as_admin: Client, reason: str, own: str, others: str
) -> None:
    state = {"state": SessionState.ENDED, "ended_at": clock.now()} if reason else {"state": SessionState.READY}
    InteractiveSession.objects.filter(pk=session.pk).update(
        **state, upstream_host="n1", end_reason=reason, end_code=f"ended.{reason}" if reason else ""
    )
    path = reverse("launcher:session", args=[session.pk])
    assert own in as_alice.get(path).content.decode()
    page = as_admin.get(path).content.decode()
    assert others in page
    assert own == others or own not in page


def test_an_administrator_sees_and_stops_but_does_not_enter(session: InteractiveSession, as_admin: Client) -> None:
    assert as_admin.get(reverse("launcher:session", args=[session.pk])).status_code == 200
    assert as_admin.post(reverse("launcher:connect", args=[session.pk])).status_code == 404
    assert as_admin.post(reverse("launcher:stop", args=[session.pk])).status_code == 302
    session.refresh_from_db()
    assert session.stop_reason == "stopped_by_admin"


def test_administration_is_404_for_everybody_else(demo_cluster: RunningCluster, as_alice: Client) -> None:
    for name in ("launcher:admin-users", "launcher:admin-sessions", "audit:list"):
        assert as_alice.get(reverse(name)).status_code == 404


def test_an_administrator_sets_how_many_sessions_somebody_may_have(
    demo_cluster: RunningCluster, as_admin: Client, bob: User
) -> None:
    answer = as_admin.post(reverse("launcher:admin-users"), {"user": bob.pk, "sessions_allowed": "3"})
    assert answer.status_code == 302
    assert [(row.app, row.cluster, row.sessions) for row in bob.allowances.all()] == [("", "", 3)]
    assert "user.limit_changed" in names()


def test_stopping_twice_is_one_stop(session: InteractiveSession, as_alice: Client) -> None:
    for _ in range(2):
        as_alice.post(reverse("launcher:stop", args=[session.pk]))
    assert names().count("session.stop_requested") == 1


def test_signing_out_ends_the_right_to_the_notebook(session: InteractiveSession, as_alice: Client, alice: User) -> None:
    InteractiveSession.objects.filter(pk=session.pk).update(state=SessionState.READY)
    code = connect(as_alice, session)
    assert redeemed(session, code) is not None
    assert redeemed(session, code) is None
    as_alice.post(reverse("accounts:sign-out"))
    assert AccessGrant.objects.get().revoked_at is not None


def test_a_code_is_worthless_at_another_sessions_address(
    session: InteractiveSession, as_alice: Client, alice: User
) -> None:
    assert redeemed(session, connect(as_alice, session), label="a" * 24) is None


def test_get_changes_nothing(session: InteractiveSession, as_alice: Client) -> None:
    for name in ("connect", "stop"):
        assert as_alice.get(reverse(f"launcher:{name}", args=[session.pk])).status_code == 405
    session.refresh_from_db()
    assert session.stop_requested_at is None


def test_a_form_from_elsewhere_is_refused(demo_cluster: RunningCluster, alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice, backend="portal.accounts.backends.PortalBackend")
    assert client.post("/launch/jupyter/", RAW).status_code == 403
    assert not InteractiveSession.objects.exists()


def test_health_says_that_the_parts_work(demo_cluster: RunningCluster, db: None, client: Client) -> None:
    answer = client.get("/health/")
    assert answer.json() == {"status": "ok", "parts": {"database": "ok", "valkey": "ok", "worker": "silent"}}
    tick()
    assert client.get("/health/").json()["parts"]["worker"] == "ok"


def test_pages_forbid_foreign_scripts_and_frames(valkey: None, db: None, client: Client) -> None:
    policy = client.get("/sign-in/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy


def test_a_deactivated_user_is_signed_out(session: InteractiveSession, as_alice: Client, alice: User) -> None:
    alice.is_active = False
    alice.save()
    assert as_alice.get("/").status_code == 302


def test_the_owner_who_comes_to_the_address_itself_is_led_back_to_the_page_that_was_asked_for(
    session: InteractiveSession, as_alice: Client, as_bob: Client
) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])
    location = as_alice.get(address, {"next": "/lab/tree/a b.ipynb?x=1", "entry": ENTRY}).headers["Location"]
    assert location.startswith(f"http://{session.host_label}.localhost:8000/.footbridge/enter?code=")
    assert location.endswith(f"&entry={ENTRY}&next=%2Flab%2Ftree%2Fa+b.ipynb%3Fx%3D1")
    assert as_bob.get(address, {"entry": ENTRY}).status_code == 404


def test_connect_begins_at_the_sessions_own_address_and_opens_nothing_yet(
    session: InteractiveSession, as_alice: Client
) -> None:
    location = as_alice.post(reverse("launcher:connect", args=[session.pk])).headers["Location"]
    assert location == f"http://{session.host_label}.localhost:8000/.footbridge/begin"
    assert "session.connected" not in names()


@pytest.mark.parametrize("entry", ["", "x", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "é" * 64])
def test_no_code_is_made_for_a_browser_that_has_not_begun(
    session: InteractiveSession, as_alice: Client, as_bob: Client, entry: str
) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])
    location = as_alice.get(address, {"next": "/lab", "entry": entry}).headers["Location"]
    assert location == f"http://{session.host_label}.localhost:8000/.footbridge/begin?next=%2Flab"
    assert as_bob.get(address, {"entry": entry}).status_code == 404
    assert "session.connected" not in names()


def test_who_signs_in_on_the_way_begins_again_afterwards(session: InteractiveSession, client: Client) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])
    location = client.get(address, {"next": "/lab", "entry": ENTRY}).headers["Location"]
    assert parse_qs(urlsplit(location).query)["next"] == [f"{address}?next=%2Flab"]
    assert "session.connected" not in names()


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
)
def test_only_a_page_that_somebody_opens_makes_a_code_or_a_note(
    session: InteractiveSession, as_alice: Client, as_bob: Client, fields: dict[str, str]
) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])
    for client in (as_alice, as_bob):
        answer = client.get(address, {"entry": ENTRY}, headers=fields)
        assert (answer.status_code, answer.get("Location")) == (404, None)
    assert not {"session.connected", "session.access_denied"} & set(names())


def test_opening_again_and_again_is_noted_once_a_minute_of_each_person_and_address(
    session: InteractiveSession, as_alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])

    def opened(times: int = 1, **meta: str) -> int:
        """How often that is noted in all."""
        for _ in range(times):
            assert "code=" in as_alice.get(address, {"entry": ENTRY}, **meta).headers["Location"]
        return names().count("session.connected")

    assert opened(20) == 1
    assert opened(20, REMOTE_ADDR="192.0.2.9") == 2
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=61))
    assert opened(20) == 3


def test_a_page_with_too_long_an_address_is_left_out_rather_than_cut(
    session: InteractiveSession, as_alice: Client
) -> None:
    address = reverse("launcher:by-address", args=[session.host_label])
    location = as_alice.get(address, {"next": "/" + "x" * 2048, "entry": ENTRY}).headers["Location"]
    assert "next" not in location
