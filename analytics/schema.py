"""The OpenAPI description of usage and statistics: operations and examples. No behaviour."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from analytics.serializers import (
    StatisticsAnswerSerializer,
    StatisticsQuerySerializer,
    UsageAnswerSerializer,
    UsageQuerySerializer,
)
from llmchat.lib.schema import errors

_ORGANIZATION = "01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b10"
_FRESHNESS = {"as_of": "2026-06-15T14:32:00.123Z", "is_complete": True, "pending_since": None}
_TOKENS = {"input": 250, "cached_input": 64, "output": 450, "reasoning": 0, "total": 700}
_LATENCY = {"count": 10, "average": 812.4, "p50": 796.5, "p90": 1061.4, "p95": 1103.9, "p99": 1148.0}
_FIRST_TOKEN = {"count": 10, "average": 320.1, "p50": 314.4, "p90": 419.0, "p95": 435.8, "p99": 453.2}

_USAGE = {
    "organization_id": _ORGANIZATION,
    "start_date": "2026-06-01",
    "end_date": "2026-06-15",
    "summary": {
        "total_cost": 0.000205,
        "currency": "USD",
        "total_tokens": 700,
        "total_requests": 10,
        "unpriced_requests": 0,
        "tokens": _TOKENS,
        "attempts": 11,
        "retries": 1,
        "fallbacks": 0,
        "latency_ms": _LATENCY,
        "time_to_first_token_ms": _FIRST_TOKEN,
    },
    "by_model": {"gemini-2.0-flash": {"requests": 10, "tokens": 700, "cost": 0.000205, "unpriced_requests": 0}},
    "series": [
        {"start": "2026-06-15T00:00:00.000Z", "requests": 10, "tokens": 700, "cost": 0.000205, "unpriced_requests": 0}
    ],
    "freshness": _FRESHNESS,
}
_STATISTICS = {
    "organization_id": _ORGANIZATION,
    "since": "2026-06-14T14:32:00.123Z",
    "until": "2026-06-15T14:32:00.123Z",
    "requests": {"total": 10, "succeeded": 9, "failed": 1, "cancelled": 0, "interrupted": 0},
    "latency_ms": _LATENCY,
    "time_to_first_token_ms": _FIRST_TOKEN,
    "cache": {"hits": 0, "hit_rate": 0.0},
    "tokens": _TOKENS,
    "cost": {"total": 0.000205, "currency": "USD", "unpriced_requests": 0},
    "errors": {"total": 1, "rate": 0.1, "by_code": {"provider_timeout": 1}},
    "retries": {"attempts": 11, "retries": 1, "fallbacks": 0},
    "freshness": _FRESHNESS,
}

USAGE = extend_schema(
    operation_id="usage",
    summary="Own usage: requests, tokens and cost",
    description="Exact to the last request that was answered: what is not added up yet is read from the record.",
    tags=["Usage"],
    parameters=[UsageQuerySerializer],
    examples=[OpenApiExample("By the day", value=_USAGE, response_only=True, status_codes=["200"])],
    responses={200: OpenApiResponse(UsageAnswerSerializer, description="The usage."), **errors()},
)
STATISTICS = extend_schema(
    operation_id="statistics",
    summary="How own requests have gone lately",
    description="Counts, latency, cache, tokens, cost, errors and retries since a given moment.",
    tags=["Usage"],
    parameters=[StatisticsQuerySerializer],
    examples=[OpenApiExample("A day", value=_STATISTICS, response_only=True, status_codes=["200"])],
    responses={200: OpenApiResponse(StatisticsAnswerSerializer, description="The statistics."), **errors()},
)
