"""What is done to organizations and keys, for the admin, the commands and the tests alike.

A raw key exists only in the return value of the call that made it. Whatever changes what a key may do also makes this
process forget what it has cached of it; other processes notice within `API_KEY_CACHE_SECONDS`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Collection
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from accounts.models import APIKey, Organization, Plan, User
from audit import entries
from audit.models import Action
from llmchat.lib import changes

#: 32 random bytes in URL-safe base64 after the mark by which leaked keys are found in code and logs.
RAW_KEY = re.compile(r"llmc_[A-Za-z0-9_-]{43}")
PREFIX_LENGTH = 12
DEFAULT_PLAN = "free"
DEFAULT_SCOPES = frozenset({APIKey.Scope.CHAT.value, APIKey.Scope.READ.value})
DEFAULT_GRACE = dt.timedelta(days=1)

PUBLIC_ORGANIZATION = "public"
PUBLIC_SCOPES = DEFAULT_SCOPES


def digest_of(raw: str) -> str:
    """What is stored of a raw key: its SHA-256, in hexadecimal."""
    return hashlib.sha256(raw.encode()).hexdigest()


def create_organization(name: str, *, plan: Plan) -> Organization:
    """Raises Django's `ValidationError` when the name is taken or cannot be one."""
    organization = Organization(name=name.strip(), plan=plan)
    organization.full_clean()
    organization.save()
    return organization


def public_organization() -> Organization:
    """The organization that requests without a key speak for, made when it is first needed."""
    organization = Organization.objects.select_related("plan").filter(name=PUBLIC_ORGANIZATION).first()
    if organization is None:
        organization, _ = Organization.objects.select_related("plan").get_or_create(
            name=PUBLIC_ORGANIZATION, defaults={"plan_id": DEFAULT_PLAN}
        )
    return organization


@sensitive_variables("raw")
def create_api_key(
    organization: Organization,
    *,
    name: str = "default",
    scopes: Collection[str] = DEFAULT_SCOPES,
    budget_usd: Decimal | None = None,
    expires_at: dt.datetime | None = None,
    created_by: User | None = None,
) -> tuple[APIKey, str]:
    """A new key and its raw form, which nobody can get again. Raises Django's `ValidationError`."""
    raw = f"llmc_{secrets.token_urlsafe(32)}"
    key = APIKey(
        organization=organization,
        name=name,
        prefix=raw[:PREFIX_LENGTH],
        digest=digest_of(raw),
        scopes=sorted(scopes),
        budget_usd=budget_usd,
        expires_at=expires_at,
        created_by=created_by,
    )
    key.full_clean()
    key.save()
    return key, raw


def update_api_key(
    key: APIKey, *, name: str, scopes: Collection[str], budget_usd: Decimal | None, expires_at: dt.datetime | None
) -> None:
    """Changes what may be changed of a key. Raises Django's `ValidationError`."""
    key.name, key.scopes, key.budget_usd, key.expires_at = name, sorted(scopes), budget_usd, expires_at
    key.full_clean()
    key.save(update_fields=["name", "scopes", "budget_usd", "expires_at"])
    _forget(key)


def revoke_api_key(key: APIKey) -> None:
    """From now on the key is refused. Revoking again changes nothing."""
    with entries.as_action(Action.REVOKED):
        APIKey.objects.filter(id=key.id, revoked_at=None).update(revoked_at=timezone.now())
    key.refresh_from_db(fields=["revoked_at"])
    _forget(key)


@sensitive_variables("raw")
def rotate_api_key(
    key: APIKey, *, grace: dt.timedelta = DEFAULT_GRACE, created_by: User | None = None
) -> tuple[APIKey, str]:
    """A successor with the same name, rights and length of life, and its raw form; the old key works until `grace` is
    over. Raises Django's `ValidationError` for a revoked key."""
    if key.revoked_at is not None:
        raise ValidationError(f"The key {key} is revoked. Create a new one instead.")
    now = timezone.now()
    last_moment = now + grace
    with transaction.atomic():
        successor, raw = create_api_key(
            key.organization,
            name=key.name,
            scopes=key.scopes,
            budget_usd=key.budget_usd,
            expires_at=now + (key.expires_at - key.created_at) if key.expires_at else None,
            created_by=created_by,
        )
        key.expires_at = min(key.expires_at or last_moment, last_moment)
        with entries.as_action(Action.ROTATED, successor=f"{successor} ({successor.pk})"):
            key.save(update_fields=["expires_at"])
        _forget(key)
    return successor, raw


def forget_cached_keys() -> None:
    """To be called when a plan or an organization has changed: any number of keys may now mean something else."""
    transaction.on_commit(lambda: changes.tell("keys"))


def _forget(key: APIKey) -> None:
    # Not before the change can be read: a request in between would cache the old state for its whole life.
    transaction.on_commit(lambda: changes.tell("keys", key.digest))
