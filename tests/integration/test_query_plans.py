"""Pages and rounds on PostgreSQL with years of sessions and of audit events: they read what they show, not the history.

What is counted is how many rows of the long tables a statement looks at, which no other work on the machine changes.
``FOOTBRIDGE_PLANS=full``, as `make postgres` sets it: 100,000 sessions and a million events.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_django
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client, override_settings

from launcher import parts, selectors, services
from launcher.flows import activity, cleanup, poll, remind
from launcher.tasks import tick
from portal.accounts.models import Role, User
from portal.accounts.tokens import create_token
from portal.audit import chain
from portal.audit.chain import Tip
from portal.audit.models import AuditHead
from portal.audit.selectors import PAGE, sealing_keys
from portal.clock import now
from tests.conftest import RunningCluster, _signed_in

SESSIONS, EVENTS = (100_000, 1_000_000) if os.environ.get("FOOTBRIDGE_PLANS") == "full" else (10_000, 50_000)
PEOPLE = 500
LIVE = 100
DAYS = 700
MOST_ROWS = 2_500
"""That one statement may look at: everything of one person, what is live, a day of everybody's events."""
LONG = {"launcher_interactivesession", "launcher_notice", "audit_auditevent"}

if connection.vendor == "sqlite":
    pytest.skip("these are the plans of PostgreSQL", allow_module_level=True)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FILL = f"""
INSERT INTO accounts_user (username, password, display_name, role, groups_on_cluster, language, time_zone, email,
    mail_notices, warn_minutes, is_active, created_at)
SELECT 'user' || n, '!', '', 'user', '[]', '', '', 'user' || n || '@example.org', true, '[30, 10]', true, now()
FROM generate_series(0, {PEOPLE - 1}) n;

INSERT INTO launcher_interactivesession SELECT row.*
FROM generate_series(0, {SESSIONS - 1}) n, LATERAL jsonb_populate_record(null::launcher_interactivesession, (
    SELECT jsonb_object_agg(column_name, CASE
        WHEN is_nullable = 'YES' THEN 'null'::jsonb
        WHEN data_type IN ('integer', 'smallint', 'bigint') THEN '0'::jsonb
        WHEN data_type = 'jsonb' THEN '{{}}'::jsonb ELSE '""'::jsonb END)
    FROM information_schema.columns WHERE table_name = 'launcher_interactivesession')
    || jsonb_build_object(
        'id', 's' || n, 'host_label', 'h' || n, 'job_id', n || '.pbs', 'base_url', '/', 'app', 'jupyter',
        'owner_id', (SELECT min(id) FROM accounts_user WHERE username = 'user0') + n % {PEOPLE},
        'username', 'user' || n % {PEOPLE}, 'cluster', 'demo', 'folder', '/home/s' || n,
        'execution_host', 'c' || lpad((n % 400)::text, 4, '0'),
        'choices', '{{"cores": 1, "memory_mib": 1024, "walltime_seconds": 3600, "queue": "workq"}}'::jsonb,
        'created_at', now() - ({SESSIONS} - n) * interval '{DAYS} days' / {SESSIONS},
        'submitted_at', now() - ({SESSIONS} - n) * interval '{DAYS} days' / {SESSIONS},
        'started_at', now() - ({SESSIONS} - n) * interval '{DAYS} days' / {SESSIONS})
    || CASE WHEN n >= {SESSIONS - LIVE} THEN jsonb_build_object('state', 'ready', 'ready_at', now(),
        'walltime_ends_at', now() + interval '5 hours')
    ELSE jsonb_build_object('state', 'ended', 'end_reason', 'walltime', 'end_code', 'ended.walltime',
        'walltime_ends_at', now() - ({SESSIONS} - n) * interval '{DAYS} days' / {SESSIONS},
        'ended_at', now() - ({SESSIONS} - n) * interval '{DAYS} days' / {SESSIONS},
        'folder_removed_at', CASE WHEN n < {SESSIONS} * 0.95 THEN now() END) END) row;

INSERT INTO launcher_notice (session_id, kind, key, params, created_at, mail_wanted, mail_attempts, mailed_at)
SELECT id, 'ready', 'ready:0', '{{}}', created_at, true, 1, created_at FROM launcher_interactivesession;

INSERT INTO audit_auditevent (sequence, at, name, version, actor, address, session_id, data_json, previous_hash, hash)
SELECT n, now() - ({EVENTS} - n) * interval '{DAYS} days' / {EVENTS},
    (ARRAY['session.launched', 'session.submitted', 'session.started', 'session.ready', 'session.connected',
        'session.ended', 'user.signed_in', 'user.signed_out'])[1 + n % 8],
    1, 'user' || n % {PEOPLE}, '192.0.2.1', 's' || n % {SESSIONS}, '{{}}', repeat('0', 64), repeat('1', 64)
FROM generate_series(1, {EVENTS}) n;

"""  # noqa: S608  (numbers of this file only)


@pytest.fixture(scope="module")
def years(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[None]:
    """What a portal holds that many people have used for long. ``user0`` is an administrator, too."""
    with django_db_blocker.unblock():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute(FILL)
            tip = Tip(EVENTS, "1" * 64)
            seal = chain.head_seal(tip, sealing_keys()[0])
            AuditHead.objects.create(pk=AuditHead.ONLY, count=tip.count, hash=tip.hash, seal=seal)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        yield
        call_command("flush", verbosity=0, interactive=False)


class Statements(logging.Handler):
    """Keeps the statements of all threads: a page's view need not run in the test's own."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        sql = getattr(record, "sql", None) or ""
        start = sql.find("SELECT")  # it may be behind DECLARE … CURSOR FOR
        if sql.startswith(("SELECT", "DECLARE")) and not sql.startswith("SELECT pg_"):
            self.texts.append(sql[start:])


def statements(work: Callable[[], object]) -> list[str]:
    """The questions that ``work`` asks."""
    found, logger = Statements(), logging.getLogger("django.db.backends")
    level = logger.level
    with override_settings(DEBUG=True):  # statements are logged only then
        logger.addHandler(found)
        logger.setLevel(logging.DEBUG)
        try:
            work()
        finally:
            logger.removeHandler(found)
            logger.setLevel(level)
    assert found.texts, "nothing was asked"
    return found.texts


def looked_at(node: dict[str, Any]) -> int:
    """Rows of the long tables that this part of a plan, and all below it, read."""
    below = sum(looked_at(part) for part in node.get("Plans", ()))
    if node.get("Relation Name") not in LONG:
        return below
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return below + round((node["Actual Rows"] + removed) * node["Actual Loops"])


def long_ways(texts: list[str], *, most_rows: int = MOST_ROWS) -> list[str]:
    """Those that read too much, each with how much and how long, and its plan."""
    found = []
    for text in texts:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + text)
            (answer,) = cursor.fetchone()
            (explained,) = answer if isinstance(answer, list) else json.loads(answer)
        rows = looked_at(explained["Plan"])
        if rows > most_rows:
            found.append(
                f"{rows} rows, {explained['Execution Time']:.0f} ms: {text}\n{json.dumps(explained, indent=1)}"
            )
    return found


@pytest.fixture
def reader(years: None, demo_cluster: RunningCluster, db: None) -> Client:
    """A browser, and a program, of somebody with a long history who is an administrator."""
    User.objects.filter(username="user0").update(role=Role.ADMINISTRATOR)
    user = User.objects.get(username="user0")
    client = _signed_in(user)
    token = create_token(user=user, name="test", scope="read", days=1)
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {token.text}"
    return client


OLD = (now() - dt.timedelta(days=DAYS * 2 // 3)).date()
RECENT = (now() - dt.timedelta(days=3)).date()
PAGES = [
    "/",
    "/sessions/cards/",
    "/notices/",
    "/launch/jupyter/",
    "/history/",
    "/history/?page=5",
    "/sessions/s42/",
    "/administration/sessions/",
    "/administration/sessions/?text=user7&state=ready&cluster=demo&app=jupyter",
    "/administration/sessions/?state=paused&owner=user7",
    f"/administration/sessions/?since={RECENT}&until={RECENT}",
    f"/administration/sessions/?since={RECENT}&text=c0123",
    "/administration/clusters/",
    "/administration/users/",
    "/administration/users/?text=user7",
    "/administration/limits/",
    "/audit/",
    f"/audit/?before={EVENTS // 2}",
    "/audit/?name=session.ready",
    "/audit/?name=audit.exported",
    f"/audit/?name=session.ready&before={EVENTS // 2}",
    "/audit/?actor=user7",
    "/audit/?actor=nobody",
    "/audit/?actor=user7&name=session.launched",
    "/audit/?session=s42",
    f"/audit/?since={OLD}",
    f"/audit/?until={OLD}",
    f"/audit/?since={OLD}&until={OLD}",
    "/audit/?since=2001-01-01&until=2001-01-02",
    "/audit/?since=2101-01-01",
    f"/audit/?until={OLD}&name=session.ready",
    "/api/v1/sessions",
    "/api/v1/sessions?ended=true",
    "/api/v1/sessions?everybody=true",
    f"/api/v1/sessions?everybody=true&after=s{SESSIONS - LIVE // 2}",
    "/api/v1/sessions?everybody=true&ended=true",
    f"/api/v1/sessions?everybody=true&ended=true&after=s{SESSIONS // 3}",
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_reads_what_it_shows(reader: Client, path: str) -> None:
    assert reader.get(path).status_code == 200  # what is kept for a while is there afterwards
    assert long_ways(statements(lambda: reader.get(path))) == []


SEARCHES = [f"/audit/?until={OLD}&actor=user7", "/api/v1/sessions?everybody=true&ended=true&owner=user7"]


@pytest.mark.parametrize("path", SEARCHES)
def test_a_search_for_one_person_reads_no_more_than_it_takes_to_meet_them_a_page_full_of_times(
    reader: Client, path: str
) -> None:
    """PostgreSQL goes back in time past everybody else's rows until the page is full: some ten milliseconds."""
    found = statements(lambda: reader.get(path))
    assert long_ways(found, most_rows=(PAGE + 10) * PEOPLE) == []


LONG_AGO = [f"since={OLD}&until={OLD}", f"since={OLD}&until={OLD}&text=c0123", f"until={now().date()}&text=c0123"]


@pytest.mark.parametrize("query", LONG_AGO)
def test_a_search_for_sessions_of_long_ago_reads_each_twice_at_most(reader: Client, query: str) -> None:
    """No index knows both of when they began and when they ended: with 100,000 it takes 30 milliseconds for a day, and
    120 for all the years. The sessions that they continue are joined; by PostgreSQL's estimates they may be read once
    more for that, all of them."""
    found = statements(lambda: reader.get(f"/administration/sessions/?{query}"))
    assert long_ways(found, most_rows=2 * SESSIONS + MOST_ROWS) == []


ROUNDS: dict[str, Callable[[], object]] = {
    "tick": tick,
    "what is live on a cluster": lambda: poll._interval_seconds(parts.clusters()["demo"], is_silent=False),
    "what nobody submits": lambda: list(selectors.waiting_for_submission("demo", older_than_seconds=3)),
    "where to look for work": lambda: activity._due(parts.clusters()["demo"], "jupyter", 3600),
    "ends to warn of": remind.warn_of_ends,
    "mail that is due": remind.take_up_mail,
    "folders to remove": lambda: cleanup._due(parts.clusters()["demo"]),
    "who is live": selectors.live_counts,
    "clusters that left": lambda: services.record_clusters_gone({"demo"}),
    "stops on clusters that left": lambda: services.end_without_cluster({"demo"}),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_reads_what_is_due(reader: Client, name: str) -> None:
    assert long_ways(statements(ROUNDS[name])) == []
