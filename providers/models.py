"""Rows of the catalogue: language models, their aliases, their versioned prices, their health."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone

from audit import actors
from audit.tracking import Audited, AuditedQuerySet
from llmchat.lib.uuid7 import uuid7

#: How long ago "now" may be: a form takes a while to fill in.
_JUST_NOW = dt.timedelta(hours=1)


class PriceIsFinal(Exception):
    """A version of a price was to be changed or deleted that may have priced rows. Set a new one instead."""


class LanguageModelQuerySet(AuditedQuerySet["LanguageModel"]):
    """Filters and annotations of the catalogue."""

    def with_price_in_force(self) -> LanguageModelQuerySet:
        """Adds `input_price` and `output_price` of this moment, None where no price is in force."""
        latest = (
            Price.objects.filter(model=OuterRef("pk"), effective_from__lte=timezone.now())
            .order_by("-effective_from")
            .values("input_per_million", "output_per_million")
        )
        return self.annotate(
            input_price=Subquery(latest.values("input_per_million")[:1]),
            output_price=Subquery(latest.values("output_per_million")[:1]),
        )

    def with_health(self) -> LanguageModelQuerySet:
        """Adds `health`: the status of the model itself, else of its provider, None when neither was ever checked."""
        known = ModelHealth.objects.filter(Q(upstream_id=OuterRef("upstream_id")) | Q(upstream_id=""))
        nearest_first = known.filter(provider=OuterRef("provider")).order_by("-upstream_id")
        return self.annotate(health=Subquery(nearest_first.values("status")[:1]))


class LanguageModel(Audited):
    """A model that callers may name. `name` is ours and unique; the provider knows it as `upstream_id`."""

    name = models.CharField(
        max_length=200, unique=True, help_text="The name that callers use, such as gemini-2.0-flash."
    )
    provider = models.CharField(max_length=64, help_text="A provider of the settings, such as gemini.")
    upstream_id = models.CharField(max_length=200, help_text="The provider's own name for the model.")
    display_name = models.CharField(max_length=200, blank=True)
    context_window = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens; empty when unknown.")
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens; empty when unknown.")
    is_enabled = models.BooleanField("enabled", default=True, help_text="Switched off: callers cannot name it.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = LanguageModelQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        verbose_name = "model"
        ordering: ClassVar = ["provider", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "upstream_id"], name="model_once_per_provider")
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if ModelAlias.objects.filter(name=self.name).exists():
            raise ValidationError({"name": "An alias has this name already."})


class ModelAlias(Audited):
    """Another name for a model: callers keep the name while operators move what is behind it."""

    name = models.CharField(max_length=200, unique=True)
    model = models.ForeignKey(LanguageModel, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        verbose_name = "model alias"
        verbose_name_plural = "model aliases"
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return f"{self.name} → {self.model.name}"

    def clean(self) -> None:
        if LanguageModel.objects.filter(name=self.name).exists():
            raise ValidationError({"name": "A model has this name already."})


class PriceQuerySet(AuditedQuerySet["Price"]):
    """Versions, with what follows them."""

    def with_end(self) -> PriceQuerySet:
        """Adds `until`: when the next version comes into force, None for the last."""
        later = Price.objects.filter(model=OuterRef("model"), effective_from__gt=OuterRef("effective_from"))
        return self.annotate(until=Subquery(later.order_by("effective_from").values("effective_from")[:1]))


class Price(Audited):
    """One version of a model's price, in US dollars per million tokens; never changed.

    A price is in force from `effective_from` until the next version's. No version in force: the price is unknown, which
    is not the same as free (0). A version that is not in force yet may be withdrawn (deleted): it has priced nothing.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    model = models.ForeignKey(LanguageModel, on_delete=models.PROTECT, related_name="prices")
    effective_from = models.DateTimeField(
        default=timezone.now, help_text="Now or later. For the past, use Price the past on the model's page."
    )
    input_per_million = models.DecimalField(
        "input",
        max_digits=14,
        decimal_places=6,
        validators=[MinValueValidator(0)],
        help_text="US dollars per million tokens.",
    )
    output_per_million = models.DecimalField(
        "output",
        max_digits=14,
        decimal_places=6,
        validators=[MinValueValidator(0)],
        help_text="US dollars per million tokens, reasoning included.",
    )
    cached_input_per_million = models.DecimalField(
        "cached input",
        max_digits=14,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US dollars per million tokens; empty: as input.",
    )
    cache_write_per_million = models.DecimalField(
        "cache write",
        max_digits=14,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US dollars per million tokens; empty: as input.",
    )
    source = models.CharField(
        max_length=64, default="manual", help_text="Who says so: genai-prices and its version, or manual."
    )
    set_by = models.CharField(max_length=200, blank=True, editable=False, help_text="The person, command or task.")
    reason = models.CharField(max_length=300, blank=True, editable=False, help_text="Why it begins in the past.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PriceQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        ordering: ClassVar = ["model", "-effective_from"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["model", "effective_from"], name="price_once_per_moment")
        ]

    def __str__(self) -> str:
        since = f"{self.effective_from:%Y-%m-%d}"
        return f"{self.model.name} from {since}: {self.input_per_million} / {self.output_per_million}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Stores a new version. Raises PriceIsFinal for one that is stored already."""
        if not self._state.adding:
            raise PriceIsFinal("A price that exists is not changed. Set a new one.")
        self.set_by = self.set_by or actors.current().name
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Withdraws a planned version. Raises PriceIsFinal for one that is or was in force."""
        if not self.is_planned:
            raise PriceIsFinal("A price that is or was in force is not deleted. Set a new one.")
        return super().delete(*args, **kwargs)

    def clean(self) -> None:
        """A version may begin in the past only where no price was known, what has been priced stays as it is; and with
        a reason, for what has been used since is priced by it then."""
        if not self._state.adding or self.model_id is None or self.effective_from >= timezone.now() - _JUST_NOW:
            return
        if Price.objects.filter(model=self.model_id, effective_from__lte=self.effective_from).exists():
            raise ValidationError({"effective_from": "Another price was in force then. Choose a later moment."})
        if not self.reason:
            raise ValidationError(
                {"effective_from": "Use Price the past on the model's page: it shows first what that would do."}
            )

    @property
    def is_planned(self) -> bool:
        """Whether it comes into force later."""
        return self.effective_from > timezone.now()


class ModelHealth(models.Model):
    """How a model has been lately: the last probe of its provider and the attempts on record.

    A row with an empty `upstream_id` is about the provider as a whole, and stands for all its models without attempts.
    """

    class Status(models.TextChoices):
        ONLINE = "online", "Online"
        DEGRADED = "degraded", "Degraded"
        OFFLINE = "offline", "Offline"
        UNKNOWN = "unknown", "Unknown"

    provider = models.CharField(max_length=64)
    upstream_id = models.CharField(max_length=200, blank=True, help_text="Empty: the provider as a whole.")
    status = models.CharField(max_length=16, choices=Status, default=Status.UNKNOWN)
    average_response_ms = models.FloatField(null=True)
    error_rate = models.FloatField(null=True, help_text="Failed attempts ÷ attempts, 0 to 1, over the last hour.")
    attempts = models.PositiveIntegerField(default=0, help_text="Attempts over the last hour.")
    last_error = models.CharField(max_length=500, blank=True)
    checked_at = models.DateTimeField()

    class Meta:
        verbose_name = "model health"
        verbose_name_plural = "model health"
        ordering: ClassVar = ["provider", "upstream_id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "upstream_id"], name="health_once_per_model")
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_id or '*'}: {self.get_status_display()}"
