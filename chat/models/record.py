"""The record: every exchange as one `Interaction`, every upstream call as one `Attempt`, threads as `Conversation`s."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.fields import EncryptedJSONField, EncryptedTextField
from llmchat.lib.uuid7 import uuid7


class Status(models.TextChoices):
    """How an interaction or an attempt ended."""

    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    INTERRUPTED = "interrupted", "Interrupted"


class Conversation(models.Model):
    """A thread of interactions of one user of an organization; its history goes into each next prompt."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="conversations", db_index=False
    )
    user_id = models.CharField("user", max_length=128, help_text="The caller's own name for its user.")
    title = EncryptedTextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="conversation_by_org"),
            models.Index(fields=["organization", "user_id", "-id"], name="conversation_by_user"),
        ]
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return self.title or str(self.id)


class Interaction(models.Model):
    """One accepted request and what became of it. A fact: written once, never edited.

    `id` is a UUIDv7 made when the request was accepted: the primary key is the order of time. Times are milliseconds
    from that moment. Tokens are ours (input includes cached, output includes reasoning); NULL means not known. `cost`
    is frozen with the price version that made it; NULL means that no price was known, never free.

    On PostgreSQL the table is partitioned (`chat.partitions`). Its references have no constraints: `verify_record`
    proves them. An index is here because a query needs it: at size each costs as much as a tenth of the row.
    """

    class Endpoint(models.TextChoices):
        CHAT = "chat", "/v1/chat"
        COMPLETIONS = "completions", "/v1/chat/completions"

    #: What somebody said or was told: it may be long, no list shows it, and erasing takes it away.
    TEXTS: ClassVar = (
        *("prompt", "system_prompt", "messages", "parameters"),
        *("response", "reasoning", "tool_calls", "metadata", "error_message"),
    )

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.PROTECT,
        related_name="interactions",
        db_constraint=False,
        db_index=False,
    )
    # Which key it was stays a fact when the key is gone.
    api_key = models.ForeignKey(
        "accounts.APIKey",
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="interactions",
        db_constraint=False,
        db_index=False,
        verbose_name="API key",
    )
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.SET_NULL,
        null=True,
        related_name="interactions",
        db_constraint=False,
        db_index=False,
    )
    user_id = models.CharField("user", max_length=128, help_text="The caller's own name for its user.")
    plan = models.CharField(max_length=32, help_text="The organization's plan at that moment.")
    endpoint = models.CharField(max_length=16, choices=Endpoint)
    streamed = models.BooleanField()
    trace_id = models.CharField("request id", max_length=128, help_text="The X-Request-Id of the response.")
    request_id = models.CharField(
        "caller's request id", max_length=128, null=True, help_text="The caller's requestId or Idempotency-Key."
    )
    created_at = models.DateTimeField(help_text="When the request was accepted.")
    finished_at = models.DateTimeField(null=True)
    erased_at = models.DateTimeField(
        null=True, help_text="When its texts were erased, at somebody's wish or by retention."
    )

    status = models.CharField(max_length=16, choices=Status)
    error_type = models.CharField(max_length=64, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = EncryptedTextField(blank=True)

    model_requested = models.CharField("model asked", max_length=256)
    model = models.CharField("model answered", max_length=256, blank=True)
    provider = models.CharField(max_length=64, blank=True)
    route_reason = models.CharField(max_length=128, blank=True)

    prompt = EncryptedTextField(blank=True, help_text="The last message of the user.")
    system_prompt = EncryptedTextField(blank=True)
    messages = EncryptedJSONField(
        default=list, help_text="The caller's own messages; empty when prompt and system prompt say it all."
    )
    history_messages = models.PositiveIntegerField(
        default=0, help_text="How many messages of the conversation's history went along."
    )
    parameters = EncryptedJSONField(default=dict, help_text="Temperature and so on, as asked.")
    response = EncryptedTextField(blank=True)
    reasoning = EncryptedTextField(blank=True)
    tool_calls = EncryptedJSONField(default=list)
    finish_reason = models.CharField(max_length=32, blank=True)
    metadata = EncryptedJSONField(default=dict)

    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cached_input_tokens = models.PositiveIntegerField(null=True)
    reasoning_tokens = models.PositiveIntegerField(null=True)
    usage_estimated = models.BooleanField(default=False)
    cost = models.DecimalField("cost (USD)", max_digits=20, decimal_places=12, null=True)

    latency_ms = models.FloatField(null=True)
    provider_latency_ms = models.FloatField(null=True)
    time_to_first_token_ms = models.FloatField(null=True)
    retries = models.PositiveSmallIntegerField(default=0)
    fallback = models.BooleanField(default=False)
    cached = models.BooleanField(default=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="interaction_by_org"),
            models.Index(
                fields=["conversation", "id"], name="interaction_by_conv", condition=Q(conversation__isnull=False)
            ),
            models.Index(fields=["organization", "user_id", "-id"], name="interaction_by_user"),
            models.Index(fields=["request_id"], name="interaction_by_request", condition=Q(request_id__isnull=False)),
            # Few, and looked for among millions that went well.
            models.Index(
                fields=["-id"],
                name="interaction_failed",
                condition=Q(status__in=["failed", "interrupted"]),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def total_tokens(self) -> int | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class Attempt(models.Model):
    """One call to a provider on behalf of an interaction: retries and fallbacks are attempts of their own.

    On PostgreSQL the table is partitioned by `interaction`, so that an interaction and its attempts go together, and
    `attempt_once` is its only index: look for attempts by their interaction, never by `id`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    interaction = models.ForeignKey(
        Interaction, on_delete=models.CASCADE, related_name="attempts", db_constraint=False, db_index=False
    )
    number = models.PositiveSmallIntegerField(help_text="1 for the first call.")
    provider = models.CharField(max_length=64)
    model = models.CharField(max_length=256, help_text="The provider's own name for the model.")
    started_at = models.DateTimeField()
    status = models.CharField(max_length=16, choices=Status)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = EncryptedTextField(blank=True)
    upstream_status = models.PositiveSmallIntegerField(null=True)
    upstream_request_id = models.CharField(max_length=200, blank=True)
    finish_reason = models.CharField(max_length=32, blank=True)
    raw_finish_reason = models.CharField(max_length=64, blank=True)
    malformed_chunks = models.PositiveIntegerField(default=0)
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cached_input_tokens = models.PositiveIntegerField(null=True)
    cache_write_tokens = models.PositiveIntegerField(null=True)
    reasoning_tokens = models.PositiveIntegerField(null=True)
    usage_estimated = models.BooleanField(default=False)
    # Only a price that is not in force yet can be deleted: it has priced nothing.
    price = models.ForeignKey(
        "providers.Price",
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    cost = models.DecimalField("cost (USD)", max_digits=20, decimal_places=12, null=True)
    cost_reported = models.BooleanField(default=False, help_text="The provider itself named the cost.")
    latency_ms = models.FloatField(null=True)
    time_to_first_token_ms = models.FloatField(null=True)

    class Meta:
        ordering: ClassVar = ["interaction", "number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["interaction", "number"], name="attempt_once")]

    def __str__(self) -> str:
        return f"{self.number}. {self.provider}/{self.model}: {self.get_status_display()}"
