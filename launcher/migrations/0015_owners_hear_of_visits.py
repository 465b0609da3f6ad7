from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("launcher", "0014_ended_sessions")]

    operations = [
        migrations.AlterField(
            model_name="notice",
            name="kind",
            field=models.CharField(
                choices=[
                    ("ready", "Ready"),
                    ("time", "Time"),
                    ("idle", "Idle"),
                    ("visit", "Visit"),
                    ("ended", "Ended"),
                ],
                max_length=8,
            ),
        ),
    ]
