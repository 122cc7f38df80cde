"""Rows of the tenant boundary: plans, organizations, users with roles, API keys."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from audit.tracking import Audited, AuditedQuerySet
from llmchat.lib.uuid7 import uuid7


def validate_patterns(value: Any) -> None:
    """A list of names, each a non-empty string."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValidationError('This must be a list of names or patterns, such as ["gemini-*", "local/*"].')


def validate_scopes(value: Any) -> None:
    """A list of scopes that exist."""
    known = APIKey.Scope.values
    if not isinstance(value, list) or not value or any(item not in known for item in value):
        raise ValidationError(f"This must be a list with at least one of: {', '.join(known)}.")


class Plan(Audited):
    """What an organization may use. An empty limit means no limit."""

    slug = models.SlugField(primary_key=True, max_length=32)
    name = models.CharField(max_length=64)
    requests_per_hour = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    tokens_per_day = models.PositiveBigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    allowed_models = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_patterns],
        help_text='List of names or patterns, such as ["gemini-*", "local/*"]. Empty: every model.',
    )
    priority = models.PositiveSmallIntegerField(default=0, help_text="Higher goes first when requests queue up.")
    retention_days = models.PositiveIntegerField(
        "days on record",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How long exchanges stay on record; usage and cost by day stay. Empty: for ever.",
    )
    texts_retention_days = models.PositiveIntegerField(
        "days of texts",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How long prompts and answers stay on record; their numbers stay. Empty: as long as the exchange.",
    )

    class Meta:
        ordering: ClassVar = ["priority", "slug"]

    def __str__(self) -> str:
        return self.name


class Organization(Audited):
    """A tenant: everything on record belongs to exactly one."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=128, unique=True)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="organizations")
    is_active = models.BooleanField(default=True, help_text="Switched off: its keys are refused, its record stays.")
    log_prompts = models.BooleanField(
        "keep prompts",
        null=True,
        blank=True,
        help_text="Whether texts that it sends stay on record. Unknown: as the setting LOG_PROMPTS says.",
    )
    log_responses = models.BooleanField(
        "keep responses",
        null=True,
        blank=True,
        help_text="Whether texts that it gets stay on record. Unknown: as the setting LOG_RESPONSES says.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def keeps_prompts(self) -> bool:
        return settings.LOG_PROMPTS if self.log_prompts is None else self.log_prompts

    @property
    def keeps_responses(self) -> bool:
        return settings.LOG_RESPONSES if self.log_responses is None else self.log_responses


class PeopleManager(UserManager.from_queryset(AuditedQuerySet)):  # type: ignore[misc]
    """Django's own, entering what it changes."""

    use_in_migrations = False


class User(AbstractUser, Audited):
    """A person who logs in to the admin. Staff of the operator, or a member of organizations, or both."""

    email = models.EmailField(blank=True)

    objects: ClassVar[PeopleManager] = PeopleManager()

    def organization_ids(self) -> list[UUID]:
        """The organizations whose record this person may see; meaningless for staff who see all."""
        return list(self.memberships.values_list("organization_id", flat=True))


class Membership(Audited):
    """A person's role in one organization."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        ADMIN = "admin", "Administrator"
        MEMBER = "member", "Member"
        VIEWER = "viewer", "Viewer"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "organization"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization} ({self.get_role_display()})"


class APIKeyQuerySet(AuditedQuerySet["APIKey"]):
    def usable(self) -> APIKeyQuerySet:
        """Keys that authenticate at this moment."""
        now = timezone.now()
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None, organization__is_active=True)


class APIKey(Audited):
    """A secret that speaks for an organization. Only its prefix and its SHA-256 are kept: the secret has 256 bits of
    entropy, so a slow hash would add nothing."""

    class Scope(models.TextChoices):
        CHAT = "chat", "Chat: ask models"
        READ = "read", "Read: own history, models and usage"
        METRICS = "metrics", "Metrics: Prometheus"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=128, default="default")
    prefix = models.CharField(max_length=16, editable=False, db_index=True, help_text="The key's first characters.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.JSONField(default=list, validators=[validate_scopes], help_text='Such as ["chat", "read"].')
    budget_usd = models.DecimalField(
        "budget (USD)",
        max_digits=12,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Empty: no limit.",
    )
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = APIKeyQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def scope_names(self) -> str:
        """The scopes in one line, for people."""
        return ", ".join(self.scopes)

    def status(self) -> str:
        """In one word, for people: active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= timezone.now() else "active"


def model_is_allowed(patterns: Sequence[str], *names: str) -> bool:
    """Whether a plan with these patterns admits a model that goes by any of `names`. No patterns admit all."""
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)
