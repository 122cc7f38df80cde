"""How much an organization may ask: requests per hour by its plan.

A request counts when it is accepted, whatever becomes of it upstream.
"""

from __future__ import annotations

from dataclasses import dataclass

from accounts.counters import Usage, count, count_async
from accounts.errors import RequestsPerHourExceeded
from accounts.principals import Principal

_GROUP = "requests_per_hour"


@dataclass(frozen=True, slots=True)
class RateState:
    """What is left of the hour: `remaining` of `limit` requests, until `reset_seconds` from now."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_seconds),
        }


def check_rate(principal: Principal) -> RateState | None:
    """Counts one request of the principal's organization; None when its plan has no limit.

    Raises `RequestsPerHourExceeded`, or `LimitsUnavailable` when the counter cannot be reached.
    """
    limit = principal.plan.requests_per_hour
    if limit is None:
        return None
    return _judged(principal, limit, count(_GROUP, value=str(principal.organization_id), rate=f"{limit}/h"))


async def check_rate_async(principal: Principal) -> RateState | None:
    """`check_rate` for the event loop."""
    limit = principal.plan.requests_per_hour
    if limit is None:
        return None
    usage = await count_async(_GROUP, value=str(principal.organization_id), rate=f"{limit}/h")
    return _judged(principal, limit, usage)


def _judged(principal: Principal, limit: int, usage: Usage) -> RateState:
    state = RateState(limit=limit, remaining=max(limit - usage.count, 0), reset_seconds=usage.reset_seconds)
    if usage.count > limit:
        raise RequestsPerHourExceeded(
            plan=principal.plan.name, limit=limit, retry_after=state.reset_seconds, headers=state.headers()
        )
    return state
