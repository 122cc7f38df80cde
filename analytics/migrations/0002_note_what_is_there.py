"""Rows that were written before there were roll-ups are rolled up by the first round: each of their hours is noted."""

import datetime as dt

from django.db import migrations


def note_rows(apps, schema_editor):
    interactions = apps.get_model("chat", "Interaction").objects.filter(created_at__isnull=False)
    oldest = interactions.order_by("id").values_list("created_at", flat=True).first()
    newest = interactions.order_by("-id").values_list("created_at", flat=True).first()
    if oldest is None:
        return
    change = apps.get_model("chat", "Change")
    # From a day ago on, a note is about its minute alone.
    fine = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0) - dt.timedelta(days=1)
    moment = oldest.replace(minute=0, second=0, microsecond=0)
    notes = []
    while moment <= newest:
        notes.append(change(minute=moment))
        moment += dt.timedelta(hours=1) if moment < fine else dt.timedelta(minutes=1)
    change.objects.bulk_create(notes, batch_size=1000)


class Migration(migrations.Migration):
    dependencies = [("analytics", "0001_rollups"), ("chat", "0009_changes")]
    operations = [migrations.RunPython(note_rows, migrations.RunPython.noop)]
