"""The product's Prometheus series, told by the recorder once an exchange is on record.

Every label has few values: a model's name becomes one only when it is the catalogue's or has answered us, since callers
can invent names without end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

from prometheus_client import Counter, Gauge, Histogram

from chat.models import Attempt, Interaction, Status

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

_KINDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cached_input_tokens",
    "reasoning": "reasoning_tokens",
}

_answered: set[str] = set()

# Finding a series by its labels costs more than counting in it; there are few.
_requests = cache(REQUESTS.labels)
_response_time = cache(RESPONSE_TIME.labels)
_first_token_time = cache(FIRST_TOKEN_TIME.labels)
_tokens = cache(TOKENS.labels)
_cost = cache(COST.labels)


@contextmanager
def active() -> Iterator[None]:
    """Counts one exchange in flight."""
    ACTIVE.inc()
    try:
        yield
    finally:
        ACTIVE.dec()


def observe(interaction: Interaction, attempts: Sequence[Attempt], *, name_of: Callable[[str, str], str]) -> None:
    """Counts one finished exchange. `name_of`: our name of a provider's model, by the provider and its own name."""
    provider, succeeded = interaction.provider or OTHER, interaction.status == Status.SUCCEEDED
    model = _label(provider, interaction.model, answered=succeeded)
    _requests(provider, model, interaction.plan, str(interaction.status)).inc()
    if succeeded and interaction.latency_ms is not None:
        _response_time(provider, model).observe(interaction.latency_ms / 1000)
    if interaction.time_to_first_token_ms is not None:
        _first_token_time(provider, model).observe(interaction.time_to_first_token_ms / 1000)
    if interaction.status == Status.FAILED and all(attempt.status != Status.FAILED for attempt in attempts):
        ERRORS.labels(provider, interaction.error_code).inc()
    for attempt in attempts:
        _observe_attempt(attempt, name_of(attempt.provider, attempt.model))
    for one, next_one in pairwise(attempts):
        if (one.provider, one.model) == (next_one.provider, next_one.model):
            RETRIES.labels(one.provider).inc()
        else:
            FALLBACKS.labels(one.provider, next_one.provider).inc()


def _observe_attempt(attempt: Attempt, name: str) -> None:
    model = _label(attempt.provider, name, answered=attempt.status == Status.SUCCEEDED)
    if attempt.status == Status.FAILED:
        ERRORS.labels(attempt.provider, attempt.error_code).inc()
    for kind, field in _KINDS.items():
        if tokens := getattr(attempt, field):
            _tokens(attempt.provider, model, kind).inc(tokens)
    if attempt.cost:
        _cost(attempt.provider, model).inc(float(attempt.cost))


def _label(provider: str, name: str, *, answered: bool) -> str:
    """The model's name, if it may be a label. One that begins with its provider is as the caller gave it."""
    if name and not name.startswith(f"{provider}/"):
        return name
    if answered and len(_answered) < _MOST_NAMES:
        _answered.add(name)
    return name if name in _answered else OTHER
