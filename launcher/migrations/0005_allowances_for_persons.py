"""The number that was a column of the person becomes an allowance, which can also be about an app or a cluster."""

from __future__ import annotations

from django.apps.registry import Apps
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q
from django.utils import timezone


def from_people(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    """One allowance for each person with a number. One that is there already keeps its hours."""
    user_model, allowance_model = apps.get_model("accounts", "User"), apps.get_model("launcher", "Allowance")
    for user in user_model.objects.filter(sessions_allowed__isnull=False).iterator():
        allowance_model.objects.update_or_create(
            user=user,
            group="",
            app="",
            cluster="",
            defaults={"sessions": user.sessions_allowed, "changed_at": timezone.now()},
        )


def back_to_people(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    """The numbers for all of a person's sessions; what a column of the person cannot say stays an allowance."""
    user_model, allowance_model = apps.get_model("accounts", "User"), apps.get_model("launcher", "Allowance")
    rows = allowance_model.objects.filter(user__isnull=False, app="", cluster="", sessions__isnull=False)
    for row in rows.iterator():
        user_model.objects.filter(pk=row.user_id).update(sessions_allowed=row.sessions)
    rows.filter(hours__isnull=True).delete()
    rows.update(sessions=None)


class Migration(migrations.Migration):
    dependencies = [
        ("launcher", "0004_time_idle_notices_allowances"),
        ("accounts", "0002_notices"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="allowance", name="one_allowance_each"),
        migrations.AddConstraint(
            model_name="allowance",
            constraint=models.UniqueConstraint(
                fields=["user", "app", "cluster"], condition=Q(user__isnull=False), name="one_allowance_of_a_person"
            ),
        ),
        migrations.AddConstraint(
            model_name="allowance",
            constraint=models.UniqueConstraint(
                fields=["group", "app", "cluster"], condition=Q(user__isnull=True), name="one_allowance_of_a_group"
            ),
        ),
        migrations.RunPython(from_people, back_to_people),
    ]
