"""What the record is kept with: claims of request ids, notes of changes, what was refused and what went, the search
index's place."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from chat.fields import EncryptedTextField


class IdempotencyClaim(models.Model):
    """Which interaction answers a caller's request id. The row is won by whoever inserts it; see `chat.claims`."""

    organization = models.ForeignKey("accounts.Organization", on_delete=models.CASCADE, related_name="+")
    key = models.CharField("caller's request id", max_length=128)
    fingerprint = models.CharField(max_length=64, help_text="Tells whether the same request was meant.")
    interaction_id = models.UUIDField(unique=True)
    beats = models.PositiveIntegerField(default=0, help_text="Moves on while the process that answers is alive.")
    journal = models.UUIDField(null=True, help_text="The journal of that process, which its answer is in at first.")
    awaited_at = models.DateTimeField(null=True, help_text="When another process last said that it waits.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = "request id"
        constraints: ClassVar = [models.UniqueConstraint(fields=["organization", "key"], name="idempotency_claim_once")]

    def __str__(self) -> str:
        return self.key


class Change(models.Model):
    """A note that interactions of this minute (by their ids) were written; see `chat.changes`."""

    minute = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"


class QuarantinedExchange(models.Model):
    """An exchange that the database refused to store as rows: kept as the journal's facts, with the reason."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="The interaction's id.")
    reason = EncryptedTextField(editable=False)
    facts = EncryptedTextField(editable=False, help_text="The rows as JSON.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return str(self.id)


class Removal(models.Model):
    """What went from the record, and why: written with each removal, never edited. Holds no text that went."""

    class Kind(models.TextChoices):
        EXCHANGES = "exchanges", "Exchanges past their retention"
        TEXTS = "texts", "Texts past their retention"
        PERSON = "person", "Texts of a person"

    kind = models.CharField(max_length=16, choices=Kind)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.CASCADE,
        null=True,
        related_name="+",
        help_text="Empty: a partition of all organizations.",
    )
    user_id = models.CharField("user", max_length=128, blank=True)
    before = models.DateTimeField(help_text="What was accepted before then has gone.")
    interactions = models.PositiveBigIntegerField(default=0)
    conversations = models.PositiveBigIntegerField(default=0)
    quarantined = models.PositiveBigIntegerField(default=0, help_text="Exchanges in quarantine.")
    partition = models.CharField(max_length=64, blank=True, help_text="The partition that was dropped as a whole.")
    by = models.CharField(max_length=150, help_text="The administrator or the command.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}, {self.created_at:%Y-%m-%d %H:%M}"


class SearchState(models.Model):
    """How far `chat.search_index` has come on its way through the record, from the newest on; one row.

    `reached`: what is older is still to be looked at in this round; NULL between rounds.
    """

    reached = models.UUIDField(null=True)
    is_whole = models.BooleanField(default=False, help_text="Whether a round has been through everything.")

    def __str__(self) -> str:
        return str(self.reached or "")
