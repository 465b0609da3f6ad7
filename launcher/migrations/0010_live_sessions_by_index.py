"""What is asked every few seconds no longer reads the history of sessions."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("launcher", "0009_unreachable_code")]
    operations = [
        migrations.RemoveIndex(model_name="interactivesession", name="live_session_by_end"),
        migrations.AddIndex(
            model_name="interactivesession",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", True)), fields=["cluster"], name="live_session_by_cluster"
            ),
        ),
        migrations.AddIndex(
            model_name="interactivesession",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", True)), fields=["walltime_ends_at"], name="live_session_by_end"
            ),
        ),
    ]
