"""Roll-ups of the record: cells of counters by period and dimensions, and which periods are rolled up.

What the numbers mean is told in docs/decisions/0015-roll-ups.md; `analytics.rolling` alone writes these rows.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from analytics.reports.models import ReportDelivery, ReportSchedule

__all__ = ["Cell", "Cube", "Dimensions", "Grain", "Period", "ReportDelivery", "ReportSchedule", "RollUpState"]


class Grain(models.IntegerChoices):
    """How long a cell's period is. All begin in UTC."""

    MINUTE = 1, "Minute"
    HOUR = 2, "Hour"
    DAY = 3, "Day"
    MONTH = 4, "Month"


class Cube(models.IntegerChoices):
    """Which dimensions a cell tells apart. Each interaction is in one cell of each cube."""

    ORGANIZATION = 1, "An organization's requests by every dimension but its users"
    USER = 2, "An organization's requests by its users alone"
    EVERYTHING = 3, "All requests by every dimension but organization, key and user"
    TOTAL = 4, "All requests together"
    OVERVIEW = 5, "All requests by provider, model, status and whether they were cached"
    TENANT = 6, "An organization's requests by status and whether they were cached"
    KEY = 7, "An organization's requests by its API keys alone"


class Dimensions(models.Model):
    """What requests have in common. The id is a digest of the cube and of the values that are not empty, so that a
    dimension which is added later leaves existing rows as they are. What a cube does not tell apart is empty."""

    id = models.UUIDField(primary_key=True, editable=False)
    cube = models.SmallIntegerField(choices=Cube)
    organization_id = models.UUIDField(null=True)
    api_key_id = models.UUIDField(null=True)
    user_id = models.CharField(max_length=128, blank=True)
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=256, blank=True)
    plan = models.CharField(max_length=32, blank=True)
    status = models.CharField(max_length=16, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    cached = models.BooleanField(default=False)
    route_reason = models.CharField(max_length=128, blank=True)

    class Meta:
        # Users are nearly all of these, and hardly ever asked for beside the others.
        indexes: ClassVar = [models.Index(fields=["cube"], name="dimensions_by_cube")]

    def __str__(self) -> str:
        return str(self.id)


class Cell(models.Model):
    """What is counted of the requests with these dimensions in this period.

    Times are whole microseconds and money whole millionths of a millionth of a dollar, so that sums are exact on every
    database.
    """

    pk = models.CompositePrimaryKey("grain", "start", "dimensions_id")
    grain = models.SmallIntegerField(choices=Grain)
    start = models.DateTimeField()
    cube = models.SmallIntegerField(choices=Cube)
    dimensions = models.ForeignKey(Dimensions, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    organization_id = models.UUIDField(null=True)
    requests = models.IntegerField()
    priced = models.IntegerField(help_text="Requests whose cost is known.")
    unpriced = models.IntegerField(help_text="Requests that used tokens at an unknown price.")
    attempts = models.IntegerField()
    retries = models.IntegerField()
    fallbacks = models.IntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost = models.BigIntegerField(help_text="In 1e-12 US dollars.")
    latency = models.BigIntegerField(help_text="Sum in microseconds.")
    first_token = models.BigIntegerField(help_text="Sum in microseconds.")
    latencies = models.BinaryField(help_text="Histogram; see analytics.histogram.")
    first_tokens = models.BinaryField(help_text="Histogram; see analytics.histogram.")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["cube", "organization_id", "grain", "start"], name="cell_by_org"),
            models.Index(fields=["cube", "grain", "start"], name="cell_by_time"),
            # Holds all that it takes to find the users with the most: see `analytics.leading`.
            models.Index(
                fields=["grain", "start", "requests", "dimensions", "cost", "input_tokens", "output_tokens"],
                condition=models.Q(cube=Cube.USER),
                name="cell_of_users",
            ),
        ]

    def __str__(self) -> str:
        return f"{Grain(self.grain).label} {self.start.isoformat()}, {Cube(self.cube).name}"


class Period(models.Model):
    """An hour, day or month whose cells are whole. Cells of a period that is not listed must not be read; minutes are
    whole without being listed. A note of a change (`chat.changes`) overrules the list until it is worked off."""

    grain = models.SmallIntegerField(choices=Grain)
    start = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["grain", "start"], name="period_once")]

    def __str__(self) -> str:
        return f"{Grain(self.grain).label} {self.start.isoformat()}"


class RollUpState(models.Model):
    """One row: who rolls up takes turns, and how far back the record is whole."""

    turn = models.BigIntegerField(default=0, help_text="Moves on with each change of the cells.")
    whole_until = models.DateTimeField(null=True, help_text="What was committed before that moment is rolled up.")
    revision = models.UUIDField(null=True, help_text="Another one whenever cells of an hour or longer have changed.")
    sealed_until = models.DateTimeField(
        null=True, help_text="Rows before may have been deleted: what was rolled up of them stays as it is."
    )

    def __str__(self) -> str:
        return f"turn {self.turn}"
