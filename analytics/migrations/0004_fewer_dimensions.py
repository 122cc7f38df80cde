"""Cells of what is rolled up already, in the cubes that have fewer dimensions: added up from those of the cube
ORGANIZATION, since the rows of long ago may not be there any more."""

import hashlib
import uuid

import orjson
from django.db import migrations, models

from analytics import histogram

COUNTERS = (
    *("requests", "priced", "unpriced", "attempts", "retries", "fallbacks", "input_tokens", "cached_input_tokens"),
    *("output_tokens", "reasoning_tokens", "cost", "latency", "first_token"),
)
ORGANIZATION = 1
CUBES = {
    4: (),
    5: ("provider", "model", "status", "cached"),
    6: ("organization_id", "status", "cached"),
    7: ("organization_id", "api_key_id"),
}
CHOICES = [
    (1, "An organization's requests by every dimension but its users"),
    (2, "An organization's requests by its users alone"),
    (3, "All requests by every dimension but organization, key and user"),
    (4, "All requests together"),
    (5, "All requests by provider, model, status and whether they were cached"),
    (6, "An organization's requests by status and whether they were cached"),
    (7, "An organization's requests by its API keys alone"),
]


def add_up(apps, schema_editor):
    cell, dimensions = apps.get_model("analytics", "Cell"), apps.get_model("analytics", "Dimensions")
    known = {row.id: row for row in dimensions.objects.filter(cube=ORGANIZATION)}
    periods = cell.objects.filter(cube=ORGANIZATION).order_by().values_list("grain", "start").distinct()
    for grain, start in list(periods):
        sums = {}
        for found in cell.objects.filter(cube=ORGANIZATION, grain=grain, start=start).order_by().iterator():
            for cube, names in CUBES.items():
                values = tuple(getattr(known[found.dimensions_id], name) for name in names)
                counters, times = sums.setdefault((cube, values), ([0] * len(COUNTERS), ({}, {})))
                for place, name in enumerate(COUNTERS):
                    counters[place] += getattr(found, name)
                histogram.add_encoded(times[0], bytes(found.latencies))
                histogram.add_encoded(times[1], bytes(found.first_tokens))
        rows, cells = [], []
        for (cube, values), (counters, times) in sums.items():
            row = dimensions(cube=cube, **dict(zip(CUBES[cube], values, strict=True)))
            row.id = identifier(row)
            rows.append(row)
            cells.append(
                cell(
                    grain=grain,
                    start=start,
                    cube=cube,
                    dimensions_id=row.id,
                    organization_id=row.organization_id,
                    latencies=histogram.encode(times[0]),
                    first_tokens=histogram.encode(times[1]),
                    **dict(zip(COUNTERS, counters, strict=True)),
                )
            )
        dimensions.objects.bulk_create(rows, batch_size=500, ignore_conflicts=True)
        cell.objects.bulk_create(cells, batch_size=500, ignore_conflicts=True)


def identifier(row):
    """As `analytics.totals.Key.id`."""
    names = ("cube", "organization_id", "api_key_id", "provider", "model", "status", "cached")
    said = {name: getattr(row, name) for name in names if getattr(row, name)}
    return uuid.UUID(bytes=hashlib.blake2b(orjson.dumps(said), digest_size=16).digest())


def remove(apps, schema_editor):
    apps.get_model("analytics", "Cell").objects.filter(cube__in=CUBES).delete()
    apps.get_model("analytics", "Dimensions").objects.filter(cube__in=CUBES).delete()


class Migration(migrations.Migration):
    dependencies = [("analytics", "0003_report_schedules")]
    operations = [
        migrations.AlterField("cell", "cube", models.SmallIntegerField(choices=CHOICES)),
        migrations.AlterField("dimensions", "cube", models.SmallIntegerField(choices=CHOICES)),
        migrations.RunPython(add_up, remove),
    ]
