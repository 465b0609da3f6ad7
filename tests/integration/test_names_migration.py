"""An account that is there in two spellings: the migration that allows one says which, and changes nothing."""

from __future__ import annotations

import pytest
from django.core.management import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from tests.integration.test_limits_migration import _newest_again, migrate

__all__ = ["_newest_again"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

BEFORE = [("accounts", "0006_openid_ties")]
AFTER = [("accounts", "0007_one_user_each_name")]


def test_twins_are_named_with_the_cure_and_the_cure_works() -> None:
    apps = migrate(BEFORE)
    users = apps.get_model("accounts", "User").objects
    for username in ("ALICE", "alice", "bob"):
        users.create(username=username, password="!")
    with pytest.raises(CommandError) as refused:
        migrate(AFTER)
    text = str(refused.value)
    assert "several spellings: ALICE, alice." in text
    assert "bob" not in text
    assert AFTER[0] not in MigrationExecutor(connection).loader.applied_migrations
    assert users.count() == 3
    exec(text.partition('-c "')[2].partition('"')[0])  # noqa: S102 - the very command that people are told to run
    migrate(AFTER)
    assert sorted(users.values_list("username", flat=True)) == ["alice", "bob", "old-ALICE"]
