"""The database: its URL becomes Django's setting, its tables are what the models say, its locks let references pass."""

from __future__ import annotations

import re

import pytest
from django.core.management import call_command

from portal.conf import PROJECT
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


def test_no_lock_of_ours_holds_up_a_new_row_that_refers_to_the_locked_one() -> None:
    """PostgreSQL looks at a reference when the new row's transaction commits, which is after the audit log's head."""
    files = [*PROJECT.glob("portal/**/*.py"), *PROJECT.glob("launcher/**/*.py")]
    call = re.compile(r"select_for_update\(((?:[^()]|\([^()]*\))*)\)")
    locks = [arguments for file in files for arguments in call.findall(file.read_text(encoding="utf-8"))]
    assert len(locks) > 30
    assert [arguments for arguments in locks if "no_key=True" not in arguments] == []


@pytest.mark.django_db
def test_no_change_of_a_model_is_without_its_migration() -> None:
    call_command("makemigrations", check_changes=True, verbosity=0)  # ends the process when one is missing
