"""The page of one interaction: its figures, facts and attempts as plain values, for its template to write.

What was said is laid out by `chat.admin.exchange`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from chat import rerun
from chat.admin import exchange, formats
from chat.admin.beside import comparison_of
from chat.models import Attempt, Interaction


def marks_of(row: Interaction) -> list[tuple[str, str]]:
    """What was out of the ordinary, as (word, explanation)."""
    marks = []
    if row.streamed:
        marks.append(("stream", "Streamed as it was written"))
    if row.retries:
        marks.append((f"retry ×{row.retries}", "The same provider was asked again"))
    if row.fallback:
        marks.append(("fallback", "Another model or provider took over"))
    if row.cached:
        marks.append(("cached", "Answered without a provider"))
    return marks


def context_of(request: HttpRequest, row: Interaction) -> dict[str, Any]:
    """What its template is given."""
    attempts = list(row.attempts.select_related("price"))
    return {
        "title": "Interaction",
        "row": row,
        "marks": marks_of(row),
        "figures": _figures(row),
        "facts": _facts(row),
        "turns": exchange.turns(row),
        "bars": exchange.bars(row, attempts),
        "attempts": [_attempt(attempt) for attempt in attempts],
        "parameters": formats.text(formats.pretty(row.parameters)) if row.parameters else None,
        "metadata": sorted(row.metadata.items()) if isinstance(row.metadata, dict) else [],
        "original": _original(row),
        "curl": exchange.curl(row, origin=request.build_absolute_uri("/").rstrip("/")),
    }


def _original(row: Interaction) -> str | None:
    """The comparison with the interaction that this one repeats."""
    if not isinstance(row.metadata, dict) or rerun.OF not in row.metadata:
        return None
    try:
        return comparison_of(UUID(row.metadata[rerun.OF]), row.pk)
    except ValueError:
        return None


def _figures(row: Interaction) -> list[dict[str, str]]:
    """The header's figures: what, how much, and a remark."""
    details = [
        f"{count:,} {direction}"
        for count, direction in ((row.input_tokens, "in"), (row.output_tokens, "out"))
        if count is not None
    ]
    if row.cached_input_tokens:
        details.append(f"{row.cached_input_tokens:,} cached")
    if row.reasoning_tokens:
        details.append(f"{row.reasoning_tokens:,} reasoning")
    if row.usage_estimated:
        details.append("estimated")
    cost, exact = formats.money(row.cost), formats.exact_money(row.cost)
    return [
        {"label": "Cost", "value": cost, "remark": "" if exact == cost else exact},
        {"label": "Tokens", "value": _tokens(row), "remark": ", ".join(details)},
        {
            "label": "Latency",
            "value": formats.milliseconds(row.latency_ms),
            "remark": f"provider {formats.milliseconds(row.provider_latency_ms)}",
        },
        {"label": "First token", "value": formats.milliseconds(row.time_to_first_token_ms), "remark": ""},
        {"label": "Finish reason", "value": row.finish_reason or formats.NOTHING, "remark": ""},
    ]


def _facts(row: Interaction) -> list[dict[str, str | None]]:
    """Who asked, from where and by which way: label, value and, where the admin has a page for it, its address."""
    key, conversation = _related(row, "api_key"), _related(row, "conversation")
    facts: list[tuple[str, str, str | None]] = [
        ("Organization", row.organization.name, page_of(row.organization)),
        ("Plan then", row.plan, None),
        ("User", row.user_id, None),
        ("API key", str(key or ""), page_of(key)),
        ("Conversation", str(conversation or ""), page_of(conversation)),
        ("Endpoint", row.get_endpoint_display(), None),
        ("Route", row.route_reason, None),
        ("Request id", row.trace_id, None),
        ("Caller's request id", row.request_id or "", None),
        ("Interaction id", str(row.id), None),
        ("Accepted", f"{row.created_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC", None),
        ("Finished", f"{row.finished_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC" if row.finished_at else "", None),
    ]
    return [{"label": label, "value": value, "url": url} for label, value, url in facts if value]


def _related(row: Interaction, name: str) -> Model | None:
    """The row that a reference without a constraint names, or None when it is gone."""
    try:
        related: Model | None = getattr(row, name)
    except ObjectDoesNotExist:
        return None
    return related


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "row": attempt,
        "latency": formats.milliseconds(attempt.latency_ms),
        "first_token": formats.milliseconds(attempt.time_to_first_token_ms),
        "input_tokens": formats.count(attempt.input_tokens),
        "output_tokens": formats.count(attempt.output_tokens),
        "ending": attempt.raw_finish_reason or attempt.finish_reason or formats.NOTHING,
        "cost": formats.money(attempt.cost),
        "price": _price_source(attempt),
        "price_url": page_of(attempt.price),
    }


def _price_source(attempt: Attempt) -> str:
    if attempt.cost_reported:
        return "reported by the provider"
    return f"price of {attempt.price.effective_from:%Y-%m-%d}" if attempt.price else ""


def page_of(row: Model | None) -> str | None:
    """The address of a row's page in the admin, or None when there is none."""
    if row is None:
        return None
    try:
        return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return None


def _tokens(row: Interaction) -> str:
    return formats.UNKNOWN if row.total_tokens is None else formats.count(row.total_tokens)
