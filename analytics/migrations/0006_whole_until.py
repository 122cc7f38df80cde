from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("analytics", "0005_indexes_of_cells")]
    operations = [
        migrations.AddField(
            "rollupstate",
            "whole_until",
            models.DateTimeField(help_text="What was committed before that moment is rolled up.", null=True),
        ),
    ]
