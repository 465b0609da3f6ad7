"""The API: who may do what, the same checks as the form, and words for every mistake, never a 500."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from launcher import parts
from launcher.models import InteractiveSession
from launcher.states import EndReason, SessionState
from portal import clock
from portal.accounts.models import Role, User
from portal.accounts.tokens import create_token
from portal.audit.models import AuditEvent
from tests.conftest import RunningCluster
from tests.settings import FOLDER
from tests.story import allow

pytestmark = [pytest.mark.django_db, pytest.mark.integration, pytest.mark.usefixtures("valkey", "catalogue")]

CLUSTERS = """
[clusters.demo]
name = "Demo cluster"
login_hosts = ["127.0.0.1:1"]
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBzLQmVZ2kBb0hGq0f3vFDVhGHJvZ5nP1nWvI1YyVtXk"]
modules = ["anaconda/5.3.0"]

[[clusters.demo.queues]]
name = "workq"
label = "Work"
max_cores = 4
max_memory = "8gb"
max_hours = 8
"""


@pytest.fixture
def catalogue() -> Iterator[None]:
    """The portal's apps on a cluster that no test here needs to reach."""
    (FOLDER / "clusters.toml").write_text(CLUSTERS, encoding="utf-8")
    parts.forget()
    yield
    parts.forget()


class Api:
    """A program with a token."""

    def __init__(self, user: User, scope: str = "write") -> None:
        self.text = create_token(user=user, name="test", scope=scope, days=1).text
        self._client = Client(headers={"Authorization": f"Bearer {self.text}"})

    def get(self, path: str, **query: str) -> Any:
        """GET below /api/v1/."""
        return self._client.get(f"/api/v1/{path}", query)

    def post(self, path: str, body: object = None) -> Any:
        """POST of JSON."""
        return self._client.post(f"/api/v1/{path}", body, content_type="application/json")

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._client.delete(f"/api/v1/{path}")

    def launch(self, **values: object) -> Any:
        """Launch Jupyter."""
        return self.post("sessions", {"app": "jupyter", "values": values})


@pytest.fixture
def api(alice: User) -> Api:
    """Alice's program, which may write."""
    return Api(alice)


def ended(user: User, count: int) -> list[InteractiveSession]:
    """Sessions that ended a minute after one another, newest first; the two newest at the same moment."""
    moment = clock.now() - dt.timedelta(days=1)
    rows = []
    for number in range(count):
        at = moment - dt.timedelta(minutes=max(1, number))
        rows.append(
            InteractiveSession.objects.create(
                owner=user,
                username=user.username,
                cluster="demo",
                app="jupyter",
                choices={"cores": 1, "memory_mib": 1024, "walltime_seconds": 3600},
                created_at=at,
                ended_at=at,
                state=SessionState.ENDED,
                end_reason=EndReason.COMPLETED,
                end_code="completed",
            )
        )
    return rows


def assert_problem(response: HttpResponse, status: int, code: str) -> dict[str, Any]:
    """The response refuses in the documented shape, with a sentence."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/json"
    problem: dict[str, Any] = json.loads(response.content)
    assert problem["code"] == code
    assert re.fullmatch(r"\S.*\S", problem["message"])
    assert set(problem) <= {"code", "message", "fields", "session"}
    return problem


# who asks


def test_nobody_is_told_how_to_sign_in() -> None:
    response = Client().get("/api/v1/sessions")
    assert_problem(response, 401, "not_signed_in")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer fbp_nonsense", "Basic YWxpY2U6YWxpY2U=", "fbp_x", "Bearer \xff"]
)
def test_wrong_authorization_is_401(api: Api, header: str) -> None:
    assert_problem(Client().get("/api/v1/apps", headers={"Authorization": header}), 401, "not_signed_in")


def test_wrong_token_is_not_made_good_by_a_cookie(as_alice: Client) -> None:
    response = as_alice.get("/api/v1/apps", headers={"Authorization": "Bearer fbp_nonsense"})
    assert_problem(response, 401, "not_signed_in")


def test_browser_may_read(as_alice: Client) -> None:
    assert as_alice.get("/api/v1/sessions").json() == {"sessions": [], "next": None}


def test_browser_needs_the_csrf_token_to_write(alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend="portal.accounts.backends.PortalBackend")
    response = browser.post("/api/v1/sessions", {"app": "jupyter"}, content_type="application/json")
    assert_problem(response, 403, "csrf")
    assert not InteractiveSession.objects.exists()


def test_browser_with_the_csrf_token_may_write(alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend="portal.accounts.backends.PortalBackend")
    token = "a" * 32
    browser.cookies[settings.CSRF_COOKIE_NAME] = token
    response = browser.post(
        "/api/v1/sessions",
        {"app": "jupyter"},
        content_type="application/json",
        headers={"X-CSRFToken": token},
    )
    assert response.status_code == 201


def test_browser_on_another_site_may_not_write(alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice, backend="portal.accounts.backends.PortalBackend")
    token = "a" * 32
    browser.cookies[settings.CSRF_COOKIE_NAME] = token
    response = browser.post(
        "/api/v1/sessions",
        {"app": "jupyter"},
        content_type="application/json",
        headers={"X-CSRFToken": token, "Origin": "http://abcdef.localhost:8000"},
    )
    assert_problem(response, 403, "csrf")


def test_program_needs_no_csrf_token(alice: User) -> None:
    program = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {Api(alice).text}"})
    response = program.post("/api/v1/sessions", {"app": "jupyter"}, content_type="application/json")
    assert response.status_code == 201


def test_reading_token_may_not_launch(alice: User) -> None:
    assert_problem(Api(alice, "read").launch(), 403, "token.read_only")
    assert not InteractiveSession.objects.exists()


def test_reading_token_may_not_stop(api: Api, alice: User) -> None:
    session = api.launch().json()["id"]
    reader = Api(alice, "read")
    assert_problem(reader.delete(f"sessions/{session}"), 403, "token.read_only")
    assert_problem(reader.post(f"sessions/{session}/stop"), 403, "token.read_only")


def test_reading_token_may_read(api: Api, alice: User) -> None:
    session = api.launch().json()["id"]
    assert Api(alice, "read").get(f"sessions/{session}").json()["id"] == session


# apps


def test_apps_are_listed(api: Api) -> None:
    found = {app["id"]: app for app in api.get("apps").json()["apps"]}
    assert set(found) == {"jupyter", "jupyter-container"}
    assert found["jupyter"]["name"]


def test_app_shows_its_form_and_limits(api: Api) -> None:
    app = api.get("apps/jupyter").json()
    fields = {field["name"]: field for field in app["fields"]}
    assert {"cores", "memory", "hours", "environment"} <= set(fields)
    assert "module:anaconda/5.3.0" in fields["environment"]["choices"]
    (queue,) = app["queues"]
    assert queue["name"] == "workq"
    assert queue["max_cores"] == 4
    assert queue["max_memory_mib"] == 8192


@pytest.mark.parametrize("path", ["apps/none", "apps/%00", "apps/a%2F..", "sessions/%00", "nothing", "sessions/"])
def test_unknown_path_is_404_in_json(api: Api, path: str) -> None:
    assert_problem(api.get(path), 404, "not_found")


def test_wrong_method_is_405_in_json(api: Api) -> None:
    response = api.delete("apps")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET"


# launching


def test_launch_gives_the_session(api: Api) -> None:
    response = api.launch(
        cores=2, memory="1.5 GB", hours=0.5, title="  分析 “1” 🚀 ", environment="module:anaconda/5.3.0"
    )
    assert response.status_code == 201, response.content
    made = response.json()
    assert response.headers["Location"] == f"/api/v1/sessions/{made['id']}"
    assert (made["owner"], made["app"], made["state"], made["queue"]) == (
        "alice",
        "jupyter",
        "submitting",
        "workq",
    )
    assert (made["cores"], made["memory_mib"], made["walltime_seconds"]) == (2, 1536, 1800)
    assert made["title"] == "分析 “1” 🚀"
    assert made["end"] is None


def test_answer_holds_no_secret_and_no_address(api: Api) -> None:
    text = api.launch().content.decode()
    session = InteractiveSession.objects.get()
    assert session.host_label not in text
    assert "secret" not in text


def test_launch_is_an_event_with_the_address(api: Api) -> None:
    made = api.launch().json()
    event = AuditEvent.objects.get(name="session.launched")
    assert (event.actor, event.address, event.session_id) == ("alice", "127.0.0.1", made["id"])


def test_values_may_be_text_as_from_a_form(api: Api) -> None:
    made = api.launch(cores="3", memory="2", hours="1.5").json()
    assert (made["cores"], made["memory_mib"], made["walltime_seconds"]) == (3, 2048, 5400)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cores": 0}, "cores"),
        ({"cores": 10**6}, "cores"),
        ({"cores": -1}, "cores"),
        ({"cores": 1.5}, "cores"),
        ({"cores": "two"}, "cores"),
        ({"cores": True}, "cores"),
        ({"cores": [1]}, "cores"),
        ({"cores": {"a": {}}}, "cores"),
        ({"cores": 10**400}, "cores"),
        ({"memory": "1.5x"}, "memory"),
        ({"memory": "99tb"}, "memory"),
        ({"memory": "9" * 400 + "tb"}, "memory"),
        ({"memory": []}, "memory"),
        ({"hours": 1000}, "hours"),
        ({"hours": "soon"}, "hours"),
        ({"title": "two\nlines"}, "title"),
        ({"title": "x" * 10_000}, "title"),
        ({"title": 7}, "title"),
        ({"title": "\ud800"}, "title"),
        ({"queue": "express"}, "queue"),
        ({"environment": "module:windows/95"}, "environment"),
        ({"environment": "path:relative"}, "environment"),
        ({"colour": "blue"}, "colour"),
        ({"#PBS -l": "select=1000"}, "#PBS -l"),
    ],
)
def test_wrong_value_is_named_in_words(api: Api, values: dict[str, object], field: str) -> None:
    problem = assert_problem(api.launch(**values), 422, "launch.invalid")
    (mistake,) = problem["fields"]
    assert mistake["field"] == field
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", mistake["code"])
    assert re.search(r"[.!?]$", mistake["message"])
    assert not InteractiveSession.objects.exists()


def test_all_wrong_values_are_named_at_once(api: Api) -> None:
    problem = assert_problem(api.launch(cores=0, memory="x", hours=-1), 422, "launch.invalid")
    assert {mistake["field"] for mistake in problem["fields"]} == {"cores", "memory", "hours"}


def test_sentences_are_in_the_callers_language(api: Api) -> None:
    english = api.launch(cores=0).json()["message"]
    chinese = api._client.post(
        "/api/v1/sessions",
        {"app": "jupyter", "values": {"cores": 0}},
        content_type="application/json",
        headers={"Accept-Language": "zh-hans"},
    )
    assert chinese.headers["Content-Language"] == "zh-hans"
    assert english.isascii()


def test_unknown_app_is_named(api: Api) -> None:
    problem = assert_problem(api.post("sessions", {"app": "matlab"}), 422, "app.unknown")
    assert problem["fields"][0]["field"] == "app"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "app"),
        ({"app": 7}, "app"),
        ({"app": None}, "app"),
        ({"app": "x" * 65}, "app"),
        ({"app": "jupyter", "values": []}, "values"),
        ({"app": "jupyter", "values": "cores=1"}, "values"),
        ({"app": "jupyter", "user": "root"}, "user"),
        ([], ""),
        ("jupyter", ""),
        (7, ""),
    ],
)
def test_body_of_another_shape_is_refused(api: Api, body: object, field: str) -> None:
    problem = assert_problem(api.post("sessions", json.dumps(body)), 422, "request.invalid")
    assert problem["fields"][0]["field"] == field
    assert problem["fields"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null garbage",
        "\xff",
        "[" * 100_000,
        '{"app": "jupyter", "values": {"cores": NaN}}',
        '{"app": "jupyter", "values": {"cores": Infinity}}',
        '{"app": "jupyter", "app": "jupyter-container"}',
        '{"app": "jupyter", "values": {"cores": %s}}' % ("9" * 5000),
    ],
)
def test_body_that_is_no_json_is_refused(api: Api, body: str) -> None:
    response = api.post("sessions", body.encode("latin-1"))
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code, response.json()["code"])
    assert not InteractiveSession.objects.exists()


def test_null_body_is_refused(api: Api) -> None:
    response = api.post("sessions", "null")
    assert response.status_code == 422
    assert not InteractiveSession.objects.exists()


def test_too_large_body_is_refused_unread(api: Api) -> None:
    body = json.dumps({"app": "jupyter", "values": {"title": "x" * 2**20}})
    assert_problem(api.post("sessions", body), 413, "body.too_large")


def test_body_of_unknown_length_is_refused(api: Api) -> None:
    response = api._client.generic(
        "POST",
        "/api/v1/sessions",
        b"",
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
    )
    assert_problem(response, 411, "body.length_required")


def test_form_is_refused_as_no_json(api: Api) -> None:
    response = api._client.post("/api/v1/sessions", {"app": "jupyter"})
    assert_problem(response, 415, "body.not_json")


def test_second_launch_shows_the_first(api: Api) -> None:
    first = api.launch(title="first").json()
    problem = assert_problem(api.launch(title="second"), 409, "launch.limit_reached")
    assert problem["session"]["id"] == first["id"]
    assert problem["session"]["title"] == "first"
    assert InteractiveSession.objects.count() == 1


def test_person_with_a_higher_limit_may_launch_a_second(api: Api, alice: User) -> None:
    allow(alice, sessions=2)
    assert [api.launch().status_code for _ in range(3)] == [201, 201, 409]


# listing and showing


def test_live_sessions_are_listed_without_ended_ones(api: Api, alice: User) -> None:
    ended(alice, 2)
    made = api.launch().json()
    assert [session["id"] for session in api.get("sessions").json()["sessions"]] == [made["id"]]


def test_ended_sessions_come_page_by_page_each_once(api: Api, alice: User) -> None:
    rows = ended(alice, 7)
    found: list[str] = []
    cursor = ""
    for _ in range(10):
        page = api.get("sessions", ended="true", limit="3", after=cursor).json()
        found += [session["id"] for session in page["sessions"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert len(found) == 7
    assert set(found) == {row.pk for row in rows}


def test_ended_session_says_why(api: Api, alice: User) -> None:
    (row,) = ended(alice, 1)
    end = api.get(f"sessions/{row.pk}").json()["end"]
    assert end["reason"] == "completed"
    assert end["message"]


@pytest.mark.parametrize(
    "query",
    [
        {"ended": "perhaps"},
        {"ended": "true", "limit": "0"},
        {"ended": "true", "limit": "100000"},
        {"ended": "true", "limit": "many"},
        {"ended": "true", "after": "nonsense"},
        {"ended": "true", "after": "\0"},
        {"ended": "true", "after": "x" * 100},
    ],
)
def test_senseless_query_is_refused_in_words(api: Api, query: dict[str, str]) -> None:
    response = api.get("sessions", **query)
    assert_problem(response, 422, response.json()["code"])


@pytest.mark.parametrize("narrowed", [{"owner": "alice\0"}, {"cluster": "\0"}])
def test_sessions_of_what_no_database_can_hold_are_none(api: Api, admin: User, narrowed: dict[str, str]) -> None:
    assert api.launch().status_code == 201
    response = Api(admin).get("sessions", everybody="true", **narrowed)
    assert (response.status_code, response.json()["sessions"]) == (200, [])


def test_cursor_of_somebody_else_is_refused(api: Api, bob: User) -> None:
    (theirs,) = ended(bob, 1)
    assert_problem(api.get("sessions", ended="true", after=theirs.pk), 422, "request.after")


def test_others_see_nothing_in_lists(api: Api, bob: User, alice: User) -> None:
    api.launch()
    ended(alice, 1)
    assert Api(bob).get("sessions").json()["sessions"] == []
    assert Api(bob).get("sessions", ended="true").json()["sessions"] == []


@pytest.mark.parametrize("act", ["get", "delete", "post"])
def test_stranger_gets_404_and_is_recorded(api: Api, bob: User, act: str) -> None:
    session = api.launch().json()["id"]
    path = f"sessions/{session}/stop" if act == "post" else f"sessions/{session}"
    assert_problem(getattr(Api(bob), act)(path), 404, "not_found")
    event = AuditEvent.objects.get(name="session.access_denied")
    assert (event.actor, event.session_id, event.data["door"]) == ("bob", session, "api")
    assert InteractiveSession.objects.get().stop_requested_at is None


def test_stranger_cannot_tell_what_exists(api: Api, bob: User) -> None:
    session = api.launch().json()["id"]
    stranger = Api(bob)
    assert stranger.get(f"sessions/{session}").json() == stranger.get("sessions/doesnotexist").json()


def test_auditor_sees_but_does_not_stop(api: Api, bob: User) -> None:
    session = api.launch().json()["id"]
    User.objects.filter(pk=bob.pk).update(role=Role.AUDITOR)
    auditor = Api(bob)
    assert auditor.get(f"sessions/{session}").status_code == 200
    assert_problem(auditor.delete(f"sessions/{session}"), 403, "session.not_yours")


# stopping


@pytest.mark.parametrize("act", ["delete", "post"])
def test_stop_is_accepted_and_recorded(api: Api, act: str) -> None:
    session = api.launch().json()["id"]
    path = f"sessions/{session}/stop" if act == "post" else f"sessions/{session}"
    response = getattr(api, act)(path)
    assert response.status_code == 202
    assert response.json()["id"] == session
    event = AuditEvent.objects.get(name="session.stop_requested")
    assert (event.actor, event.session_id, event.data["by_owner"]) == ("alice", session, True)


def test_stopping_twice_is_one_request(api: Api) -> None:
    session = api.launch().json()["id"]
    assert [api.delete(f"sessions/{session}").status_code for _ in range(2)] == [202, 202]
    assert AuditEvent.objects.filter(name="session.stop_requested").count() == 1


def test_administrator_may_stop(api: Api, admin: User) -> None:
    session = api.launch().json()["id"]
    assert Api(admin).delete(f"sessions/{session}").status_code == 202
    assert AuditEvent.objects.get(name="session.stop_requested").data["by_owner"] is False


# the rest


def test_unforeseen_error_is_500_in_json_without_its_text(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("launcher.selectors.live_sessions", broken)
    response = api.get("sessions")
    assert_problem(response, 500, "internal")
    assert "swordfish" not in response.content.decode()


def test_answers_are_not_kept_by_caches(api: Api) -> None:
    assert api.get("apps").headers["Cache-Control"] == "no-store"


def test_description_names_every_endpoint_and_both_ways_in() -> None:
    description = Client().get("/api/v1/openapi.json").json()
    assert set(description["paths"]) == {
        "/api/v1/apps",
        "/api/v1/apps/{app_id}",
        "/api/v1/sessions",
        "/api/v1/sessions/{session_id}",
        "/api/v1/sessions/{session_id}/continue",
        "/api/v1/sessions/{session_id}/extend",
        "/api/v1/sessions/{session_id}/stop",
    }
    schemes = description["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}


def test_documentation_needs_nothing_from_elsewhere() -> None:
    page = Client().get("/api/v1/docs").content.decode()
    assert "openapi.json" in page
    assert "https://" not in page


# what only the cluster knows


def test_image_that_does_not_exist_is_named_before_anything_is_submitted(
    demo_cluster: RunningCluster, api: Api
) -> None:
    response = api.post("sessions", {"app": "jupyter-container", "values": {"image": "/no/such/image.sif"}})
    problem = assert_problem(response, 422, "launch.invalid")
    assert [(mistake["field"], mistake["code"]) for mistake in problem["fields"]] == [("image", "image.missing")]
    assert not InteractiveSession.objects.exists()


def test_cluster_that_does_not_answer_is_503(demo_cluster: RunningCluster, api: Api) -> None:
    demo_cluster.fault("login", "gone")
    response = api.post("sessions", {"app": "jupyter", "values": {"folder": "data"}})
    assert_problem(response, 503, "launch.cluster_away")
    assert not InteractiveSession.objects.exists()
