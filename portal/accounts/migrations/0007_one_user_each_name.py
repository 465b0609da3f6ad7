"""One person for each account, however its name is spelt."""

from __future__ import annotations

from collections import defaultdict

from django.apps.registry import Apps
from django.core.management import CommandError
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models.functions import Lower


def refuse_twins(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    """Say which accounts stand in the way, before the database does in its own words."""
    spellings: dict[str, list[str]] = defaultdict(list)
    users = apps.get_model("accounts", "User").objects.using(editor.connection.alias)
    for username in sorted(users.values_list("username", flat=True)):  # not by the database, whose order is its own
        spellings[username.lower()].append(username)
    twins = [names for names in spellings.values() if len(names) > 1]
    if twins:
        listed = "; ".join(", ".join(names) for names in twins)
        spare = twins[0][0]
        raise CommandError(
            f"The same account is there in several spellings: {listed}. Keep of each the one that the cluster has, and "
            'give the others a name that nobody has, for example with: manage.py shell -c "from '
            f"portal.accounts.models import User; User.objects.filter(username='{spare}').update("
            f"username='old-{spare}', is_active=False)\". Then migrate again; nothing has been changed yet."
        )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0006_openid_ties")]

    operations = [
        migrations.RunPython(refuse_twins, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.UniqueConstraint(Lower("username"), name="one_user_each_name"),
        ),
    ]
