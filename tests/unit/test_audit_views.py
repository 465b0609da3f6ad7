"""The audit log's pages: who gets them, filters, paging, export."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client
from django.utils import timezone

from portal import clock
from portal.accounts import reauthentication
from portal.accounts.models import Role, User
from portal.audit import selectors
from portal.audit.events import SessionSubmitted, UserSignedOut
from portal.audit.filters import AuditFilter
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.clock import now

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("valkey")]


def record_some(count: int, actor: str = "alice", session_id: str = "abcdefghjkmn") -> None:
    """``count`` events of a session."""
    for number in range(count):
        record(SessionSubmitted(job_id=f"{number}.pbs01"), actor=actor, session_id=session_id)


def download(user: User, query: str = "") -> tuple[StreamingHttpResponse, str]:
    """An export, streamed as in production."""

    async def get() -> tuple[Any, str]:
        client = AsyncClient()
        await client.aforce_login(user, backend="portal.accounts.backends.PortalBackend")
        session = await client.asession()
        await session.aset(reauthentication.KEY, now().timestamp())
        await session.asave()
        response: Any = await client.get(f"/audit/export/?{query}")
        if not response.streaming:
            return response, response.content.decode()
        return response, "".join([piece.decode() async for piece in response])

    return async_to_sync(get)()


def test_visitor_is_sent_to_sign_in() -> None:
    response = Client().get("/audit/")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/sign-in/")


@pytest.mark.parametrize("path", ["/audit/", "/audit/export/"])
def test_user_gets_404_and_the_attempt_is_recorded_once(as_alice: Client, path: str) -> None:
    assert [as_alice.get(path).status_code for _ in range(3)] == [404] * 3
    event = AuditEvent.objects.get(name="audit.access_denied")
    assert event.actor == "alice"
    assert event.data == {"page": path}


def test_auditor_may_read(alice: User, as_alice: Client) -> None:
    User.objects.filter(pk=alice.pk).update(role=Role.AUDITOR)
    assert as_alice.get("/audit/").status_code == 200


def test_page_shows_the_newest_first(as_admin: Client) -> None:
    record_some(selectors.PAGE + 10)
    response = as_admin.get("/audit/")
    assert [row.sequence for row in response.context["events"]] == list(range(60, 10, -1))
    assert response.context["next_cursor"] == 11
    assert response.context["chain"].count == 60
    assert "59.pbs01" in response.content.decode()


def test_last_page_has_no_next(as_admin: Client) -> None:
    record_some(selectors.PAGE + 10)
    response = as_admin.get("/audit/?before=11")
    assert [row.sequence for row in response.context["events"]] == list(range(10, 0, -1))
    assert response.context["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["abc", "-1", "9" * 30, "１", "1;DROP", ""])
def test_senseless_cursor_is_the_first_page(as_admin: Client, cursor: str) -> None:
    record_some(1)
    response = as_admin.get("/audit/", {"before": cursor})
    assert [row.sequence for row in response.context["events"]] == [1]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"name": "user.signed_out"}, [3]),
        ({"actor": "bob"}, [3, 2]),
        ({"session": "sessionofbob"}, [2]),
        ({"actor": "bob", "name": "session.submitted"}, [2]),
        ({"actor": "carol"}, []),
        ({"name": "no.such_event"}, []),
        ({"since": "yesterday"}, []),
        ({"actor": "bob\0"}, []),
        ({"actor": "x" * 65}, []),
        ({"until": "9999-12-31"}, [3, 2, 1]),
    ],
)
def test_filters(as_admin: Client, query: dict[str, str], numbers: list[int]) -> None:
    record_some(1)
    record_some(1, "bob", "sessionofbob")
    record(UserSignedOut(), actor="bob")
    response = as_admin.get("/audit/", query)
    assert response.status_code == 200
    assert [row.sequence for row in response.context["events"]] == numbers


def test_pages_of_days_go_by_time_and_leave_nothing_out_where_the_clock_was_put_back() -> None:
    for hour in (1, 4, 2, 2, 3):
        with patch.object(clock, "now", return_value=dt.datetime(2026, 11, 23, hour, tzinfo=dt.UTC)):
            record_some(1)
    days = AuditFilter({"since": "2026-11-23", "until": "2026-11-23"})
    assert days.has_days
    seen: list[int] = []
    page = selectors.page(days.chosen, size=2, by_time=True)
    seen += [row.sequence for row in page.rows]
    while page.next_cursor is not None:
        page = selectors.page(days.chosen, before=page.next_cursor, size=2, by_time=True)
        seen += [row.sequence for row in page.rows]
    assert seen == [2, 5, 4, 3, 1]


def test_days_are_the_readers(admin: User, as_admin: Client) -> None:
    """23:30 in UTC is the next day in Shanghai."""
    with patch.object(clock, "now", return_value=dt.datetime(2026, 11, 23, 23, 30, tzinfo=dt.UTC)):
        record_some(1)
    day = {"since": "2026-11-24", "until": "2026-11-24"}
    assert not as_admin.get("/audit/", day).context["events"]
    User.objects.filter(pk=admin.pk).update(time_zone="Asia/Shanghai")
    assert len(as_admin.get("/audit/", day).context["events"]) == 1
    assert timezone.get_current_timezone_name() == "UTC"


def test_stored_text_is_shown_escaped(as_admin: Client) -> None:
    record(SessionSubmitted(job_id="<script>alert(1)</script>"), actor='<img src=x onerror="alert(2)">')
    page = as_admin.get("/audit/").content.decode()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page


def test_spoilt_row_is_still_shown(as_admin: Client) -> None:
    record_some(2)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE audit_auditevent SET data_json = '{oops' WHERE sequence = 1")
    assert as_admin.get("/audit/").status_code == 200


def test_csv_export_holds_every_row(admin: User) -> None:
    record_some(3)
    response, text = download(admin, "format=csv")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"].startswith('attachment; filename="footbridge-audit-')
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["sequence"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["data"] == '{"job_id":"0.pbs01"}'


def test_json_export_can_be_verified_without_the_portal(admin: User) -> None:
    record_some(5)
    _, text = download(admin, "format=jsonl")
    previous = "0" * 64
    for line in text.splitlines():
        row = json.loads(line)
        stated = row.pop("hash")
        canonical = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert row["previous_hash"] == previous
        assert hashlib.sha256(canonical.encode()).hexdigest() == stated
        previous = stated
    assert len(text.splitlines()) == 5


def test_export_is_an_event_and_not_part_of_itself(admin: User) -> None:
    record_some(3)
    _, text = download(admin, "format=jsonl&actor=alice")
    event = AuditEvent.objects.get(name="audit.exported")
    assert event.actor == "admin"
    assert event.data == {"format": "jsonl", "rows": 3}
    assert len(text.splitlines()) == 3


def test_export_is_streamed_in_pieces(admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "_BATCH", 2)
    record_some(5)
    _, text = download(admin, "format=jsonl")
    assert [json.loads(line)["sequence"] for line in text.splitlines()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "query",
    [
        "format=xlsx",
        "format=csv&since=yesterday",
        "format=csv&since=2026-03-02&until=2026-03-01",
        "format=csv&name=no.such_event",
    ],
)
def test_senseless_export_is_refused_and_no_event(admin: User, query: str) -> None:
    record_some(1)
    response, _ = download(admin, query)
    assert response.status_code == 400
    assert not AuditEvent.objects.filter(name="audit.exported").exists()


def test_page_costs_the_same_at_the_end_of_a_long_log(as_admin: Client, django_assert_max_num_queries: Any) -> None:
    record_some(120)
    with django_assert_max_num_queries(7):
        answer = as_admin.get("/audit/?before=70")
    assert [row.sequence for row in answer.context["events"]] == list(range(69, 19, -1))
