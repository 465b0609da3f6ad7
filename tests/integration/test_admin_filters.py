"""What administrators narrow the pages All sessions and People down to, and that nothing typed there does harm."""

from __future__ import annotations

import datetime as dt
import html
import re
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client

from launcher.catalog import LaunchChoices
from launcher.models import InteractiveSession
from launcher.states import EndReason, SessionState
from portal.accounts.models import Role, User
from portal.clock import now

pytestmark = [pytest.mark.django_db, pytest.mark.integration, pytest.mark.usefixtures("demo_cluster")]

SESSIONS = "/administration/sessions/"
PEOPLE = "/administration/users/"
CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")

HOSTILE = ["%", "_", "\\", "'", '"', "' OR 1=1 --", "%' OR '1'='1", "*", "[a-z]", "(", "<script>", "😀" * 60]
"""Texts that stand in no session and in nobody's name, whatever they mean to a database."""

SENSELESS = ["\0", "alice\0", "x" * 256, "x" * 20_000]
"""What the fields refuse."""


def session_of(username: str, title: str = "", **values: Any) -> InteractiveSession:
    """A session that has not ended."""
    return InteractiveSession.objects.create(
        owner=User.objects.filter(username=username).first(),
        username=username,
        title=title,
        created_at=now(),
        **{"app": "jupyter", "cluster": "demo", "state": SessionState.READY, "choices": CHOICES.as_dict()} | values,
    )


def found(client: Client, **query: object) -> set[str]:
    """The titles of the sessions that the page shows."""
    answer = client.get(SESSIONS, query)
    assert answer.status_code == 200
    return {card.title for card in answer.context["cards"]}


def people(client: Client, **query: object) -> list[str]:
    """The accounts that the page shows."""
    answer = client.get(PEOPLE, query)
    assert answer.status_code == 200
    return [person.username for person in answer.context["page_obj"]]


def link(answer: Any, rel: str) -> str:
    """Where the page's link ``rel`` leads."""
    match = re.search(rf'rel="{rel}"\s+href="([^"]+)"', answer.content.decode())
    assert match
    return html.unescape(match[1])


def choices(client: Client, name: str) -> list[str]:
    """What the page offers to choose from."""
    return [value for value, _ in client.get(SESSIONS).context["filter"].form.fields[name].choices if value]


@pytest.fixture
def some(alice: User, bob: User) -> None:
    """Four sessions, of which no two are alike."""
    session_of("alice", "Climate", execution_host="node01", job_id="101.pbs01")
    session_of("alice", "Proteins", execution_host="node02", job_id="102.pbs01", app="jupyter-container")
    session_of("bob", "Waiting", state=SessionState.QUEUED, job_id="207.pbs01")
    session_of("bob", "Elsewhere", execution_host="gpu7", job_id="8.other", cluster="retired", app="old-app")


# ---- all sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("bob", {"Waiting", "Elsewhere"}),
        ("BO", {"Waiting", "Elsewhere"}),
        ("climate", {"Climate"}),
        ("Node0", {"Climate", "Proteins"}),
        ("node02", {"Proteins"}),
        ("207.", {"Waiting"}),
        ("PBS01", {"Climate", "Proteins", "Waiting"}),
        ("  gpu7 ", {"Elsewhere"}),
        ("nothing like it", set()),
    ],
)
@pytest.mark.usefixtures("some")
def test_a_text_is_looked_for_in_account_title_host_and_job(as_admin: Client, text: str, titles: set[str]) -> None:
    assert found(as_admin, text=text) == titles


def test_a_session_without_a_title_is_found_by_the_name_it_is_shown_with(as_admin: Client, alice: User) -> None:
    untitled = session_of("alice", app="jupyter")
    session_of("alice", "Climate", app="jupyter")
    (shown,) = found(as_admin, owner="alice") - {"Climate"}
    answer = as_admin.get(SESSIONS, {"text": shown.upper()})
    assert [card.id for card in answer.context["cards"]] == [untitled.pk]


@pytest.mark.parametrize("state", ["submitting", "queued", "starting", "ready", "stopping"])
def test_a_state_leaves_the_sessions_in_it(as_admin: Client, alice: User, state: str) -> None:
    for one in ("submitting", "queued", "starting", "ready", "stopping"):
        session_of("alice", one, state=one)
    assert found(as_admin, state=state) == {state}


def test_a_session_that_reads_paused_is_found_as_paused_and_not_as_ready(as_admin: Client, alice: User) -> None:
    session_of("alice", "Works")
    session_of("alice", "Stands still", job_state="suspended")
    assert (found(as_admin, state="paused"), found(as_admin, state="ready")) == ({"Stands still"}, {"Works"})


@pytest.mark.usefixtures("some")
def test_a_cluster_leaves_its_sessions(as_admin: Client) -> None:
    assert found(as_admin, cluster="retired") == {"Elsewhere"}


@pytest.mark.usefixtures("some")
def test_an_app_leaves_its_sessions(as_admin: Client) -> None:
    assert found(as_admin, app="jupyter-container") == {"Proteins"}


@pytest.mark.usefixtures("some")
def test_all_that_is_asked_for_must_fit(as_admin: Client) -> None:
    assert found(as_admin, text="pbs01", state="ready", cluster="demo", app="jupyter") == {"Climate"}


@pytest.mark.usefixtures("some")
def test_clusters_and_apps_are_those_configured_and_those_in_use(as_admin: Client) -> None:
    assert choices(as_admin, "cluster") == ["demo", "retired"]
    assert set(choices(as_admin, "app")) == {"jupyter", "jupyter-container", "old-app"}


@pytest.mark.usefixtures("alice")
def test_a_session_that_has_ended_is_neither_found_nor_offered_by_its_cluster(as_admin: Client) -> None:
    end = {"state": SessionState.ENDED, "ended_at": now(), "end_reason": EndReason.COMPLETED}
    session_of("alice", "Over", cluster="retired", **end)
    assert found(as_admin, text="Over") == set()
    assert choices(as_admin, "cluster") == ["demo"]


def test_an_owner_is_the_whole_account_and_is_named(as_admin: Client, alice: User) -> None:
    session_of("alice", "Hers")
    session_of("alice2", "Another's")
    session_of("bob", "About alice")
    assert found(as_admin, owner="alice") == {"Hers"}
    assert "1 session of alice" in as_admin.get(SESSIONS, {"owner": "alice"}).content.decode()


@pytest.mark.usefixtures("some")
def test_an_owner_stays_when_the_form_is_sent_again(as_admin: Client) -> None:
    page = as_admin.get(SESSIONS, {"owner": "alice"}).content.decode()
    assert re.search(r'<input type="hidden" name="owner" value="alice"', page)
    assert 'name="owner"' not in as_admin.get(SESSIONS).content.decode()


@pytest.mark.usefixtures("some")
def test_the_number_found_is_shown(as_admin: Client) -> None:
    assert "2 sessions" in as_admin.get(SESSIONS, {"text": "bob"}).content.decode()


@pytest.mark.usefixtures("some")
def test_nothing_found_is_said_with_a_way_back_to_all(as_admin: Client) -> None:
    page = as_admin.get(SESSIONS, {"text": "nobody"}).content.decode()
    assert "No session fits this filter." in page
    assert re.search(rf'<a href="{SESSIONS}">Show all</a>', page)
    assert "Nothing is running" not in page


def test_an_empty_form_is_no_filter(as_admin: Client) -> None:
    page = as_admin.get(SESSIONS, {"text": " ", "state": "", "cluster": "", "app": ""}).content.decode()
    assert "Nothing is running" in page
    assert "Show all" not in page


def test_pages_keep_the_filter(as_admin: Client, alice: User, bob: User) -> None:
    for number in range(51):
        session_of("alice", f"Hers {number}", execution_host="node01")
    session_of("bob", "His", execution_host="node01")
    first = as_admin.get(SESSIONS, {"text": "node01", "owner": "alice"})
    older = link(first, "next")
    assert QueryDict(older.removeprefix("?")).dict() == {"text": "node01", "owner": "alice", "page": "2"}
    second = as_admin.get(f"{SESSIONS}{older}")
    assert [card.title for card in second.context["cards"]] == ["Hers 0"]


@pytest.mark.usefixtures("some")
def test_the_live_part_asks_again_with_the_filter(as_admin: Client) -> None:
    query = "text=bob%26co+%22%25&state=queued&page=1"
    page = as_admin.get(f"{SESSIONS}?{query}").content.decode()
    match = re.search(r'hx-get="([^"]+)"', page)
    assert match
    assert html.unescape(match[1]) == f"{SESSIONS}?{query}"


@pytest.mark.parametrize("page", ["0", "-1", "999", "abc", "\0", "9" * 400])
@pytest.mark.usefixtures("some")
def test_a_senseless_page_of_a_filter_is_one_that_exists(as_admin: Client, page: str) -> None:
    assert found(as_admin, text="node02", page=page) == {"Proteins"}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.usefixtures("some")
def test_a_text_that_means_something_to_a_database_finds_only_itself(as_admin: Client, text: str) -> None:
    assert found(as_admin, text=text) == set()
    session_of("bob", f"a {text} b"[:80])
    assert found(as_admin, text=text[:70]) == {f"a {text} b"[:80]}


@pytest.mark.parametrize("text", SENSELESS)
@pytest.mark.usefixtures("some")
def test_a_text_that_cannot_be_is_answered_at_its_field(as_admin: Client, text: str) -> None:
    answer = as_admin.get(SESSIONS, {"text": text})
    assert (answer.status_code, answer.context["cards"]) == (200, [])
    assert list(answer.context["filter"].form.errors) == ["text"]
    assert 'class="errorlist"' in answer.content.decode()


@pytest.mark.parametrize("name", ["state", "cluster", "app"])
@pytest.mark.parametrize("value", ["ended", "no-such", "%", "\0", "' OR 1=1", "x" * 5000])
@pytest.mark.usefixtures("some")
def test_a_choice_that_is_not_offered_is_answered_at_its_field(as_admin: Client, name: str, value: str) -> None:
    answer = as_admin.get(SESSIONS, {name: value})
    assert (answer.status_code, answer.context["cards"]) == (200, [])
    assert list(answer.context["filter"].form.errors) == [name]


@pytest.mark.parametrize("value", ["\0", "x" * 65])
@pytest.mark.usefixtures("some")
def test_an_owner_that_cannot_be_is_answered(as_admin: Client, value: str) -> None:
    answer = as_admin.get(SESSIONS, {"owner": value})
    assert (answer.status_code, answer.context["cards"]) == (200, [])
    assert 'class="errorlist"' in answer.content.decode()


@pytest.mark.parametrize("name", ["text", "state", "owner"])
@pytest.mark.parametrize("path", [SESSIONS, PEOPLE])
def test_what_was_typed_is_shown_escaped(as_admin: Client, path: str, name: str) -> None:
    page = as_admin.get(path, {name: '"><img src=x onerror=alert(1)>'}).content.decode()
    assert "<img src=x" not in page


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMINISTRATOR])
def test_auditors_and_administrators_filter_the_sessions(alice: User, as_alice: Client, role: Role) -> None:
    session_of("bob", "His", execution_host="node01")
    User.objects.filter(pk=alice.pk).update(role=role)
    assert found(as_alice, text="node01") == {"His"}


@pytest.mark.parametrize("path", [SESSIONS, PEOPLE])
def test_to_others_the_filtered_pages_do_not_exist(as_alice: Client, path: str) -> None:
    assert as_alice.get(path, {"text": "alice"}).status_code == 404


# ---- all sessions on some days --------------------------------------------------------------------------------------

TUESDAY = "2026-03-10"
WEDNESDAY = "2026-03-11"


def ran(title: str, begun: str, ended: str = "", **values: Any) -> InteractiveSession:
    """A session of bob whose job began to run then; ``ended`` empty: it still runs. Times: day of March 2026, hour."""
    day, hour = map(int, begun.split())
    values["started_at"] = dt.datetime(2026, 3, day, hour, tzinfo=dt.UTC)
    if ended:
        day, hour = map(int, ended.split())
        values |= {"ended_at": dt.datetime(2026, 3, day, hour, tzinfo=dt.UTC), "end_reason": EndReason.COMPLETED}
        values["state"] = SessionState.ENDED
    return session_of("bob", title, **{"execution_host": "c0123"} | values)


@pytest.fixture
def spring(alice: User, bob: User) -> None:
    """Sessions around a Tuesday, by when they ran."""
    ran("Monday's", "9 8", "9 23")
    ran("Over night", "9 20", "10 1")
    ran("Tuesday's", "10 8", "10 9")
    ran("All the week", "8 0", "14 0")
    ran("Elsewhere", "10 8", "10 9", execution_host="c0124")
    ran("Wednesday's", "11 0", "11 2")
    ran("Still there", "10 23")
    over = {"state": SessionState.ENDED, "ended_at": dt.datetime(2026, 3, 10, 9, tzinfo=dt.UTC)}
    session_of("bob", "Never ran", end_reason=EndReason.SUBMIT_REJECTED, **over)
    session_of("bob", "Waits", state=SessionState.QUEUED)


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        (
            {"text": "c0123", "since": TUESDAY, "until": TUESDAY},
            {"Over night", "Tuesday's", "All the week", "Still there"},
        ),
        ({"text": "c0124", "since": TUESDAY, "until": TUESDAY}, {"Elsewhere"}),
        ({"text": "c0123", "since": WEDNESDAY}, {"All the week", "Wednesday's", "Still there"}),
        ({"until": "2026-03-09"}, {"Monday's", "Over night", "All the week"}),
        ({"since": TUESDAY, "until": TUESDAY, "state": "ready"}, {"Still there"}),
        ({"since": TUESDAY, "until": TUESDAY, "owner": "alice"}, set()),
        ({"since": "2026-03-20", "until": "2026-03-20"}, {"Still there"}),
        ({"since": "9999-12-31"}, {"Still there"}),
        ({"until": "0001-01-02"}, set()),
        ({"since": "", "until": ""}, {"Still there", "Waits"}),
    ],
)
@pytest.mark.usefixtures("spring")
def test_days_leave_what_ran_on_one_of_them_ended_or_not(
    as_admin: Client, query: dict[str, str], titles: set[str]
) -> None:
    assert found(as_admin, **query) == titles


@pytest.mark.usefixtures("spring")
def test_days_are_the_readers(as_admin: Client, admin: User) -> None:
    User.objects.filter(pk=admin.pk).update(time_zone="Asia/Shanghai")  # whose Wednesday begins at 16 o'clock UTC
    assert "Still there" not in found(as_admin, since=TUESDAY, until=TUESDAY)
    assert "Wednesday's" not in found(as_admin, since=TUESDAY, until=TUESDAY)
    assert "Monday's" in found(as_admin, since=TUESDAY, until=TUESDAY)


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
@pytest.mark.parametrize("day", ["0001-01-01", "0001-01-02", "9999-12-30", "9999-12-31"])
@pytest.mark.parametrize("path", [SESSIONS, "/audit/"])
@pytest.mark.usefixtures("spring")
def test_the_calendars_ends_are_days_in_every_time_zone(
    as_admin: Client, admin: User, path: str, day: str, zone: str
) -> None:
    User.objects.filter(pk=admin.pk).update(time_zone=zone)
    for query in ({"since": day}, {"until": day}, {"since": day, "until": day}):
        answer = as_admin.get(path, query)
        assert (answer.status_code, dict(answer.context["filter"].form.errors)) == (200, {})


@pytest.mark.parametrize("path", [SESSIONS, "/audit/"])
@pytest.mark.usefixtures("spring")
def test_days_the_wrong_way_round_leave_nothing_and_are_answered_at_the_second(as_admin: Client, path: str) -> None:
    answer = as_admin.get(path, {"since": WEDNESDAY, "until": TUESDAY})  # "All the week" lasted through both
    assert list(answer.context["filter"].form.errors) == ["until"]
    assert "before the one that the list begins with" in answer.content.decode()
    assert not (answer.context["cards"] if path == SESSIONS else answer.context["events"])


@pytest.mark.usefixtures("spring")
def test_of_days_a_cluster_and_an_app_that_are_no_longer_configured_can_be_chosen(as_admin: Client) -> None:
    ran("Of old", "10 8", "10 9", cluster="sold", app="gone")
    assert found(as_admin, since=TUESDAY, until=TUESDAY, cluster="sold") == {"Of old"}
    assert found(as_admin, since=TUESDAY, until=TUESDAY, app="gone") == {"Of old"}
    for query in ({}, {"since": WEDNESDAY}):
        form = as_admin.get(SESSIONS, query).context["filter"].form
        assert "sold" not in dict(form.fields["cluster"].choices)
        assert "gone" not in dict(form.fields["app"].choices)


@pytest.mark.usefixtures("spring")
def test_of_days_ended_is_a_state_to_choose(as_admin: Client) -> None:
    every = found(as_admin, since=TUESDAY, until=TUESDAY)
    assert found(as_admin, since=TUESDAY, until=TUESDAY, state="ended") == every - {"Still there"}
    assert found(as_admin, since=TUESDAY, until=TUESDAY, state="ready") == {"Still there"}
    live = as_admin.get(SESSIONS).context["filter"].form.fields["state"]
    assert "ended" not in dict(live.choices)


@pytest.mark.usefixtures("spring")
def test_of_days_the_list_says_when_sessions_ran_and_begins_with_the_last(as_admin: Client) -> None:
    answer = as_admin.get(SESSIONS, {"text": "c0123", "since": TUESDAY, "until": TUESDAY})
    page = answer.content.decode()
    assert [card.title for card in answer.context["cards"]] == [
        "Still there",
        "Tuesday's",
        "Over night",
        "All the week",
    ]
    assert "ran on these days" in page
    assert re.findall(r'<th scope="col">(Began to run|Ended|Since|Time left)</th>', page) == ["Began to run", "Ended"]
    assert '<time datetime="2026-03-10T08:00:00+00:00"' in page
    assert '<time datetime="2026-03-10T09:00:00+00:00"' in page


@pytest.mark.usefixtures("spring")
def test_an_account_in_the_list_keeps_the_days(as_admin: Client) -> None:
    page = as_admin.get(SESSIONS, {"since": TUESDAY, "until": TUESDAY}).content.decode()
    match = re.search(r'<th scope="row"><a href="([^"]+)">bob</a>', page)
    assert match
    query = QueryDict(html.unescape(match[1]).removeprefix("?")).dict()
    assert query == {"since": TUESDAY, "until": TUESDAY, "owner": "bob"}


@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "\0", "0000-00-00", "' OR 1=1"])
@pytest.mark.usefixtures("spring")
def test_a_day_that_cannot_be_is_answered_at_its_field(as_admin: Client, day: str) -> None:
    answer = as_admin.get(SESSIONS, {"since": day})
    assert (answer.status_code, answer.context["cards"]) == (200, [])
    assert list(answer.context["filter"].form.errors) == ["since"]


@pytest.mark.parametrize("path", [SESSIONS, "/audit/"])
def test_the_days_are_the_last_fields(as_admin: Client, path: str) -> None:
    fields = as_admin.get(path).context["filter"].form.visible_fields()
    assert [field.name for field in fields][-2:] == ["since", "until"]


# ---- people ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(admin: User, alice: User, bob: User) -> None:
    """Two people with names and addresses."""
    User.objects.filter(pk=alice.pk).update(display_name="Ada Lovelace", email="ada@example.org")
    User.objects.filter(pk=bob.pk).update(display_name="Robert 陈", email="rc@lab.example.org")


@pytest.mark.parametrize(
    ("text", "accounts"),
    [
        ("ALI", ["alice"]),
        ("love", ["alice"]),
        ("陈", ["bob"]),
        ("rc@", ["bob"]),
        ("example.org", ["alice", "bob"]),
        (" bob ", ["bob"]),
        ("", ["admin", "alice", "bob"]),
        ("nobody", []),
    ],
)
@pytest.mark.usefixtures("crowd")
def test_a_text_is_looked_for_in_account_name_and_mail(as_admin: Client, text: str, accounts: list[str]) -> None:
    assert people(as_admin, text=text) == accounts


@pytest.mark.usefixtures("crowd")
def test_the_number_of_people_found_is_shown(as_admin: Client) -> None:
    assert "2 people" in as_admin.get(PEOPLE, {"text": "example.org"}).content.decode()


@pytest.mark.usefixtures("crowd")
def test_nobody_found_is_said_with_a_way_back_to_all(as_admin: Client) -> None:
    page = as_admin.get(PEOPLE, {"text": "nobody"}).content.decode()
    assert "Nobody fits this filter." in page
    assert re.search(rf'<a href="{PEOPLE}">Show all</a>', page)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.usefixtures("crowd")
def test_a_text_that_means_something_to_a_database_finds_only_who_is_called_so(as_admin: Client, text: str) -> None:
    assert people(as_admin, text=text) == []
    User.objects.filter(username="bob").update(display_name=f"a {text} b")
    assert people(as_admin, text=text) == ["bob"]


@pytest.mark.parametrize("text", SENSELESS)
@pytest.mark.usefixtures("crowd")
def test_a_text_that_cannot_be_anybodys_is_answered_at_its_field(as_admin: Client, text: str) -> None:
    answer = as_admin.get(PEOPLE, {"text": text})
    assert (answer.status_code, list(answer.context["page_obj"])) == (200, [])
    assert 'class="errorlist"' in answer.content.decode()


def test_pages_of_people_keep_the_filter(as_admin: Client) -> None:
    for number in range(51):
        User.objects.create(username=f"guest{number:02}", password="!")
    second = as_admin.get(f"{PEOPLE}{link(as_admin.get(PEOPLE, {'text': 'guest'}), 'next')}")
    assert [person.username for person in second.context["page_obj"]] == ["guest50"]


def test_a_number_that_makes_no_sense_is_marked_at_its_person(as_admin: Client, alice: User, bob: User) -> None:
    page = as_admin.post(PEOPLE, {"user": bob.pk, "sessions_allowed": "1001"}).content.decode()
    assert '<a href="#id_sessions_allowed">Sessions at a time</a>' in page
    marked = re.findall(r'<input class="form-control is-invalid"[^>]+>', page)
    assert len(marked) == 1
    assert 'id="id_sessions_allowed"' in marked[0]
    assert 'value="1001"' in marked[0]
    assert "Sessions at a time for bob" in marked[0]


def test_pages_of_people_follow_the_alphabet_and_say_so(as_admin: Client) -> None:
    for number in range(51):
        User.objects.create(username=f"guest{number:02}", password="!")
    assert re.search(r'rel="next"[^>]+>\s*Next\b', as_admin.get(PEOPLE).content.decode())
    assert re.search(r'rel="prev"[^>]+>.*Previous\b', as_admin.get(PEOPLE, {"page": 2}).content.decode())


@pytest.mark.usefixtures("crowd", "some")
def test_a_persons_row_leads_to_their_live_sessions_and_to_no_others(as_admin: Client) -> None:
    session_of("bobby", "Another's")
    page = as_admin.get(PEOPLE, {"text": "rc@"}).content.decode()
    match = re.search(rf'href="({SESSIONS}\?[^"]+)"', page)
    assert match
    answer = as_admin.get(html.unescape(match[1]))
    assert {card.title for card in answer.context["cards"]} == {"Waiting", "Elsewhere"}


def test_a_persons_row_leads_to_their_events(as_admin: Client, bob: User) -> None:
    User.objects.filter(pk=bob.pk).update(username="b&b=%+ x")
    page = as_admin.get(PEOPLE, {"text": "b&b"}).content.decode()
    match = re.search(r'href="(/audit/\?[^"]+)"', page)
    assert match
    answer = as_admin.get(html.unescape(match[1]))
    assert answer.context["filter"].form.cleaned_data["actor"] == "b&b=%+ x"


@pytest.mark.usefixtures("crowd")
def test_a_number_that_is_set_leads_back_to_the_filtered_list(as_admin: Client, bob: User) -> None:
    page = as_admin.get(PEOPLE, {"text": "bob"}).content.decode()
    assert f'action="{PEOPLE}?text=bob"' in page
    answer = as_admin.post(f"{PEOPLE}?text=bob", {"user": bob.pk, "sessions_allowed": "3"})
    assert answer.headers["Location"] == f"{PEOPLE}?text=bob"


@pytest.mark.parametrize(("act", "may_enter"), [("disable", True), ("enable", False)])
@pytest.mark.usefixtures("crowd")
def test_shutting_out_and_letting_in_lead_back_to_the_filtered_list(
    as_admin: Client, bob: User, act: str, may_enter: bool
) -> None:
    User.objects.filter(pk=bob.pk).update(is_active=may_enter)
    action = f"{PEOPLE}{bob.pk}/{act}/?text=bob"
    assert f'action="{action}"' in as_admin.get(PEOPLE, {"text": "bob"}).content.decode()
    assert as_admin.post(action).headers["Location"] == f"{PEOPLE}?text=bob"


@pytest.mark.usefixtures("crowd")
def test_an_auditor_does_not_see_the_people(alice: User, as_alice: Client) -> None:
    User.objects.filter(pk=alice.pk).update(role=Role.AUDITOR)
    assert as_alice.get(PEOPLE, {"text": "bob"}).status_code == 404
