from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("launcher", "0008_idle_stop")]

    operations = [
        migrations.AddField(
            model_name="interactivesession",
            name="unreachable_code",
            field=models.CharField(blank=True, max_length=64),
        ),
    ]
