from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("analytics", "0004_fewer_dimensions"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="cell",
            index=models.Index(fields=["cube", "grain", "start"], name="cell_by_time"),
        ),
        migrations.AddIndex(
            model_name="cell",
            index=models.Index(
                condition=models.Q(("cube", 2)),
                fields=["grain", "start", "requests", "dimensions", "cost", "input_tokens", "output_tokens"],
                name="cell_of_users",
            ),
        ),
        migrations.AddIndex(
            model_name="dimensions",
            index=models.Index(fields=["cube"], name="dimensions_by_cube"),
        ),
    ]
