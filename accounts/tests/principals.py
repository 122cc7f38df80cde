"""Principals out of nothing, for tests that need no database."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from accounts.principals import PlanLimits, Principal


def principal(*, organization_id: UUID | None = None, plan: PlanLimits | None = None, **limits: Any) -> Principal:
    """Somebody on the plan Free with these limits, or on `plan`."""
    return Principal(
        organization_id=organization_id or uuid4(),
        organization_name="Acme",
        api_key_id=uuid4(),
        key_name="test",
        scopes=frozenset({"chat", "read"}),
        plan=plan or PlanLimits(slug="free", name="Free", **limits),
    )
