"""Who asks: what authentication hands on to views, limits and the record. Plain values, made once per key and kept;
they know neither HTTP nor the database's queries."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self
from uuid import UUID

from accounts.models import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """An organization's plan at that moment. None means no limit; no `allowed_models` means every model."""

    slug: str
    name: str
    requests_per_hour: int | None = None
    tokens_per_day: int | None = None
    allowed_models: tuple[str, ...] = ()
    priority: int = 0

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(
            slug=plan.slug,
            name=plan.name,
            requests_per_hour=plan.requests_per_hour,
            tokens_per_day=plan.tokens_per_day,
            allowed_models=tuple(plan.allowed_models),
            priority=plan.priority,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The organization that a request speaks for, and the key by which it does; `request.auth` in views.

    `api_key_id` is None, and `key_name` empty, for a request without a key where none is required. `keeps_prompts` and
    `keeps_responses`: whether texts that it sends and gets stay on record.
    """

    organization_id: UUID
    organization_name: str
    api_key_id: UUID | None
    key_name: str
    scopes: frozenset[str]
    plan: PlanLimits
    budget_usd: Decimal | None = None
    keeps_prompts: bool = True
    keeps_responses: bool = True


@dataclass(frozen=True, slots=True)
class Caller:
    """`request.user` in views of the API: a program, not a person. It has no rights in the admin."""

    principal: Principal

    pk = None
    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __str__(self) -> str:
        return self.principal.organization_name

    def get_username(self) -> str:
        return self.principal.organization_name
