"""Proves the record: reads all of it in order of id and says which rows contradict which invariant.

Reads only, in batches, so that neither a large record nor a server at work is in its way. Needs no text in clear.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Exists, Model, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Left
from django.utils.module_loading import import_string

from accounts.models import Organization
from chat import invariants, journal, recovery
from chat.invariants import Exchange, Finding, Rule
from chat.models import Attempt, Interaction, QuarantinedExchange, Status
from llmchat.lib.uuid7 import floor_at
from providers.models import Price

#: Interactions in memory at once, each with its attempts.
BATCH: Final = 1000

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that contradicts an invariant. `row`: its id, of a journal its directory's name; else what names it."""

    invariant: str
    row: UUID | str
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """More rows have been looked at. `subject`: what they are, in the plural."""

    subject: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which rows to look at, by the moment of their ids: from `since` and before `until`; None is without bound."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def of(self, column: str) -> Q:
        """The rows whose UUIDv7 in `column` is within."""
        within = Q()
        if self.since is not None:
            within &= Q(**{f"{column}__gte": floor_at(self.since)})
        if self.until is not None:
            within &= Q(**{f"{column}__lt": floor_at(self.until)})
        return within


@dataclass(frozen=True, slots=True)
class Invariant:
    """`rule` looks at one exchange after the other; `search` finds by itself what contradicts, and tells how far it has
    come where the subject is its own."""

    name: str
    says: str
    subject: str
    rule: Rule | None = None
    search: Callable[[Window], Iterator[Finding | Checked]] | None = None


def invariants_on_record() -> Sequence[Invariant]:
    """All that data can show, of all apps: those that the setting RECORD_INVARIANTS names."""
    return [invariant for name in settings.RECORD_INVARIANTS for invariant in import_string(name)]


def verify(window: Window) -> Iterator[Breach | Checked]:
    """Looks at everything within the window: breaches as they are found, and how far it has come.

    Raises Django's database errors, and OSError when the journals' directory cannot be read.
    """
    known = invariants_on_record()
    rules = [(invariant.name, invariant.rule) for invariant in known if invariant.rule is not None]
    for batch in _exchanges(window):
        for name, rule in rules:
            for exchange in batch:
                yield from (Breach(name, row, what) for row, what in rule(exchange))
        yield Checked("interactions", len(batch))
    yield Checked("attempts", Attempt.objects.filter(window.of("interaction_id")).count())
    yield Checked("quarantine", QuarantinedExchange.objects.filter(window.of("id")).count())
    yield Checked("journals", len(_journals()))
    for invariant in known:
        if invariant.search is not None:
            for found in invariant.search(window):
                yield found if isinstance(found, Checked) else Breach(invariant.name, *found)


# --- What is read ----------------------------------------------------------------------------------------------------

_INTERACTION: Final = (
    "organization_id",
    "user_id",
    "created_at",
    "finished_at",
    "status",
    "error_code",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "usage_estimated",
    "cost",
    "retries",
    "fallback",
    "cached",
    "conversation__organization_id",
    "conversation__user_id",
    "conversation__updated_at",
)


#: SQLite has no decimals: it keeps floats, of which Django reads so many digits. A cost of $1,000 loses its last place.
_SQLITE_DIGITS: Final = 15


def _exchanges(window: Window) -> Iterator[list[Exchange]]:
    rows = Interaction.objects.filter(window.of("id")).select_related("conversation").only(*_INTERACTION).order_by("id")
    # An attempt is stored in one transaction with its interaction: who sees the one sees the other.
    successors = Price.objects.filter(
        model=OuterRef("price__model"),
        effective_from__gt=OuterRef("price__effective_from"),
        effective_from__lte=OuterRef("started_at"),
    ).order_by("created_at")
    for batch in _in_batches(rows):
        attempts: defaultdict[UUID, list[Attempt]] = defaultdict(list)
        superseded: dict[UUID, dt.datetime] = {}
        for attempt in (
            Attempt.objects.filter(interaction_id__gte=batch[0].id, interaction_id__lte=batch[-1].id)
            .select_related("price__model")
            .defer("error_message")
            .annotate(newer_since=Subquery(successors.values("created_at")[:1]))
            .order_by("interaction_id", "number")
        ):
            attempts[attempt.interaction_id].append(attempt)
            if attempt.newer_since is not None:
                superseded[attempt.id] = attempt.newer_since
        digits = _SQLITE_DIGITS if connection.vendor == "sqlite" else None
        yield [
            Exchange(interaction=row, attempts=attempts[row.id], superseded=superseded, digits=digits) for row in batch
        ]


def _in_batches(rows: QuerySet[Interaction]) -> Iterator[list[Interaction]]:
    batch = list(rows[:BATCH])
    while batch:
        yield batch
        batch = list(rows.filter(id__gt=batch[-1].id)[:BATCH])


# --- What is searched for --------------------------------------------------------------------------------------------

#: How columns hold that there is no text, encrypted or not.
_EMPTY: Final = ("", "[]", "{}")
_STORED: Final = "stored_"
_START: Final = "start_"


def _orphans(window: Window) -> Iterator[Finding]:
    parents = Interaction.objects.filter(id=OuterRef("interaction_id"))
    rows = Attempt.objects.filter(window.of("interaction_id"), ~Exists(parents)).order_by("id")
    for identifier, interaction in rows.values_list("id", "interaction_id").iterator():
        yield identifier, f"its interaction {interaction} is not on record"


def _without_organization(window: Window) -> Iterator[Finding]:
    owners = Organization.objects.filter(id=OuterRef("organization_id"))
    rows = Interaction.objects.filter(window.of("id"), ~Exists(owners)).order_by("id")
    for identifier, organization in rows.values_list("id", "organization_id").iterator():
        yield identifier, f"its organization {organization} does not exist"


def _lost_answers(window: Window) -> Iterator[Finding]:
    """Successes with no answer, although pieces of one came. Only where nobody can have wanted them not to be kept: an
    organization with a switch of its own may have had it off at the time."""
    if not settings.LOG_RESPONSES:
        return
    rows = Interaction.objects.filter(
        window.of("id"),
        status=Status.SUCCEEDED,
        erased_at=None,
        organization__log_responses=None,
        time_to_first_token_ms__isnull=False,
        response="",
        reasoning="",
    )
    unanswered = _stored(rows, ("tool_calls",)).filter(**{f"{_STORED}tool_calls": "[]"}).order_by("id")
    for identifier in unanswered.values_list("id", flat=True).iterator():
        yield identifier, "it succeeded and its first token came, but no answer is kept"


def _unerased(window: Window) -> Iterator[Finding]:
    rows = Interaction.objects.filter(window.of("id"), erased_at__isnull=False)
    yield from _with_texts(rows, Interaction.TEXTS)
    of_attempts = Attempt.objects.filter(window.of("interaction_id"), interaction__erased_at__isnull=False)
    yield from _with_texts(of_attempts, ("error_message",))


def _quarantined(window: Window) -> Iterator[Finding]:
    rows = QuarantinedExchange.objects.filter(window.of("id")).order_by("id")
    for identifier, moment in rows.values_list("id", "created_at").iterator():
        yield identifier, f"the database refused it at {moment.isoformat()}; the admin says why"


def _left_journals(_: Window) -> Iterator[Finding]:
    for path in _journals():
        # A process that ends, or is replayed, takes its files along while we look.
        with suppress(FileNotFoundError):
            for complaint in _left_in(path):
                yield UUID(path.name), complaint


def _left_in(path: Path) -> Iterator[str]:
    segments = journal.segments(path)
    if segments and not journal.is_owned(path):
        size = sum(segment.stat().st_size for segment in segments)
        yield f"{size} bytes of a dead process are in {path}; manage.py replay_journal stores them"
    for segment in sorted(path.glob(f"*{recovery.DAMAGED}")):
        yield f"{segment} is damaged; what could be read of it was replayed"


def _with_texts(rows: QuerySet[Row], columns: tuple[str, ...]) -> Iterator[Finding]:
    is_empty = Q()
    for column in columns:
        is_empty &= Q(**{f"{_STORED}{column}__in": _EMPTY})
    # Two characters tell an empty value from a text; the text itself stays where it is.
    starts = {f"{_START}{column}": Left(f"{_STORED}{column}", 3) for column in columns}
    found = _stored(rows, columns).filter(~is_empty).annotate(**starts).order_by("pk")
    for row in found.values("pk", *starts).iterator():
        kept = [column for column in columns if row[f"{_START}{column}"] not in _EMPTY]
        yield row["pk"], f"it is erased, but holds {', '.join(kept)}"


def _stored(rows: QuerySet[Row], columns: tuple[str, ...]) -> QuerySet[Row]:
    """The rows with the columns as they are stored, plain or encrypted."""
    stored: QuerySet[Row] = rows.annotate(**{f"{_STORED}{column}": Cast(column, TextField()) for column in columns})
    return stored


def _journals() -> list[Path]:
    try:
        entries = sorted(entry for entry in settings.JOURNAL_DIR.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    return [entry for entry in entries if recovery.is_journal(entry)]


#: All that the rows of this app can show, in the order of the report.
INVARIANTS: Final = (
    Invariant("ids", "ids are UUIDv7 of their row's moment", "interactions", invariants.ids),
    Invariant("orphans", "every attempt has its interaction", "attempts", search=_orphans),
    Invariant("tenants", "every interaction has its organization", "interactions", search=_without_organization),
    Invariant("numbers", "attempts are numbered from 1 without gaps", "interactions", invariants.numbers),
    Invariant("endings", "status, finish reason, error and last attempt agree", "interactions", invariants.endings),
    Invariant("answers", "a success keeps the answer that came", "interactions", search=_lost_answers),
    Invariant("times", "what ended has an end, after its beginning", "interactions", invariants.times),
    Invariant("tokens", "tokens are those of the last attempt", "interactions", invariants.tokens),
    Invariant("totals", "cost is the sum of the attempts' costs, or unknown", "interactions", invariants.totals),
    Invariant("costs", "an attempt's cost is tokens × price, or reported", "attempts", invariants.costs),
    Invariant("prices", "a price is the model's and was in force", "attempts", invariants.prices),
    Invariant("routes", "retries and fallback are what the attempts show", "interactions", invariants.routes),
    Invariant("conversations", "a conversation and its interactions agree", "interactions", invariants.conversations),
    Invariant("erasure", "what is erased holds no texts", "interactions", search=_unerased),
    Invariant("quarantine", "the quarantine is empty", "quarantine", search=_quarantined),
    Invariant("journals", "journals of dead processes are empty and whole", "journals", search=_left_journals),
)
