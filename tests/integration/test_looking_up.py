"""What is asked every few seconds goes by an index of live sessions, however long the history is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from launcher import selectors, services

pytestmark = [pytest.mark.django_db, pytest.mark.integration]


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (lambda: services.record_clusters_gone({"demo"}), "live_session_by_"),
        (lambda: services.end_without_cluster({"demo"}), "live_session_by_"),
        (selectors.ends_to_warn_of, "live_session_by_end"),
    ],
    ids=["clusters gone", "stops without a cluster", "ends to warn of"],
)
def test_it_reads_an_index_of_live_sessions(question: Callable[[], object], index: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        question()
    texts = [query["sql"] for query in captured]
    asked = [sql[sql.index("SELECT") :] for sql in texts if "SELECT" in sql]  # it may be behind DECLARE … CURSOR FOR
    assert len(asked) == 1
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # a small table is read as a whole
        cursor.execute(("EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + asked[0])
        plan = str(cursor.fetchall())
    assert index in plan
