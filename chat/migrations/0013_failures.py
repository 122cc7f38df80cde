from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0012_repricing")]
    operations = [
        migrations.AddIndex(
            "interaction",
            models.Index(
                fields=["-id"],
                name="interaction_failed",
                condition=models.Q(status__in=["failed", "interrupted"]),
            ),
        ),
    ]
