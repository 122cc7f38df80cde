"""The product's Prometheus series, told by the recorder once an exchange is on record, and put together now and then.

Every label has few values: a model's name becomes one only when it is the catalogue's or has answered us, since callers
can invent names without end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

from prometheus_client import Counter, Gauge, Histogram

from chat.models import Attempt, Interaction, Status
from llmchat.lib.tallies import Count, Tallies

OTHER = "other"
#: Names beyond the catalogue that may become labels in one process: some providers answer to any name.
_MOST_NAMES = 200

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120)
_FIRST_TOKEN_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30)

REQUESTS = Counter(
    "llm_requests_total", "Interactions on record, by how they ended.", ["provider", "model", "tier", "status"]
)
ERRORS = Counter(
    "llm_errors_total",
    "Calls to providers that failed, and interactions that failed without one.",
    ["provider", "error_type"],
)
TOKENS = Counter(
    "llm_tokens_total",
    "Tokens of all calls to providers. input includes cached_input, output includes reasoning.",
    ["provider", "model", "kind"],
)
COST = Counter("llm_cost_usd_total", "Known cost of all calls to providers in US dollars.", ["provider", "model"])
RESPONSE_TIME = Histogram(
    "llm_response_time_seconds",
    "From accepting a request to its whole answer.",
    ["provider", "model"],
    buckets=_SECONDS,
)
FIRST_TOKEN_TIME = Histogram(
    "llm_time_to_first_token_seconds",
    "From accepting a request to the first token of its answer.",
    ["provider", "model"],
    buckets=_FIRST_TOKEN_SECONDS,
)
RETRIES = Counter("llm_retries_total", "Further calls to the provider and model that was called before.", ["provider"])
FALLBACKS = Counter("llm_fallbacks_total", "Moves from one provider or model to the next.", ["from", "to"])
BACKLOG = Gauge(
    "llm_record_backlog", "Exchanges that have ended and are not yet committed.", multiprocess_mode="livesum"
)
JOURNAL = Gauge("llm_journal_bytes", "Bytes in the journals of living processes.", multiprocess_mode="livesum")
ACTIVE = Gauge("llm_active_requests", "Exchanges in flight.", multiprocess_mode="livesum")

_answered: set[str] = set()

_tallies = Tallies()


class _Active:
    """Exchanges in flight. They belong to the event loop's thread."""

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


_active = _Active()


def active() -> AbstractContextManager[None]:
    """Counts one exchange in flight."""
    return _active


def observe(interaction: Interaction, attempts: Sequence[Attempt], *, name_of: Callable[[str, str], str]) -> None:
    """Counts one finished exchange, to be told at the next `flush`. `name_of`: our name of a provider's model, by the
    provider and its own name."""
    provider, succeeded = interaction.provider or OTHER, interaction.status == Status.SUCCEEDED
    model = _label(provider, interaction.model, answered=succeeded)
    counts: list[Count] = [(REQUESTS, (provider, model, interaction.plan, str(interaction.status)), 1)]
    if succeeded and interaction.latency_ms is not None:
        counts.append((RESPONSE_TIME, (provider, model), interaction.latency_ms / 1000))
    if interaction.time_to_first_token_ms is not None:
        counts.append((FIRST_TOKEN_TIME, (provider, model), interaction.time_to_first_token_ms / 1000))
    if interaction.status == Status.FAILED and all(attempt.status != Status.FAILED for attempt in attempts):
        counts.append((ERRORS, (provider, interaction.error_code), 1))
    for attempt in attempts:
        counts += _of_attempt(attempt, name_of(attempt.provider, attempt.model))
    for one, next_one in pairwise(attempts) if len(attempts) > 1 else ():
        if (one.provider, one.model) == (next_one.provider, next_one.model):
            counts.append((RETRIES, (one.provider,), 1))
        else:
            counts.append((FALLBACKS, (one.provider, next_one.provider), 1))
    _tallies.add(counts)


def flush() -> None:
    """Tells Prometheus what was counted since the last time."""
    ACTIVE.set(_active.count)
    _tallies.flush()


def _of_attempt(attempt: Attempt, name: str) -> list[Count]:
    # Past the descriptors of the fields, which look for a value in the database if there is none.
    row = attempt.__dict__
    provider, status = row["provider"], row["status"]
    model = _label(provider, name, answered=status == Status.SUCCEEDED)
    counts: list[Count] = []
    if status == Status.FAILED:
        counts.append((ERRORS, (provider, attempt.error_code), 1))
    if tokens := row["input_tokens"]:
        counts.append((TOKENS, (provider, model, "input"), tokens))
    if tokens := row["output_tokens"]:
        counts.append((TOKENS, (provider, model, "output"), tokens))
    if tokens := row["cached_input_tokens"]:
        counts.append((TOKENS, (provider, model, "cached_input"), tokens))
    if tokens := row["reasoning_tokens"]:
        counts.append((TOKENS, (provider, model, "reasoning"), tokens))
    if cost := row["cost"]:
        counts.append((COST, (provider, model), float(cost)))
    return counts


def _label(provider: str, name: str, *, answered: bool) -> str:
    """The model's name, if it may be a label. One that begins with its provider is as the caller gave it."""
    if name and not name.startswith(f"{provider}/"):
        return name
    if answered and len(_answered) < _MOST_NAMES:
        _answered.add(name)
    return name if name in _answered else OTHER
