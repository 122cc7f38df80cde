"""The audit trail: who changed what, when and from where. Entries are added, never edited."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from llmchat.lib.uuid7 import uuid7


class Action(models.TextChoices):
    """What was done."""

    ADDED = "added", "Added"
    CHANGED = "changed", "Changed"
    DELETED = "deleted", "Deleted"
    REVOKED = "revoked", "Revoked"
    ROTATED = "rotated", "Rotated"
    WITHDRAWN = "withdrawn", "Withdrawn"
    ERASED = "erased", "Texts erased"
    REMOVED = "removed", "Removed by retention"
    EXPORTED = "exported", "Exported"
    DOWNLOADED = "downloaded", "Downloaded"
    CANCELLED = "cancelled", "Cancelled"
    REPRICING_BEGUN = "repricing_begun", "Pricing of old rows begun"
    REPRICING_ENDED = "repricing_ended", "Pricing of old rows ended"
    PRICES_UPDATED = "prices_updated", "Prices taken from the list"


class ActorKind(models.TextChoices):
    """Who did it."""

    PERSON = "person", "Person"
    COMMAND = "command", "Command"
    SYSTEM = "system", "System"


class Entry(models.Model):
    """One change to one thing, written in the transaction of the change. It refers to rows without constraints: it
    stays when they go, and keeps their names of that moment."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField("when", default=timezone.now)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
        help_text="Whose thing it is. Empty: the operator's.",
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    actor_kind = models.CharField(max_length=16, choices=ActorKind)
    actor = models.CharField("who", max_length=200, help_text="The person's name, the command, or the task.")
    address = models.GenericIPAddressField("from", null=True)
    request_id = models.CharField(max_length=128, blank=True, help_text="The X-Request-Id of the response.")
    action = models.CharField(max_length=32, choices=Action)
    object_type = models.CharField(max_length=64, help_text="Such as providers.price.")
    object_id = models.CharField(max_length=64, blank=True)
    object_name = models.CharField("what", max_length=200, blank=True, help_text="As it was called then.")
    changes = models.JSONField(default=dict, help_text="Values by field, before and after. Secrets are masked.")
    details = models.JSONField(default=dict, help_text="What else there is to say, by name.")

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="audit_by_org"),
            models.Index(fields=["object_type", "object_id", "-id"], name="audit_by_object"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.object_name or self.object_type}"
