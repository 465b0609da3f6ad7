from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("launcher", "0007_extension_refused")]

    operations = [
        migrations.AddField(
            model_name="interactivesession",
            name="idle_stop_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
