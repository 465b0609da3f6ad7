"""What people may have, through every door: form, API and service; who may change it, and what is kept of a change."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from launcher import parts, services
from launcher.catalog import LaunchChoices
from launcher.flows.launch import launch
from launcher.models import Allowance, InteractiveSession
from launcher.services import LaunchRefused
from launcher.states import EndReason, SessionState
from portal.accounts.models import Role, User
from portal.accounts.tokens import create_token
from portal.audit.models import AuditEvent
from portal.audit.selectors import verify
from portal.clock import now
from tests.conftest import RunningCluster
from tests.settings import FOLDER
from tests.story import allow

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration, pytest.mark.usefixtures("demo_cluster")]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1"}
CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")


def running(user: User, app: str = "jupyter", cluster: str = "demo", **values: Any) -> InteractiveSession:
    """A session that has not ended."""
    return InteractiveSession.objects.create(
        owner=user,
        username=user.username,
        app=app,
        cluster=cluster,
        state=SessionState.READY,
        created_at=now(),
        **{"choices": CHOICES.as_dict()} | values,
    )


def refused(user: User, **raw: object) -> LaunchRefused:
    """Why a launch of jupyter is refused."""
    with pytest.raises(LaunchRefused) as caught:
        launch(user=user, app_id="jupyter", raw={**RAW, **raw}, address="")
    return caught.value


def api(user: User) -> Client:
    """A program of this person."""
    text = create_token(user=user, name="test", scope="write", days=1).text
    return Client(headers={"Authorization": f"Bearer {text}"})


def api_launch(user: User, **values: object) -> Any:
    body = {"app": "jupyter", "values": values}
    return api(user).post("/api/v1/sessions", body, content_type="application/json")


def changes() -> list[dict[str, object]]:
    """What the audit log holds of changed limits, oldest first."""
    return [event.data for event in AuditEvent.objects.filter(name="user.limit_changed").order_by("sequence")]


# ---- sessions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "of", "words"),
    [
        ({}, ("jupyter-container", "elsewhere"), "You already have a session, and may have one at a time."),
        (
            {"app": "jupyter"},
            ("jupyter", "elsewhere"),
            "You already have a session of this app, and may have one at a time.",
        ),
        (
            {"cluster": "demo"},
            ("jupyter-container", "demo"),
            "You already have a session on this cluster, and may have one at a time.",
        ),
        (
            {"app": "jupyter", "cluster": "demo"},
            ("jupyter", "demo"),
            "You already have a session of this app on this cluster, and may have one at a time.",
        ),
    ],
    ids=["all", "app", "cluster", "app on cluster"],
)
def test_form_and_api_name_the_limit_and_a_session_that_counts_against_it(
    alice: User, as_alice: Client, scope: dict[str, str], of: tuple[str, str], words: str
) -> None:
    in_the_way = running(alice, *of)
    if scope:
        allow(alice, sessions=9)
        running(alice, "something-else", "elsewhere")
    allow(alice, **scope, sessions=1)
    seen = as_alice.get("/launch/jupyter/").content.decode()
    assert words in seen
    assert f"/sessions/{in_the_way.pk}/" in seen
    sent = as_alice.post("/launch/jupyter/", RAW)
    assert sent.status_code == 409
    assert words in sent.content.decode()
    answered = api_launch(alice)
    assert answered.status_code == 409
    assert answered.json()["code"] == "launch.limit_reached"
    assert answered.json()["message"].startswith(words)
    assert answered.json()["session"]["id"] == in_the_way.pk
    assert not InteractiveSession.objects.filter(state=SessionState.SUBMITTING).exists()


def test_sessions_outside_the_scope_do_not_count(alice: User) -> None:
    allow(alice, sessions=9)
    allow(alice, app="jupyter", sessions=1)
    allow(alice, cluster="demo", sessions=2)
    running(alice, "jupyter-container", "demo")
    running(alice, "jupyter-container", "elsewhere")
    assert launch(user=alice, app_id="jupyter", raw=RAW, address="").state == SessionState.SUBMITTING


def test_the_sentence_says_how_many_there_are_and_may_be(alice: User) -> None:
    allow(alice, sessions=2)
    running(alice)
    running(alice)
    assert api_launch(alice).json()["message"] == (
        "You already have 2 sessions, and may have 2 at a time. Stop one of them first."
    )


def test_ended_sessions_and_other_peoples_do_not_count(alice: User, bob: User) -> None:
    running(bob)
    session = running(alice)
    services.end_session(session.pk, reason=EndReason.COMPLETED, code="ended.completed", params={})
    assert launch(user=alice, app_id="jupyter", raw=RAW, address="").pk


def test_who_may_launch_nothing_is_told_so_without_a_form(alice: User, as_alice: Client) -> None:
    allow(alice, sessions=0)
    for answer, status in ((as_alice.get("/launch/jupyter/"), 200), (as_alice.post("/launch/jupyter/", RAW), 403)):
        assert answer.status_code == status
        assert "You may not launch sessions. The administrators can allow it." in answer.content.decode()
        assert "<fieldset" not in answer.content.decode()
    answered = api_launch(alice)
    assert (answered.status_code, answered.json()["code"]) == (403, "launch.none_allowed")


def test_members_of_a_group_may_have_what_it_is_allowed(alice: User, bob: User) -> None:
    allow(group="bio", sessions=2)
    User.objects.filter(pk=alice.pk).update(groups_on_cluster=["users", "bio"])
    running(alice)
    running(bob)
    assert api_launch(alice).status_code == 201
    assert api_launch(alice).status_code == 409
    assert api_launch(bob).status_code == 409


def test_a_persons_own_number_beats_that_of_their_group(alice: User) -> None:
    allow(group="bio", sessions=5)
    allow(alice, sessions=1)
    User.objects.filter(pk=alice.pk).update(groups_on_cluster=["bio"])
    assert [api_launch(alice).status_code for _ in range(2)] == [201, 409]


def test_groups_that_are_no_text_are_passed_over(alice: User) -> None:
    allow(group="bio", sessions=0)
    User.objects.filter(pk=alice.pk).update(groups_on_cluster=[None, 3, "", ["bio"]])
    assert api_launch(alice).status_code == 201


def test_the_clusters_number_counts(alice: User, demo_cluster: RunningCluster) -> None:
    (FOLDER / "clusters.toml").write_text(demo_cluster.toml(sessions_per_user=1), encoding="utf-8")
    parts.forget()
    allow(alice, sessions=9)
    session = running(alice)
    assert refused(alice).existing == session
    assert refused(alice).params["scope"] == "cluster"


def test_the_apps_number_counts(alice: User) -> None:
    allow(alice, sessions=9)
    session = running(alice, "jupyter", "elsewhere")
    app = parts.apps()["jupyter"].model_copy(update={"sessions_per_user": 1})
    cluster = parts.clusters()["demo"]
    with pytest.raises(LaunchRefused) as caught:
        services.create_session(owner=alice, app=app, cluster=cluster, choices=CHOICES, address="")
    assert (caught.value.params["scope"], caught.value.existing) == ("app", session)


def test_launches_that_race_never_pass_a_limit_together(alice: User) -> None:
    allow(alice, sessions=4)
    allow(alice, app="jupyter", sessions=2)
    together = threading.Barrier(6)
    outcomes: list[str] = []

    def try_it() -> None:
        together.wait(60)
        try:
            launch(user=alice, app_id="jupyter", raw=RAW, address="")
            outcomes.append("launched")
        except LaunchRefused as refusal:
            outcomes.append(refusal.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(outcomes) == ["launch.limit_reached"] * 4 + ["launched"] * 2
    assert InteractiveSession.objects.count() == 2


# ---- continuing -----------------------------------------------------------------------------------------------------


def go_on(owner: User, session: InteractiveSession) -> InteractiveSession:
    return services.create_session(
        owner=owner,
        app=parts.apps()["jupyter"],
        cluster=parts.clusters()["demo"],
        choices=CHOICES,
        address="",
        continuing=session,
    )


def test_one_continuation_may_stand_beside_its_predecessor_and_nothing_more(alice: User) -> None:
    first = launch(user=alice, app_id="jupyter", raw=RAW, address="")
    second = go_on(alice, first)
    assert second.continues == first
    assert go_on(alice, first) == second
    with pytest.raises(LaunchRefused, match="limit_reached"):
        go_on(alice, second)
    assert refused(alice).code == "launch.limit_reached"
    services.end_session(first.pk, reason=EndReason.WALLTIME, code="ended.walltime", params={})
    assert go_on(alice, second).continues == second


def test_continuations_that_race_are_one(alice: User) -> None:
    first = running(alice)
    together = threading.Barrier(4)
    made: list[str] = []

    def try_it() -> None:
        together.wait(60)
        try:
            made.append(go_on(alice, first).pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert len(made) == 4
    assert list(first.continuations.values_list("pk", flat=True)) == made[:1] == list(set(made))


def test_somebody_elses_session_cannot_be_continued(alice: User, bob: User) -> None:
    with pytest.raises(ValueError, match="is not a session of alice"):
        go_on(alice, running(bob))


# ---- hours ----------------------------------------------------------------------------------------------------------


def test_more_hours_than_allowed_are_a_mistake_of_that_field(alice: User, as_alice: Client) -> None:
    allow(alice, hours=2)
    sent = as_alice.post("/launch/jupyter/", {**RAW, "hours": "3"})
    assert sent.status_code == 422
    assert "Your sessions may last at most 2 hours." in sent.content.decode()
    problem = api_launch(alice, hours=3).json()
    assert problem["fields"] == [
        {"field": "hours", "code": "hours.over_allowance", "message": "Your sessions may last at most 2 hours."}
    ]
    assert api_launch(alice, hours=2).status_code == 201


def test_the_form_and_the_api_show_the_hours_that_are_allowed(alice: User, as_alice: Client) -> None:
    allow(alice, hours=0.5)
    page = as_alice.get("/launch/jupyter/")
    field = page.context["form"]["hours"]
    assert (field.field.widget.attrs["max"], str(field.value())) == ("0.5", "0.5")
    detail = api(alice).get("/api/v1/apps/jupyter").json()
    assert [queue["max_hours"] for queue in detail["queues"]] == [0.5]
    assert next(field["default"] for field in detail["fields"] if field["name"] == "hours") == 0.5
    assert api_launch(alice).status_code == 201


def test_hours_of_last_time_are_lowered_to_what_is_allowed_now(alice: User, as_alice: Client) -> None:
    running(alice, choices=dataclasses.asdict(dataclasses.replace(CHOICES, walltime_seconds=8 * 3600)))
    allow(alice, sessions=2, hours=3)
    assert as_alice.get("/launch/jupyter/").context["form"]["hours"].value() == "3"


def test_more_hours_are_allowed_never_beyond_the_queues(alice: User) -> None:
    allow(alice, hours=1000)
    assert refused(alice, hours="9").fields[0][1] == "hours.over_queue_limit"


def test_the_sites_hours_count_where_nobody_allowed_others(alice: User, settings: Any) -> None:
    settings.CONF = settings.CONF.model_copy(update={"hours_per_session": 2.0})
    assert refused(alice, hours="3").fields == (("hours", "hours.over_allowance", {"max": 2}),)
    allow(group="bio", hours=4)
    User.objects.filter(pk=alice.pk).update(groups_on_cluster=["bio"])
    alice.refresh_from_db()
    assert launch(user=alice, app_id="jupyter", raw={**RAW, "hours": "3"}, address="").pk


def test_a_continuation_of_a_longer_session_keeps_to_the_hours_of_today(alice: User) -> None:
    session = running(alice)
    allow(alice, hours=0.5)
    with pytest.raises(LaunchRefused) as caught:
        go_on(alice, session)
    assert caught.value.fields == (("hours", "hours.over_allowance", {"max": 0.5}),)


# ---- administration -------------------------------------------------------------------------------------------------

LIMITS = "/administration/limits/"


def sent(client: Client, **values: str) -> Any:
    """The page's form, sent."""
    whole = {"whose": "person", "name": "bob", "app": "", "cluster": "", "sessions": "", "hours": ""} | values
    return client.post(LIMITS, whole)


def test_an_administrator_allows_changes_and_takes_back_with_an_event_for_each(as_admin: Client, bob: User) -> None:
    assert sent(as_admin, app="jupyter", cluster="demo", sessions="3", hours="12.5").status_code == 302
    assert sent(as_admin, app="jupyter", cluster="demo", sessions="4").status_code == 302
    (row,) = Allowance.objects.all()
    assert (row.user, row.sessions, row.hours) == (bob, 4, None)
    page = as_admin.get(LIMITS).content.decode()
    assert "bob" in page
    for _ in range(2):
        assert as_admin.post(reverse("launcher:admin-limit-remove", args=[row.pk])).status_code == 302
    assert not Allowance.objects.exists()
    of = {"username": "bob", "group": "", "app": "jupyter", "cluster": "demo"}
    assert changes() == [
        {**of, "sessions_before": None, "sessions": 3, "hours_before": None, "hours": 12.5},
        {**of, "sessions_before": 3, "sessions": 4, "hours_before": 12.5, "hours": None},
        {**of, "sessions_before": 4, "sessions": None, "hours_before": None, "hours": None},
    ]
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"admin"}
    assert verify().broken is None


def test_what_changes_nothing_is_no_event(as_admin: Client, bob: User) -> None:
    for _ in range(2):
        sent(as_admin, sessions="3")
    as_admin.post("/administration/users/", {"user": bob.pk, "sessions_allowed": "3"})
    assert len(changes()) == 1


def test_a_group_is_allowed_once_for_each_scope(as_admin: Client, admin: User) -> None:
    for number in ("2", "5"):
        assert sent(as_admin, whose="group", name="Domain Users", sessions=number).status_code == 302
    (row,) = Allowance.objects.all()
    assert (row.user, row.group, row.sessions) == (None, "Domain Users", 5)


def test_the_number_on_the_page_people_is_the_one_for_all_sessions(as_admin: Client, bob: User) -> None:
    sent(as_admin, sessions="3", hours="5")
    sent(as_admin, app="jupyter", sessions="7")
    people = as_admin.get("/administration/users/").context["page_obj"]
    assert [person.sessions_allowed for person in people if person == bob] == [3]
    as_admin.post("/administration/users/", {"user": bob.pk, "sessions_allowed": ""})
    assert list(bob.allowances.order_by("app").values_list("app", "sessions", "hours")) == [
        ("", None, 5),
        ("jupyter", 7, None),
    ]


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"name": "carla", "sessions": "1"}, "name", "Nobody with this account has signed in yet."),
        ({"name": "", "sessions": "1"}, "name", "required"),
        ({"name": "x" * 65, "sessions": "1"}, "name", "64"),
        ({"whose": "group", "name": "a\x85b", "sessions": "1"}, "name", "control characters"),
        ({"whose": "everybody", "sessions": "1"}, "whose", "everybody"),
        ({"app": "nothing", "sessions": "1"}, "app", "nothing"),
        ({"cluster": "nowhere", "sessions": "1"}, "cluster", "nowhere"),
        ({}, "sessions", "Write a number of sessions, of hours, or both."),
        ({"sessions": "-1"}, "sessions", "0"),
        ({"sessions": "1001"}, "sessions", "1000"),
        ({"sessions": "1.5"}, "sessions", "whole number"),
        ({"sessions": "9" * 10_000}, "sessions", "whole number"),
        ({"hours": "0"}, "hours", "0.05"),
        ({"hours": "nan"}, "hours", "number"),
        ({"hours": "inf"}, "hours", "number"),
        ({"hours": "10000"}, "hours", "8784"),
    ],
)
def test_a_wrong_value_is_explained_at_its_field_and_nothing_is_kept(
    as_admin: Client, bob: User, values: dict[str, str], field: str, words: str
) -> None:
    answered = sent(as_admin, **values)
    assert answered.status_code == 422
    assert list(answered.context["form"].errors) == [field]
    assert words in str(answered.context["form"].errors[field])
    assert not Allowance.objects.exists()
    assert changes() == []


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
def test_for_everybody_else_the_page_does_not_exist(as_bob: Client, bob: User, alice: User, role: Role) -> None:
    User.objects.filter(pk=bob.pk).update(role=role)
    row = allow(alice, sessions=3)
    assert as_bob.get(LIMITS).status_code == 404
    assert sent(as_bob, name="alice", sessions="9").status_code == 404
    assert as_bob.post(reverse("launcher:admin-limit-remove", args=[row.pk])).status_code == 404
    row.refresh_from_db()
    assert row.sessions == 3


def test_only_a_post_removes(as_admin: Client, alice: User) -> None:
    row = allow(alice, sessions=3)
    assert as_admin.get(reverse("launcher:admin-limit-remove", args=[row.pk])).status_code == 405
    assert Allowance.objects.filter(pk=row.pk).exists()


def test_removing_what_never_was_is_no_error(as_admin: Client) -> None:
    assert as_admin.post(f"{LIMITS}{10**30}/remove/").status_code == 302
    assert changes() == []


def test_an_app_or_cluster_that_is_gone_keeps_its_name_in_the_list(as_admin: Client, bob: User) -> None:
    allow(bob, app="gone-app", cluster="gone-cluster", sessions=1)
    page = as_admin.get(LIMITS).content.decode()
    assert "gone-app" in page
    assert "gone-cluster" in page


def test_taking_an_allowance_back_gives_the_sites_rule_back(as_admin: Client, alice: User) -> None:
    row = allow(alice, sessions=2)
    running(alice)
    assert services.limit_refusal(alice, app=parts.apps()["jupyter"], cluster=parts.clusters()["demo"]) is None
    as_admin.post(reverse("launcher:admin-limit-remove", args=[row.pk]))
    assert refused(alice).params["allowed"] == 1


def test_administrators_who_write_at_once_leave_one_row_and_events_in_order(admin: User) -> None:
    together = threading.Barrier(5)

    def write(sessions: int | None) -> None:
        together.wait(60)
        try:
            services.set_allowance(user=None, group="bio", sessions=sessions, hours=None, actor=admin, address="")
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in (2, 3, 4, 5, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    numbers = [None, *(change["sessions"] for change in changes())]
    assert [change["sessions_before"] for change in changes()] == numbers[:-1]
    assert [row.sessions for row in Allowance.objects.all()] == [number for number in numbers[-1:] if number]
    assert verify().broken is None
