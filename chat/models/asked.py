"""What people ask of the record in the admin: saved filters, exports, prices for what had none."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from audit.tracking import Audited
from llmchat.lib.uuid7 import uuid7


class SavedFilter(Audited):
    """A selection of interactions that somebody gave a name: their own, or shared with an organization."""

    audit_ignored = ("is_default",)

    owner = models.ForeignKey("accounts.User", on_delete=models.CASCADE, related_name="+", editable=False)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        verbose_name="shared with",
        help_text="Its people see the filter too. Empty: nobody but you.",
    )
    name = models.CharField(max_length=64)
    values = models.JSONField(default=dict, editable=False, help_text="As `chat.selection.parse` takes it.")
    is_default = models.BooleanField(
        "my list begins with it", default=False, help_text="The list opens with it when nothing else is asked for."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["name", "pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "name"],
                name="saved_filter_once",
                violation_error_message="You have a filter of this name already.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Export(models.Model):
    """A file of interactions that somebody asked for; made and removed by `chat.exports.jobs`."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        EXPIRED = "expired", "Expired"

    #: In these it is still to be made; in these it takes room.
    UNFINISHED: ClassVar = (State.QUEUED, State.RUNNING)
    KEPT: ClassVar = (*UNFINISHED, State.DONE)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey("accounts.User", on_delete=models.CASCADE, related_name="+")
    what = models.JSONField(help_text="Format, filters, organizations and columns, as they were when it was asked for.")
    secret = models.CharField(max_length=64, blank=True, help_text="Of which its pseudonyms are made; gone when it is.")
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    worker = models.UUIDField(null=True, help_text="Whose turn it is.")
    beat_at = models.DateTimeField(default=timezone.now, help_text="When a worker last said that it is alive.")
    rows = models.PositiveBigIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    progress = models.FloatField(default=0.0, help_text="From 0 to 1.")
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True, help_text="When its file goes.")

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["state", "beat_at"], name="export_by_state")]

    def __str__(self) -> str:
        return f"{self.what['format']}, {self.created_at:%Y-%m-%d %H:%M}"


class Repricing(models.Model):
    """A run over the record that prices what one model was used for at an unknown price; see `chat.repricing`. First it
    counts; once somebody has agreed, it sets the price, if there is a draft of one, and writes."""

    class State(models.TextChoices):
        COUNTING = "counting", "Being counted"
        COUNTED = "counted", "Counted"
        FILLING = "filling", "Being priced"
        DONE = "done", "Priced"
        CANCELLED = "cancelled", "Given up"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    model = models.ForeignKey("providers.LanguageModel", on_delete=models.CASCADE, related_name="+")
    state = models.CharField(max_length=16, choices=State)
    reason = models.CharField(max_length=300)
    by = models.CharField(max_length=150, help_text="The administrator or the command.")
    price = models.ForeignKey(
        "providers.Price",
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
        help_text="The version that was set.",
    )
    effective_from = models.DateTimeField(null=True, blank=True, help_text="Empty: by the prices on record.")
    input_per_million = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    output_per_million = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    cached_input_per_million = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    cache_write_per_million = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    until = models.DateTimeField(help_text="What was accepted from then on is none of its business.")
    position = models.UUIDField(null=True, blank=True, help_text="The last interaction that it has looked at.")
    turn = models.BigIntegerField(default=0, help_text="Moves on with each step.")
    counted_interactions = models.PositiveBigIntegerField(default=0)
    counted_attempts = models.PositiveBigIntegerField(default=0)
    counted_cost = models.DecimalField(max_digits=24, decimal_places=12, default=0)
    filled_interactions = models.PositiveBigIntegerField(default=0)
    filled_attempts = models.PositiveBigIntegerField(default=0)
    filled_cost = models.DecimalField(max_digits=24, decimal_places=12, default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    agreed_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "pricing of old rows"
        verbose_name_plural = "pricings of old rows"
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.model.name}, {self.created_at:%Y-%m-%d %H:%M}"
