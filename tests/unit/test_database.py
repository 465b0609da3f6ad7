"""The database's URL becomes Django's setting."""

from __future__ import annotations

import pytest

from portal.database import database_settings


def test_sqlite_takes_its_write_lock_at_the_start_of_a_transaction() -> None:
    entry = database_settings("sqlite:////srv/portal/db.sqlite3")
    assert entry["NAME"] == "/srv/portal/db.sqlite3"
    assert entry["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_postgresql_parts_are_unquoted() -> None:
    entry = database_settings("postgresql://us%40er:p%3Aw@db:5433/footbridge?sslmode=require")
    assert (entry["USER"], entry["PASSWORD"], entry["HOST"], entry["PORT"]) == ("us@er", "p:w", "db", "5433")
    assert entry["OPTIONS"] == {"sslmode": "require"}


def test_no_connection_to_postgresql_outlives_its_request() -> None:
    assert database_settings("postgresql://db/portal")["CONN_MAX_AGE"] == 0


def test_another_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mysql"):
        database_settings("mysql://localhost/x")
