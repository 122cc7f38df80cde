"""What was used at an unknown price, as the roll-ups have it: by whom it was answered, since when, and how much of it.

Also works on runs that price it later (`chat.repricing`), which must know what time there is to look at. Its costs do
not grow with the record.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.db.models import F, Max, Min, Q
from django.utils import timezone

from analytics import reading, rolling
from analytics.models import Cell, Cube, Grain
from analytics.periods import Range, joined, period, start_of
from analytics.questions import Question
from chat import repricing
from chat.models import Change, Repricing
from providers.models import LanguageModel

#: Cells of which any moment has one: days once they are closed, until then hours and minutes.
_FINEST: Final = (Grain.MINUTE, Grain.HOUR, Grain.DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """Interactions that a model answered and that used tokens at an unknown price. `since` and `until`: the first day
    (UTC) with such, and the end of the last. `catalogued`: its row, None for a model that the catalogue does not know.
    """

    provider: str
    model: str
    interactions: int
    since: dt.datetime
    until: dt.datetime
    catalogued: LanguageModel | None


def unpriced() -> list[Unpriced]:
    """All of it, the most used model first."""
    now = timezone.now()
    spans = _spans_by_model()
    if not spans:
        return []
    first = min(since for since, _ in spans.values())
    question = Question(
        organization_id=None, since=first, until=now + dt.timedelta(minutes=1), by=("provider", "model"), times=False
    )
    found = reading.answer(question)[0]
    models = _catalogued(spans)
    lines = []
    for (_, provider, model), totals in found.groups.items():
        if totals.unpriced and (span := spans.get((provider, model))):
            since, last = span
            lines.append(
                Unpriced(
                    provider=provider,
                    model=model,
                    interactions=totals.unpriced,
                    since=start_of(Grain.DAY, since),
                    until=period(Grain.DAY, last)[1],
                    catalogued=models.get((provider, model)),
                )
            )
    return sorted(lines, key=lambda line: (-line.interactions, line.provider, line.model))


def spans_of(model: LanguageModel, *, until: dt.datetime) -> list[Range]:
    """The days in which something of this model may lack a price: by the roll-ups, and those that are not in them yet.

    An interaction counts as unpriced with its last attempt; others may lack a price where there was a second one.
    """
    cells = Cell.objects.filter(cube=Cube.OVERVIEW, organization_id=None, grain__in=_FINEST, start__lt=until)
    own = Q(unpriced__gt=0, dimensions__provider=model.provider)
    of_others = Q(requests__gt=F("priced")) & (Q(retries__gt=0) | Q(fallbacks__gt=0))
    starts = [
        *cells.filter(own | of_others).order_by().values_list("start", flat=True).distinct(),
        *Change.objects.filter(minute__lt=until).order_by().values_list("minute", flat=True).distinct(),
        start_of(Grain.MINUTE, timezone.now()),
    ]
    sealed = rolling.sealed_until()
    days = sorted({start_of(Grain.DAY, start) for start in starts})
    # What is sealed could be priced, but not added up again: books and sums would part.
    return joined(period(Grain.DAY, day) for day in days if sealed is None or day >= sealed)


def work(run: Repricing, *, seconds: float = float("inf")) -> Repricing:
    """Goes on with a run for about `seconds` at most; returns it as it is then."""
    return repricing.advance(run, spans=spans_of(run.model, until=run.until), seconds=seconds)


def work_all(*, seconds: float = float("inf")) -> None:
    """Goes on with all runs that there are."""
    deadline = time.monotonic() + seconds
    for run in repricing.under_way():
        left = deadline - time.monotonic()
        if left <= 0:
            return
        work(run, seconds=left)


def _spans_by_model() -> dict[tuple[str, str], Range]:
    cells = Cell.objects.filter(cube=Cube.OVERVIEW, organization_id=None, grain__in=_FINEST, unpriced__gt=0)
    found = cells.order_by().values_list("dimensions__provider", "dimensions__model")
    return {
        (provider, model): (first, last)
        for provider, model, first, last in found.annotate(first=Min("start"), last=Max("start"))
    }


def _catalogued(routes: Iterable[tuple[str, str]]) -> dict[tuple[str, str], LanguageModel]:
    """The rows of these models, which the record names as they were called when they answered."""
    wanted = set(routes)
    rows = LanguageModel.objects.filter(provider__in={provider for provider, _ in wanted})
    found: dict[tuple[str, str], LanguageModel] = {}
    for row in rows:
        for name in (row.name, f"{row.provider}/{row.upstream_id}"):
            if (row.provider, name) in wanted:
                found.setdefault((row.provider, name), row)
    return found
