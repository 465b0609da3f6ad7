"""How many sessions a person may have is an allowance of the launcher now; its migration took the numbers over."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_notices"),
        ("launcher", "0005_allowances_for_persons"),
    ]

    operations = [migrations.RemoveField(model_name="user", name="sessions_allowed")]
