"""Checks of the database: that it answers, is up to date, and that what is sealed in it can be opened."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.doctor.findings import Said, broken, doubtful, fine, one_line
from portal.words import marked as _

ROWS = 200
"""Sealed values of one kind that are tried, newest first."""


def _in_database(look: Callable[[object], Said | Sequence[Said]]) -> Callable[[object], Said | Sequence[Said]]:
    """The check's thread closes the connection that it made."""

    @functools.wraps(look)
    def with_connection(portal: object) -> Said | Sequence[Said]:
        from django.db import connections

        try:
            return look(portal)
        finally:
            connections.close_all()

    return with_connection


@_in_database
def database(_portal: object) -> Said:
    """The database answers; SQLite has its write-ahead log."""
    from django.db import Error, connection

    is_sqlite = connection.vendor == "sqlite"
    path = Path(str(connection.settings_dict["NAME"]))
    if is_sqlite and not path.exists():
        return broken(
            _("There is no database yet: %(path)s is missing."),
            _("Make it, or correct PORTAL_DATABASE_URL or PORTAL_DATA_FOLDER."),
            command="manage.py migrate",
            path=path,
        )
    if is_sqlite and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return broken(
            _("The database %(path)s cannot be written by this account."),
            _("Give the file and its folder to the portal's account, or run this command as that account."),
            path=path,
        )
    try:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode" if is_sqlite else "SHOW server_version")
            (answer,) = cursor.fetchone()
    except Error as error:
        return broken(
            _("The database does not answer: %(words)s"),
            _("Start it, or correct PORTAL_DATABASE_URL."),
            words=one_line(error),
        )
    if is_sqlite and str(answer).lower() != "wal":
        return doubtful(
            _("SQLite keeps no write-ahead log here (journal mode %(mode)s), so writers block readers."),
            _("Put the data folder on a local disk, since network file systems cannot do it, or take PostgreSQL."),
            mode=answer,
        )
    if is_sqlite:
        return fine(_("SQLite with a write-ahead log, %(path)s."), path=path)
    return fine(_("PostgreSQL %(version)s."), version=answer)


@_in_database
def migrations(_portal: object) -> Said:
    """The tables are those of this release."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        return broken(
            _("The database is older than the portal. Missing migrations: %(count)s, first %(first)s."),
            _("Bring it up to date, then restart the portal's processes."),
            command="manage.py migrate",
            count=len(plan),
            first=f"{plan[0][0].app_label}.{plan[0][0].name}",
        )
    return fine(_("The database is up to date."))


@_in_database
def sealed(_portal: object) -> Said:
    """What is sealed in the database can be opened with the keys that are there."""
    from django.apps import apps
    from django.db import models

    from launcher.sealing import NoKeyFits, unseal

    tried = closed = 0
    for model in apps.get_models():
        for field in model._meta.get_fields():
            if not isinstance(field, models.BinaryField) or not field.name.endswith("_encrypted"):
                continue
            rows = model._default_manager.exclude(**{field.name: b""}).order_by("-pk")
            for value in rows.values_list(field.name, flat=True)[:ROWS]:
                tried += 1
                try:
                    unseal(value)
                except NoKeyFits:
                    closed += 1
    if closed:
        return broken(
            _("No key opens %(closed)s of the %(tried)s newest secrets in the database."),
            _("Name the key they were sealed with in PORTAL_ENCRYPTION_KEY_FILES, after the new one, and restart."),
            closed=closed,
            tried=tried,
        )
    return fine(_("The keys open all of the %(tried)s newest secrets in the database."), tried=tried)
