"""Who asks in the demo data: organizations on every plan with their keys, people and habits, and the models they use.

The same seed and span make the same world, ids included.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final
from uuid import UUID

from django.db import transaction

from accounts.models import APIKey, Organization, Plan
from chat.demo import words
from chat.demo.words import Words
from llmchat.lib.uuid7 import moment_of
from providers.models import LanguageModel, Price
from providers.services import fill_catalogue

#: Models by the share of their calls, with tokens a second and milliseconds to the first token, as they usually are.
_MODELS: Final[Mapping[str, tuple[int, int, int]]] = {
    "gemini-2.0-flash": (20, 160, 380),
    "gemini-2.5-flash": (16, 190, 420),
    "gemini-2.5-pro": (5, 90, 1900),
    "gpt-4o-mini": (14, 80, 450),
    "gpt-4o": (7, 70, 520),
    "gpt-5-mini": (6, 110, 900),
    "claude-sonnet-4-5": (7, 65, 1100),
    "claude-haiku-4-5": (6, 130, 600),
    "deepseek-chat": (5, 40, 900),
    "groq/llama-3.1-8b-instant": (5, 600, 120),
    "openrouter/openai/gpt-4o-mini": (3, 75, 600),
    "local/smollm2-135m": (2, 70, 90),
    # Nobody knows what these cost.
    "ollama/qwen3:4b": (3, 45, 300),
    "litellm/house-model": (1, 60, 500),
}
_FIRST: Final = words.listed(
    "Amber Basalt Birch Cedar Cobalt Copper Coral Delta Ember Fjord Garnet Granite Harbor Hazel Indigo Juniper "
    "Kelp Larch Linden Maple Marble Mesa Nettle Nimbus Ochre Onyx Opal Pebble Pine Quartz Raven Reed Rowan "
    "Saffron Sierra Slate Sorrel Summit Tundra Willow"
)
_SECOND: Final = words.listed(
    "Analytics Bank Books Clinic Energy Foods Freight Games Health Insurance Labs Logistics Media Mobility "
    "Optics Press Robotics School Studio Travel"
)
#: Of all organizations; how much more one of the plan asks; people in the smallest and in the largest.
_PLANS: Final[Mapping[str, tuple[float, float, int, int]]] = {
    "free": (0.55, 0.3, 3, 40),
    "premium": (0.30, 1.0, 20, 800),
    "enterprise": (0.12, 5.0, 200, 20_000),
    "unlimited": (0.03, 3.0, 1, 50),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model at its provider. `prices`: versions as (since when in ms, millionths of a dollar per million tokens of
    input, cached input and output, id), oldest first; none: unknown. `reports_cost`: the provider says the cost."""

    name: str
    provider: str
    upstream_id: str
    prices: Sequence[tuple[int, int, int, int, int]]
    reports_cost: bool
    tokens_per_second: int
    first_token_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An organization with its habits. Ids are integers. `share`: of requests that are streamed, that belong to
    conversations, that come by OpenAI's endpoint."""

    id: int
    keys: Sequence[int]
    plan: str
    people: int
    naming: str
    subject: int
    routes: Sequence[Route]
    weights: Sequence[float]
    streamed: float
    threads: float
    completions: float
    named_requests: float


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    tenants: Sequence[Tenant]
    #: Cumulated, for `Random.choices`.
    weights: Sequence[float]
    routes: Mapping[str, Route]
    words: Words


def make(*, seed: str, began: dt.datetime, interactions: int) -> World:
    """The world of these arguments, stored as far as it is rows: organizations, their keys and, where there is none,
    the catalogue. Made again, it is found again."""
    random = Random(f"{seed}/world")  # noqa: S311 - nothing here is secret
    if not LanguageModel.objects.exists():
        fill_catalogue()
    routes = _routes()
    plans = [plan for plan in _PLANS if Plan.objects.filter(slug=plan).exists()]
    count = max(len(plans), min(400, interactions // 2_500))
    first_ms = int(began.timestamp() * 1000)
    made = words.make(random)
    tenants, weights = [], []
    with transaction.atomic():
        for number, name in enumerate(_names(random, count)):
            # Each plan has somebody; then as the shares say.
            plan = plans[number] if number < len(plans) else random.choices(plans, [_PLANS[p][0] for p in plans])[0]
            identifier = _id(random, first_ms) if number else _first(seed, began)
            keys = [_id(random, first_ms) for _ in range(random.choice((1, 1, 2, 3)))]
            tenants.append(_tenant(random, number, identifier, keys, plan, routes, len(made.subjects)))
            weights.append(_PLANS[plan][1] / (number + 1) ** 0.8)
            _store(name, tenants[-1], keys)
    return World(tenants=tenants, weights=list(accumulate(weights)), routes=routes, words=made)


def exists(*, seed: str, began: dt.datetime) -> bool:
    """Whether `make` with these arguments has been here."""
    return Organization.objects.filter(id=UUID(int=_first(seed, began))).exists()


def _first(seed: str, began: dt.datetime) -> int:
    """The id of the first organization."""
    return _id(Random(f"{seed}/first"), int(began.timestamp() * 1000))  # noqa: S311


def _tenant(
    random: Random,
    number: int,
    identifier: int,
    keys: Sequence[int],
    plan: str,
    routes: Mapping[str, Route],
    subjects: int,
) -> Tenant:
    names = random.choices(list(routes), [_MODELS[name][0] for name in routes], k=random.randrange(2, 5))
    # And each tries one of the less usual ones, so that even a small world has them all.
    chosen = list(dict.fromkeys([*names, list(routes)[-1 - number % len(routes)]]))
    _, _, fewest, most = _PLANS[plan]
    return Tenant(
        id=identifier,
        keys=keys,
        plan=plan,
        people=int(fewest * (most / fewest) ** random.random()),
        naming=random.choice(("{:d}", "u-{:05d}", "person{:d}@example.org", "cust_{:06d}")),
        subject=random.randrange(subjects),
        routes=[routes[name] for name in chosen],
        weights=list(accumulate(0.5**place for place in range(len(chosen)))),
        streamed=random.choice((0.1, 0.5, 0.9)),
        threads=random.choice((0.0, 0.3, 0.7)),
        completions=random.choice((0.0, 0.2, 1.0)),
        named_requests=random.choice((0.0, 0.0, 0.3)),
    )


def _store(name: str, tenant: Tenant, keys: Sequence[int]) -> None:
    identifier = UUID(int=tenant.id)
    began = moment_of(identifier)
    if Organization.objects.filter(id=identifier).exists():
        return
    if Organization.objects.filter(name=name).exists():
        name = f"{name} {identifier.hex[-6:]}"
    Organization.objects.create(id=identifier, name=name, plan_id=tenant.plan, created_at=began)
    for number, key in enumerate(keys, start=1):
        # Nobody has the secret of which this would be the digest.
        digest = hashlib.sha256(f"demo {key:x}".encode()).hexdigest()
        APIKey.objects.create(
            id=UUID(int=key),
            organization_id=identifier,
            name=f"demo {number}",
            prefix=f"llmc_demo{key % 4096:03x}",
            digest=digest,
            scopes=["chat", "read"],
            created_at=began,
            revoked_at=None,
        )


def _routes() -> dict[str, Route]:
    rows = {row.name: row for row in LanguageModel.objects.filter(name__in=_MODELS)}
    prices: dict[int, list[Price]] = {}
    for price in Price.objects.filter(model__in=rows.values()).order_by("effective_from"):
        prices.setdefault(price.model_id, []).append(price)
    routes = {}
    for name, (_, tokens_per_second, first_token_ms) in _MODELS.items():
        row = rows.get(name)
        provider, _, upstream_id = (row.provider, "", row.upstream_id) if row else name.partition("/")
        if not upstream_id:
            # A vendor's model that this installation's catalogue does not have.
            continue
        routes[name] = Route(
            name=name,
            provider=provider,
            upstream_id=upstream_id,
            prices=[_version(price) for price in prices.get(row.pk, ())] if row else (),
            reports_cost=provider == "openrouter",
            tokens_per_second=tokens_per_second,
            first_token_ms=first_token_ms,
        )
    return routes


def _version(price: Price) -> tuple[int, int, int, int, int]:
    cached = price.cached_input_per_million
    return (
        int(price.effective_from.timestamp() * 1000),
        int(price.input_per_million.scaleb(6)),
        int((price.input_per_million if cached is None else cached).scaleb(6)),
        int(price.output_per_million.scaleb(6)),
        price.id.int,
    )


def _names(random: Random, count: int) -> list[str]:
    names = [f"{first} {second}" for first in _FIRST for second in _SECOND]
    return random.sample(names, count)


def _id(random: Random, ms: int) -> int:
    """A UUIDv7 of the moment, as its integer."""
    return ms << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62)
