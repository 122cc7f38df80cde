"""Usage and statistics of one organization, in the shape in which the API tells them. Knows nothing of HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from analytics import histogram, reading
from analytics.histogram import Histogram
from analytics.models import Grain
from analytics.questions import Answer, Question
from analytics.rows import UNIT_PLACES
from analytics.totals import Totals
from chat.models import Status
from chat.payloads import timestamp

#: What usage may be grouped by: the parameter's word and the dimension's name.
DIMENSIONS: Final[Mapping[str, str]] = {
    "model": "model",
    "provider": "provider",
    "user": "user_id",
    "key": "api_key_id",
    "status": "status",
    "plan": "plan",
    "error_code": "error_code",
    "cached": "cached",
    "route_reason": "route_reason",
}
INTERVALS: Final[Mapping[str, Grain]] = {"hour": Grain.HOUR, "day": Grain.DAY, "month": Grain.MONTH}
PERCENTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
#: For what no name is known, such as the model of a request that failed before one was chosen.
UNKNOWN: Final = "unknown"

Json = dict[str, Any]


def usage(
    organization_id: UUID,
    *,
    start: dt.date,
    end: dt.date,
    group_by: str | None,
    interval: Grain | None,
    only: Mapping[str, Any],
    limit: int,
) -> Json:
    """What the organization used from `start` to `end`, both days included: summed up, by model, and by `group_by` and
    `interval` as asked. `only`: values of the dimensions that are asked for. `limit`: groups told one by one."""
    since = dt.datetime.combine(start, dt.time(), tzinfo=dt.UTC)
    until = dt.datetime.combine(end + dt.timedelta(days=1), dt.time(), tzinfo=dt.UTC)

    def asked(by: tuple[str, ...], grain: Grain | None = None) -> Question:
        return Question(
            organization_id=organization_id, since=since, until=until, only=dict(only), by=by, interval=grain
        )

    by_group = (DIMENSIONS[group_by],) if group_by else ()
    by_model = () if "user_id" in only else ("model",)
    # Each question costs its queries: none is asked for what nobody wants to be told.
    questions = {"models": asked(by_model)}
    if group_by:
        questions["groups"] = questions["models"] if by_group == by_model else asked(by_group)
    if interval:
        questions["series"] = asked(by_group, interval)
    answers = dict(zip(questions, reading.answer(*questions.values()), strict=True))
    models = answers["models"]
    found: Json = {
        "organization_id": str(organization_id),
        "start_date": start.isoformat(),
        "end_date": end.isoformat(),
        "summary": _summary(Totals.sum(models.groups.values())),
        "by_model": {name: _brief(totals) for name, totals in _named(models)} if by_model else None,
    }
    if group_by:
        found["groups"] = _groups(answers["groups"], group_by, limit)
    if interval:
        found["series"] = _series(answers["series"], group_by)
    return {**found, "freshness": freshness(models)}


def statistics(organization_id: UUID, *, since: dt.datetime, until: dt.datetime) -> Json:
    """How the organization's requests have gone from `since` until before `until`."""
    question = Question(
        organization_id=organization_id, since=since, until=until, by=("status", "error_code", "cached")
    )
    (answer,) = reading.answer(question)
    whole = Totals.sum(answer.groups.values())
    by_status = {str(status): 0 for status in Status}
    by_code: dict[str, int] = {}
    hits = 0
    for (_, status, code, cached), totals in answer.groups.items():
        by_status[status] = by_status.get(status, 0) + totals.requests
        hits += totals.requests if cached else 0
        if code:
            by_code[code] = by_code.get(code, 0) + totals.requests
    failed = by_status[Status.FAILED] + by_status[Status.INTERRUPTED]
    return {
        "organization_id": str(organization_id),
        "since": timestamp(since),
        "until": timestamp(until),
        "requests": {"total": whole.requests, **by_status},
        "latency_ms": times_of(whole.latencies, whole.latency),
        "time_to_first_token_ms": times_of(whole.first_tokens, whole.first_token),
        "cache": {"hits": hits, "hit_rate": _share(hits, whole.requests)},
        "tokens": _tokens(whole),
        "cost": {"total": _cost(whole), "currency": "USD", "unpriced_requests": whole.unpriced},
        "errors": {"total": failed, "rate": _share(failed, whole.requests), "by_code": dict(sorted(by_code.items()))},
        "retries": {"attempts": whole.attempts, "retries": whole.retries, "fallbacks": whole.fallbacks},
        "freshness": freshness(answer),
    }


def freshness(answer: Answer) -> Json:
    """Of when the answer is, and whether every change before then is in it."""
    return {
        "as_of": timestamp(answer.as_of),
        "is_complete": answer.pending_since is None,
        "pending_since": timestamp(answer.pending_since) if answer.pending_since else None,
    }


def cost_of(totals: Totals) -> Decimal | None:
    """US dollars of the requests whose price is known; None when there is none and others spent something."""
    return None if totals.unpriced and not totals.priced else Decimal(totals.cost).scaleb(-UNIT_PLACES)


def _named(answer: Answer) -> list[tuple[str, Totals]]:
    """Groups of one dimension by name, the most used first."""
    found = [(_name(group[1]), totals) for group, totals in answer.groups.items()]
    return sorted(found, key=lambda pair: (-pair[1].requests, pair[0]))


def _groups(answer: Answer, group_by: str, limit: int) -> list[Json]:
    named = _named(answer)
    told = [{group_by: name, **_summary(totals)} for name, totals in named[:limit]]
    if rest := [totals for _, totals in named[limit:]]:
        told.append({group_by: None, "is_rest": True, **_summary(Totals.sum(rest))})
    return told


def _series(answer: Answer, group_by: str | None) -> list[Json]:
    told = []
    for group, totals in sorted(answer.groups.items(), key=lambda pair: str(pair[0])):
        start, *values = group
        of = {group_by: _name(values[0])} if group_by else {}
        told.append({"start": timestamp(start) if start else None, **of, **_brief(totals)})
    return told


def _name(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None | "":
            return UNKNOWN
        case _:
            return str(value)


def _brief(totals: Totals) -> Json:
    return {
        "requests": totals.requests,
        "tokens": totals.input_tokens + totals.output_tokens,
        "cost": _cost(totals),
        "unpriced_requests": totals.unpriced,
    }


def _summary(totals: Totals) -> Json:
    return {
        "total_cost": _cost(totals),
        "currency": "USD",
        "total_tokens": totals.input_tokens + totals.output_tokens,
        "total_requests": totals.requests,
        "unpriced_requests": totals.unpriced,
        "tokens": _tokens(totals),
        "attempts": totals.attempts,
        "retries": totals.retries,
        "fallbacks": totals.fallbacks,
        "latency_ms": times_of(totals.latencies, totals.latency),
        "time_to_first_token_ms": times_of(totals.first_tokens, totals.first_token),
    }


def _tokens(totals: Totals) -> Json:
    return {
        "input": totals.input_tokens,
        "cached_input": totals.cached_input_tokens,
        "output": totals.output_tokens,
        "reasoning": totals.reasoning_tokens,
        "total": totals.input_tokens + totals.output_tokens,
    }


def times_of(times: Histogram, microseconds: int) -> Json:
    """Milliseconds: how many were measured, their average and percentiles; None of what was never measured."""
    count = sum(times.values())
    found = histogram.percentiles(times, PERCENTILES.values())
    rounded = (None if value is None else round(value, 1) for value in found)
    return {
        "count": count,
        "average": round(microseconds / count / 1000, 3) if count else None,
        **dict(zip(PERCENTILES, rounded, strict=True)),
    }


def _cost(totals: Totals) -> float | None:
    cost = cost_of(totals)
    return None if cost is None else float(cost)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
