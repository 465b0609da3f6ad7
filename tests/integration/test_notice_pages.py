"""Where notices are read and chosen: the profile, cards, and what open pages ask for."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client

from launcher.flows.remind import warn_of_ends
from launcher.models import Notice, NoticeKind
from portal.accounts.models import User
from portal.clock import now
from tests.integration.test_notices import running

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("demo_cluster")]


def save(client: Client, **values: str) -> tuple[int, str]:
    """Send the profile's form about notices; the page after it."""
    answer = client.post("/profile/notices/", values, follow=True)
    return answer.status_code, answer.content.decode()


@pytest.mark.parametrize(
    ("written", "kept"), [("30, 10", [30, 10]), ("5 60", [60, 5]), ("１５", None), ("20，20、5", [20, 5]), ("", [])]
)
def test_minutes_are_kept_largest_first(as_alice: Client, alice: User, written: str, kept: list[int] | None) -> None:
    _status, page = save(as_alice, warn_minutes=written)
    alice.refresh_from_db()
    assert alice.warn_minutes == ([30, 10] if kept is None else kept)
    assert ("Please write whole minutes" in page) == (kept is None)


@pytest.mark.parametrize("written", ["soon", "-5", "0", "1441", "1.5", "10; drop", "99999999999999999999"])
def test_what_is_no_number_of_minutes_gets_a_sentence(as_alice: Client, alice: User, written: str) -> None:
    _status, page = save(as_alice, warn_minutes=written)
    assert "Please write whole minutes from 1 to 1440, separated by commas: 30, 10." in page
    alice.refresh_from_db()
    assert alice.warn_minutes == [30, 10]


def test_more_numbers_than_anybody_reads_are_refused(as_alice: Client) -> None:
    assert "At most 5 numbers, please." in save(as_alice, warn_minutes="1 2 3 4 5 6")[1]


def test_without_a_mail_server_nothing_is_asked_about_mail(as_alice: Client, alice: User) -> None:
    page = as_alice.get("/profile/").content.decode()
    assert 'name="warn_minutes"' in page
    assert 'name="email"' not in page
    save(as_alice, warn_minutes="10", email="mallory@example.org")
    alice.refresh_from_db()
    assert (alice.email, alice.mail_notices) == ("", True)


def test_an_address_is_kept_and_can_be_taken_away(as_alice: Client, alice: User, settings: object) -> None:
    settings.EMAIL_HOST = "localhost"  # type: ignore[attr-defined]  # pytest-django's fixture
    save(as_alice, warn_minutes="10", email="alice@example.org", mail_notices="on")
    alice.refresh_from_db()
    assert (alice.email, alice.mail_notices, alice.warn_minutes) == ("alice@example.org", True, [10])
    save(as_alice, warn_minutes="10", email="")
    alice.refresh_from_db()
    assert (alice.email, alice.mail_notices) == ("", False)


@pytest.mark.parametrize("address", ["alice", "a@b@c", "a@example.org\nBcc: b@example.org", "x" * 300 + "@example.org"])
def test_what_is_no_address_is_refused(as_alice: Client, alice: User, settings: object, address: str) -> None:
    settings.EMAIL_HOST = "localhost"  # type: ignore[attr-defined]  # pytest-django's fixture
    assert "data-error-summary" in save(as_alice, warn_minutes="10", email=address)[1]
    alice.refresh_from_db()
    assert alice.email == ""


def test_card_and_page_say_when_it_ends(as_alice: Client, alice: User) -> None:
    session = running(alice, left=9)
    warn_of_ends()
    for address in ("/", f"/sessions/{session.pk}/"):
        page = as_alice.get(address).content.decode()
        assert "This session ends at <time" in page
        assert "is-short" in page


def test_a_warning_of_an_end_that_has_moved_is_no_longer_shown(as_alice: Client, alice: User) -> None:
    session = running(alice, left=9)
    warn_of_ends()
    session.walltime_ends_at = now() + dt.timedelta(hours=2)
    session.save()
    page = as_alice.get("/").content.decode()
    assert "This session ends at" not in page
    assert "is-short" not in page


def test_an_idle_notice_is_shown_until_somebody_works_again(as_alice: Client, alice: User) -> None:
    session = running(alice, left=90)
    at = now() + dt.timedelta(minutes=10)
    session.notices.create(kind=NoticeKind.IDLE, key="idle:1", params={"ends_at": at.isoformat()}, created_at=now())
    assert "it will be stopped at <time" in as_alice.get("/").content.decode()
    session.active_at = now()
    session.save()
    assert "it will be stopped at" not in as_alice.get("/").content.decode()


def test_who_looks_at_somebody_elses_session_is_not_told_to_save(as_admin: Client, alice: User) -> None:
    session = running(alice, left=9)
    warn_of_ends()
    assert "Save your work" not in as_admin.get(f"/sessions/{session.pk}/").content.decode()


def test_open_pages_get_what_is_new_of_their_own_sessions(as_alice: Client, as_bob: Client, alice: User) -> None:
    session = running(alice, left=9, title="<b>%(at)s</b>")
    warn_of_ends()
    session.notices.create(kind=NoticeKind.READY, key="old", created_at=now() - dt.timedelta(hours=1))
    assert session.walltime_ends_at is not None
    assert as_alice.get("/notices/").json() == {
        "notices": [
            {
                "id": Notice.objects.get(kind=NoticeKind.TIME).pk,
                "kind": "time",
                "title": "<b>%(at)s</b> ends soon",
                "before": "This session ends at ",
                "at": session.walltime_ends_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "after": ". Save your work.",
                "url": f"/sessions/{session.pk}/",
            }
        ]
    }
    assert as_bob.get("/notices/").json() == {"notices": []}


def test_who_is_not_signed_in_is_told_nothing(client: Client, alice: User) -> None:
    running(alice, left=9)
    warn_of_ends()
    assert client.get("/notices/").status_code == 302


def test_cards_of_many_sessions_need_no_more_queries(as_alice: Client, alice: User) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = []
    for _ in range(2):
        running(alice, left=9)
        warn_of_ends()
        with CaptureQueriesContext(
            connection,
        ) as asked:
            as_alice.get("/sessions/cards/")
        counts.append(len(asked))
    assert counts[0] == counts[1]
