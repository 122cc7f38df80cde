from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("analytics", "0006_whole_until")]
    operations = [
        migrations.AddField(
            "rollupstate",
            "revision",
            models.UUIDField(help_text="Another one whenever cells of an hour or longer have changed.", null=True),
        ),
    ]
