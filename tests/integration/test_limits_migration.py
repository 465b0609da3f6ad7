"""The numbers of people move from their column to allowances, and back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps.registry import Apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

BEFORE = [("launcher", "0004_time_idle_notices_allowances"), ("accounts", "0002_notices")]
AFTER = [("launcher", "0005_allowances_for_persons"), ("accounts", "0003_no_sessions_allowed")]


def migrate(targets: list[tuple[str, str]]) -> Apps:
    """Bring the database there; its models as they were then."""
    executor = MigrationExecutor(connection)
    executor.migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


@pytest.fixture(autouse=True)
def _newest_again() -> Iterator[None]:
    yield
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def numbers(apps: Apps) -> list[tuple[str, int | None]]:
    people = apps.get_model("accounts", "User").objects.order_by("username")
    return list(people.values_list("username", "sessions_allowed"))  # type: ignore[misc]  # as the model was then


def test_numbers_become_allowances_and_numbers_again() -> None:
    apps = migrate(BEFORE)
    users = apps.get_model("accounts", "User").objects
    for username, allowed in (("alice", 3), ("bob", None), ("admin", 0)):
        users.create(username=username, password="!", sessions_allowed=allowed)  # type: ignore[misc]  # as the model was then
    apps = migrate(AFTER)
    rows = apps.get_model("launcher", "Allowance").objects
    found = rows.order_by("user__username").values_list(
        "user__username", "group", "app", "cluster", "sessions", "hours"
    )
    assert list(found) == [("admin", "", "", "", 0, None), ("alice", "", "", "", 3, None)]
    apps = migrate(BEFORE)
    assert numbers(apps) == [("admin", 0), ("alice", 3), ("bob", None)]
    assert not apps.get_model("launcher", "Allowance").objects.exists()


def test_what_a_number_cannot_say_stays_an_allowance() -> None:
    apps = migrate(AFTER)
    bob = apps.get_model("accounts", "User").objects.create(username="bob", password="!")
    rows = apps.get_model("launcher", "Allowance").objects
    moment = timezone.now()
    rows.create(user=bob, sessions=4, hours=2, changed_at=moment)
    rows.create(user=bob, app="jupyter", sessions=5, changed_at=moment)
    rows.create(group="bio", sessions=6, changed_at=moment)
    apps = migrate(BEFORE)
    assert numbers(apps) == [("bob", 4)]
    left = apps.get_model("launcher", "Allowance").objects.order_by("group", "app")
    assert list(left.values_list("group", "app", "sessions", "hours")) == [
        ("", "", None, 2),
        ("", "jupyter", 5, None),
        ("bio", "", 6, None),
    ]
    apps = migrate(AFTER)
    again = apps.get_model("launcher", "Allowance").objects.get(user__username="bob", app="")
    assert (again.sessions, again.hours) == (4, 2)
