"""How long people wait who look at the record: what is asked for, by name, and the times of each."""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from bench.load import quantile
from bench.visitors import Visitor, Visitors

#: Seconds after which a page is not asked for again.
_AT_MOST = 30.0
_ROWS = 300
_LINK = re.compile(r'href="(/admin/(?:[a-z]+/[a-z]+|reports/[a-z]+|reports)/)"')
_WORD = re.compile(r"[A-Za-z]{4,}")
_INTERACTIONS = "/admin/chat/interaction/"
_FACETS = "/admin/facets/"
#: What the list says when PostgreSQL was told to stop.
_STOPPED = b"This was stopped after"


@dataclass(frozen=True, slots=True)
class Known:
    """Something of everything that can be asked for, taken from the record itself."""

    organization: UUID
    interaction: UUID
    other: UUID
    conversation: UUID | None
    middle: UUID
    user: str
    request: str
    model: str
    rare_model: str
    provider: str
    common: str
    rare: str
    phrase: str


def known(organization: UUID) -> Known:
    """Needs Django. Words are counted in some hundred prompts of the middle of the record."""
    from chat.models import Interaction
    from llmchat.lib.uuid7 import floor_at, moment_of

    rows = Interaction.objects.filter(organization_id=organization).order_by("-id")
    latest = rows.exclude(conversation=None).exclude(prompt="").first() or rows[0]
    other = rows.filter(id__lt=latest.pk).first() or latest
    oldest = Interaction.objects.order_by("id").values_list("id", flat=True)[0]
    middle = floor_at(moment_of(oldest) + (moment_of(latest.pk) - moment_of(oldest)) / 2)
    some = Interaction.objects.filter(id__lt=middle).order_by("-id")[:_ROWS]
    facts = list(some.values_list("prompt", "response", "model", "provider"))
    texts = [text for prompt, response, *_ in facts for text in (prompt, response)]
    words = Counter(word.lower() for text in texts for word in set(_WORD.findall(text)))
    models = Counter(model for *_, model, _ in facts if model)
    spoken = max((text.split()[:12] for text in texts), key=len)
    return Known(
        organization=organization,
        interaction=latest.pk,
        other=other.pk,
        conversation=latest.conversation_id,
        middle=middle,
        user=latest.user_id,
        request=latest.request_id or latest.trace_id,
        model=models.most_common(1)[0][0],
        rare_model=min(models, key=lambda name: (models[name], name)),
        provider=Counter(provider for *_, provider in facts if provider).most_common(1)[0][0],
        common=words.most_common(1)[0][0],
        rare=max((word for word, count in words.items() if count == 1), key=len, default="nowhere"),
        phrase=" ".join(spoken[2:5]),
    )


def of_operator(what: Known, links: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and paths; `links` are the pages that the side bar leads to."""
    yield from ((f"page {link.removeprefix('/admin/').strip('/')}", link) for link in links)
    yield from _dashboards(what)
    yield from _lists(what)
    for name, query in _searches(what).items():
        yield f"search: {name}", _asked(_INTERACTIONS, q=query)
    yield from _reports(links)


def of_owner(what: Known, links: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What somebody sees who belongs to one organization."""
    for period in ("day", "month", "year"):
        yield f"owner: dashboard, {period}", _asked("/admin/", period=period)
    yield "owner: interactions", _INTERACTIONS
    yield "owner: interactions that failed", _asked(_INTERACTIONS, status="failed")
    yield "owner: search: a common word", _asked(_INTERACTIONS, q=what.common)
    yield "owner: search: a rare word", _asked(_INTERACTIONS, q=what.rare)
    yield from ((f"owner: {name}", path) for name, path in _reports(links))


def of_caller(what: Known) -> Iterator[tuple[str, str]]:
    """The API, with an organization's key."""
    today = datetime.now(UTC).date()
    for name, days in (("a day", 1), ("a month", 30), ("a year", 365)):
        span = {"start_date": today - timedelta(days=days - 1), "end_date": today}
        yield f"API: usage of {name}", _asked("/v1/usage", **span)
        for group in ("model", "user", "key"):
            yield f"API: usage of {name} by {group}", _asked("/v1/usage", **span, group_by=group)
    month = {"start_date": today - timedelta(days=29), "end_date": today}
    yield "API: usage of a month by model and day", _asked("/v1/usage", **month, group_by="model", interval="day")
    yield "API: statistics", "/v1/stats"
    yield "API: interactions", "/v1/interactions"
    yield "API: interactions of a user", _asked("/v1/interactions", userId=what.user)
    yield "API: interactions that failed", _asked("/v1/interactions", status="failed")
    yield "API: an interaction", f"/v1/interactions/{what.interaction}"
    yield "API: conversations", "/v1/conversations"


def _dashboards(what: Known) -> Iterator[tuple[str, str]]:
    for period in ("hour", "day", "week", "month", "quarter", "year"):
        yield f"dashboard, {period}", _asked("/admin/", period=period)
        yield f"dashboard refreshed, {period}", _asked("/admin/figures/", period=period)
    for period in ("day", "year"):
        yield f"dashboard of a model, {period}", _asked("/admin/", period=period, model=what.model)
        yield (
            f"dashboard of an organization, {period}",
            _asked("/admin/", period=period, organization=what.organization),
        )


def _lists(what: Known) -> Iterator[tuple[str, str]]:
    yield "interactions, a page in the middle", _asked(_INTERACTIONS, before=what.middle)
    yield "interactions, the oldest page", _asked(_INTERACTIONS, after=UUID(int=0))
    yield "an interaction", f"{_INTERACTIONS}{what.interaction}/change/"
    yield "two interactions compared", f"{_INTERACTIONS}compare/?of={what.interaction}&of={what.other}"
    if what.conversation is not None:
        yield "a conversation", f"/admin/chat/conversation/{what.conversation}/change/"
        yield "interactions of a conversation", _asked(_INTERACTIONS, conversation=what.conversation)
    filters: Mapping[str, Any] = {
        "status": "failed",
        "error": "rate_limited",
        "model": what.model,
        "asked": what.model,
        "provider": what.provider,
        "route": "-",
        "plan": "free",
        "endpoint": "chat",
        "streamed": "yes",
        "cached": "yes",
        "fallback": "yes",
        "retried": "yes",
        "price": "unpriced",
        "organization": what.organization,
        "user": what.user,
        "period": "month",
        "metadata": "app",
    }
    for name, value in filters.items():
        yield f"interactions by {name}", _asked(_INTERACTIONS, **{name: value})
    for name in ("status", "model", "organization", "user", "metadata"):
        yield f"numbers beside interactions by {name}", _asked(_FACETS, **{name: filters[name]})
    yield "numbers beside all interactions", _FACETS
    yield "numbers beside a search", _asked(_FACETS, q=what.common)
    yield "interactions by a rare model", _asked(_INTERACTIONS, model=what.rare_model)
    yield "interactions by what nothing fits", _asked(_INTERACTIONS, model="no-such-model")
    yield (
        "interactions by organization and status",
        _asked(_INTERACTIONS, organization=what.organization, status="failed"),
    )


def _searches(what: Known) -> dict[str, Any]:
    return {
        "a common word": what.common,
        "a rare word": what.rare,
        "a word that is not there": "xylophagous",
        "a phrase": f'"{what.phrase}"',
        "a user": what.user,
        "a request id": what.request,
        "an id": what.interaction,
        "an id that is not there": "01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b10",
    }


def _reports(links: Sequence[str]) -> Iterator[tuple[str, str]]:
    for link in links:
        if link.startswith("/admin/reports/") and link != "/admin/reports/":
            name = link.removeprefix("/admin/reports/").strip("/")
            for span in ("last-7-days", "last-30-days", "last-12-months"):
                yield f"report {name}, {span}", _asked(link, range=span)
    yield "report usage by user, last-30-days", _asked("/admin/reports/usage/", group_by="user")
    yield (
        "report usage by day, last-90-days",
        _asked("/admin/reports/usage/", range="last-90-days", group_by="model", interval="day"),
    )


def _asked(path: str, **query: Any) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def links_of(visitor: Visitor) -> list[str]:
    """The pages that the admin leads this person to."""
    return sorted(set(_LINK.findall(visitor.get("/admin/").body.decode())))


def measure(visitors: Visitors, *, rounds: int, only: str = "") -> dict[str, Any]:
    """Every page, `rounds` times in a row after a first time that is told apart; `only`: whose names have this."""
    what = known(visitors.organization.pk)
    asked: list[tuple[Visitor, str, str]] = []
    operator, owner = visitors.operator, visitors.owner
    asked += [(operator, *each) for each in of_operator(what, links_of(operator))]
    asked += [(owner, *each) for each in of_owner(what, links_of(owner))]
    asked += [(visitors.caller, *each) for each in of_caller(what)]
    found = {}
    for visitor, name, path in asked:
        if only in name:
            found[name] = timed(visitor, path, rounds=rounds)
            line = found[name]
            print(f"{line.get('p50_ms', '-'):>9} {line.get('p95_ms', '-'):>9}  {name}", file=sys.stderr, flush=True)
    return found


def timed(visitor: Visitor, path: str, *, rounds: int) -> dict[str, Any]:
    """`first_ms`: with whatever the server and its database had forgotten of it; then p50, p95 and how often. `fault`:
    what is wrong with an answer."""
    told: dict[str, Any] = {"path": path}
    times: list[float] = []
    began = time.monotonic()
    for number in range(rounds + 1):
        try:
            seen = visitor.get(path)
        except (OSError, HTTPException) as problem:
            return told | {"fault": f"not answered ({type(problem).__name__})"}
        if seen.status != 200:
            return told | {"fault": f"status {seen.status}"}
        if _STOPPED in seen.body:
            return told | {"fault": "stopped by its time limit"}
        if number:
            times.append(seen.seconds * 1000)
        else:
            told |= {"first_ms": round(seen.seconds * 1000, 1), "bytes": len(seen.body)}
        if time.monotonic() - began > _AT_MOST and times:
            break
    return told | {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(quantile(times, 0.95) or 0.0, 1),
        "times": len(times),
    }
