"""What is counted of an exchange, and that callers cannot make up labels."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chat import metrics
from chat.models import Attempt, Interaction, Status


def interaction(**values: Any) -> Interaction:
    defaults = {"provider": "gemini", "model": "gemini-2.0-flash", "plan": "free", "status": Status.SUCCEEDED}
    return Interaction(**{**defaults, **values})


def attempt(**values: Any) -> Attempt:
    return Attempt(**{"provider": "gemini", "model": "gemini-2.0-flash", "status": Status.SUCCEEDED, **values})


def name_of(provider: str, model: str) -> str:
    """As the catalogue has it: its own name for what it knows, else as a caller would write it."""
    return model if model == "gemini-2.0-flash" else f"{provider}/{model}"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`counted(interaction, *attempts)`: the samples that grew, by how much, but for the buckets."""
    monkeypatch.setattr(metrics, "_answered", set())

    def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name.startswith("llm_") and not sample.name.endswith(("_bucket", "_created"))
        }

    def observe(row: Interaction, *attempts: Attempt) -> dict[str, dict[tuple[str, ...], float]]:
        before = samples()
        metrics.observe(row, attempts, name_of=name_of)
        metrics.flush()
        grown: dict[str, dict[tuple[str, ...], float]] = {}
        for (name, labels), value in samples().items():
            if value != before.get((name, labels), 0.0):
                values = tuple(value for _, value in labels)
                grown.setdefault(name, {})[values] = round(value - before.get((name, labels), 0.0), 9)
        return grown

    return observe


def test_success_is_counted_with_its_tokens_cost_and_times(counted: Any) -> None:
    row = interaction(latency_ms=1500.0, time_to_first_token_ms=250.0)
    call = attempt(
        input_tokens=25, output_tokens=45, cached_input_tokens=5, reasoning_tokens=0, cost=Decimal("0.00001230")
    )
    route = ("gemini-2.0-flash", "gemini")
    assert counted(row, call) == {
        "llm_requests_total": {(*route, "succeeded", "free"): 1.0},
        "llm_response_time_seconds_count": {route: 1.0},
        "llm_response_time_seconds_sum": {route: 1.5},
        "llm_time_to_first_token_seconds_count": {route: 1.0},
        "llm_time_to_first_token_seconds_sum": {route: 0.25},
        "llm_tokens_total": {
            ("input", *route): 25.0,
            ("output", *route): 45.0,
            ("cached_input", *route): 5.0,
        },
        "llm_cost_usd_total": {route: 0.0000123},
    }


def test_retry_and_fallback_are_counted_with_their_errors(counted: Any) -> None:
    failed = {"status": Status.FAILED, "error_code": "provider_overloaded"}
    grown = counted(interaction(), attempt(provider="openai", model="gpt-x", **failed),
                    attempt(provider="openai", model="gpt-x", **failed), attempt())  # fmt: skip
    assert grown == {
        "llm_requests_total": {("gemini-2.0-flash", "gemini", "succeeded", "free"): 1.0},
        "llm_errors_total": {("provider_overloaded", "openai"): 2.0},
        "llm_retries_total": {("openai",): 1.0},
        "llm_fallbacks_total": {("openai", "gemini"): 1.0},
    }


def test_unknown_cost_and_tokens_are_not_counted(counted: Any) -> None:
    assert set(counted(interaction(), attempt())) == {"llm_requests_total"}


def test_failure_without_a_call_is_an_error_of_its_own(counted: Any) -> None:
    row = interaction(status=Status.FAILED, error_code="internal_error", latency_ms=3.0)
    assert counted(row) == {
        "llm_requests_total": {("gemini-2.0-flash", "gemini", "failed", "free"): 1.0},
        "llm_errors_total": {("internal_error", "gemini"): 1.0},
    }


def test_name_that_a_caller_made_up_is_no_label_until_it_has_answered(counted: Any) -> None:
    row = {"provider": "openai", "model": "openai/made-up"}
    failed = {"status": Status.FAILED, "error_code": "model_not_found"}
    assert counted(
        interaction(**row, **failed), attempt(provider="openai", model="made-up", input_tokens=1, **failed)
    ) == {
        "llm_requests_total": {("other", "openai", "failed", "free"): 1.0},
        "llm_errors_total": {("model_not_found", "openai"): 1.0},
        "llm_tokens_total": {("input", "other", "openai"): 1.0},
    }
    assert counted(interaction(**row)) == {
        "llm_requests_total": {("openai/made-up", "openai", "succeeded", "free"): 1.0}
    }
    assert counted(interaction(**row, **failed))["llm_requests_total"] == {
        ("openai/made-up", "openai", "failed", "free"): 1.0
    }


def test_names_that_answer_are_labels_up_to_a_number(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_MOST_NAMES", 2)
    models = [
        next(iter(counted(interaction(provider="litellm", model=f"litellm/any-{number}"))["llm_requests_total"]))[0]
        for number in range(4)
    ]
    assert models == ["litellm/any-0", "litellm/any-1", "other", "other"]


def test_exchange_is_active_until_it_ends_however_it_ends() -> None:
    def told() -> float | None:
        metrics.flush()
        return REGISTRY.get_sample_value("llm_active_requests")

    assert told() == 0
    with suppress(RuntimeError), metrics.active(), metrics.active():
        assert told() == 2
        raise RuntimeError
    assert told() == 0
