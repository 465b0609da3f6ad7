from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("launcher", "0006_mail_of_notices"),
    ]

    operations = [
        migrations.AddField(
            model_name="interactivesession",
            name="extension_refused",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="interactivesession",
            name="extension_refused_detail",
            field=models.CharField(blank=True, max_length=500),
        ),
    ]
