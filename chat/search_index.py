"""PostgreSQL's index of the record's words: a table beside the interactions, filled behind them, so that recording an
exchange does not pay for it.

An entry has the words of prompt and response without their places, and names that begin with `=`, which no word does:
organization, day, user, foreign request ids, metadata. By them the index narrows a search to days, the newest first, so
that neither a rare nor a common word makes it read far. Encrypted texts leave no words here; erased ones are taken out
by a trigger in the transaction that erases them.

    fill()      what has come, and ever again the whole record from the newest on, for what came late
    steps()     ids that fit, day by day
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from chat import encryption, search
from chat.models import Interaction, SearchState
from chat.selection import Selection, is_ours
from llmchat.lib.encryption import MARK
from llmchat.lib.uuid7 import floor_at

#: Interactions that are looked at together for what has no entry.
BATCH: Final = 2_000
#: How far back every round looks for what has no entry yet.
LATELY: Final = dt.timedelta(minutes=15)
#: Entries that are looked at one by one before the index is asked: more than enough for a page of a common word.
NEAR: Final = 2_000
#: Ids in one step.
MOST: Final = 200
#: Days that the index is asked about together, at most.
DAYS: Final = 64

_DAY: Final = 86_400_000
#: Characters of a metadata value that are compared; rows are asked for the whole of it.
_VALUE: Final = 400

_FILL: Final = f"""
INSERT INTO chat_searchentry (interaction_id, words)
SELECT id,
    strip(to_tsvector('simple',
        CASE WHEN left(prompt, {len(MARK)}) = '{MARK}' THEN '' ELSE left(prompt, {search.SEARCHED}) END || ' ' ||
        CASE WHEN left(response, {len(MARK)}) = '{MARK}' THEN '' ELSE left(response, {search.SEARCHED}) END))
    || array_to_tsvector(array_remove(ARRAY[
        '=o' || replace(organization_id::text, '-', ''),
        '=d' || ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / {_DAY},
        '=u' || user_id,
        CASE WHEN trace_id !~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-7' THEN '=t' || trace_id END,
        '=r' || request_id
    ]::text[] || ARRAY(
        SELECT unnest(ARRAY['=m' || key, '=m' || key || '=' || left(value, {_VALUE})])
        FROM jsonb_each_text(CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{{}}' END)
    ), NULL))
FROM chat_interaction
WHERE id >= %(since)s AND id < %(until)s AND erased_at IS NULL AND NOT EXISTS (
    SELECT FROM chat_searchentry
    WHERE interaction_id = id AND interaction_id >= %(since)s AND interaction_id < %(until)s
)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - our own numbers and mark
#: What an erasure at the very moment of filling leaves behind, and what went by another way than the ORM's.
_CLEAN: Final = """
DELETE FROM chat_searchentry
WHERE interaction_id >= %(since)s AND interaction_id < %(until)s AND NOT EXISTS (
    SELECT FROM chat_interaction
    WHERE id = interaction_id AND id >= %(since)s AND id < %(until)s AND erased_at IS NULL
)
"""
_MISSING: Final = f"""
SELECT id FROM chat_interaction
WHERE id >= %s AND erased_at IS NULL AND NOT EXISTS (
    SELECT FROM chat_searchentry WHERE interaction_id = id AND interaction_id >= %s
)
ORDER BY id DESC LIMIT {50 * BATCH}
"""  # noqa: S608 - our own number
_LAST: Final = UUID(int=(1 << 128) - 1)


def is_ready() -> bool:
    """Whether the index is there and has once been through the whole record."""
    return connection.vendor == "postgresql" and SearchState.objects.filter(is_whole=True).exists()


def serves(chosen: Selection) -> bool:
    """Whether something is asked for that the index finds and nothing else does."""
    user_of_any = bool(chosen.user) and chosen.organization is None
    return bool(chosen.q or user_of_any or chosen.metadata or (chosen.trace and not is_ours(chosen.trace)))


# --- Filling ----------------------------------------------------------------------------------------------------------
def fill(*, now: dt.datetime | None = None, seconds: float = float("inf")) -> int:
    """Makes entries of what has come lately, and looks further back from where the last round stopped: at one batch at
    least, and until everything has been looked at once, for `seconds`. Returns how many entries were made."""
    if connection.vendor != "postgresql":
        return 0
    until = time.monotonic() + seconds
    state, _ = SearchState.objects.get_or_create(pk=1)
    made = 0
    for first, last in _missing_since(floor_at((now or timezone.now()) - LATELY)):
        made += _fill_between(first, UUID(int=last.int + 1))
        if time.monotonic() >= until:
            break
    if made:
        _tidy()
    while True:
        state.reached, count = _fill_before(state.reached)
        made += count
        if state.reached is None and not state.is_whole:
            _tidy()
            state.is_whole = True
        state.save()
        if state.is_whole or time.monotonic() >= until:
            return made


def _missing_since(since: UUID) -> list[tuple[UUID, UUID]]:
    """The first and last ids of batches that have no entries, the newest first."""
    with transaction.atomic():
        ids = _column(_MISSING, [since, since], off=("nestloop",))
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    return [(batch[-1], batch[0]) for batch in batches]


def _fill_before(edge: UUID | None) -> tuple[UUID | None, int]:
    """The newest batch before `edge` (None: of all): its oldest id, None when there is nothing before it, and the
    number of entries made."""
    rows = Interaction.objects.order_by("-id")
    if edge is not None:
        rows = rows.filter(id__lt=edge)
    since = next(iter(rows.values_list("id", flat=True)[BATCH - 1 : BATCH]), None)
    return since, _fill_between(since or UUID(int=0), edge or _LAST)


def _fill_between(since: UUID, until: UUID) -> int:
    """Makes the entries that are missing, and takes out those that have no row; how many were made."""
    made = 0
    for statement in (_FILL, _CLEAN):
        with transaction.atomic(), connection.cursor() as cursor:
            # Where statistics are older than rows, the planner takes a batch for one row and compares each with all.
            cursor.execute("SET LOCAL enable_nestloop = off")
            cursor.execute(statement, {"since": since, "until": until})
            made += cursor.rowcount if statement is _FILL else 0
    return made


def _tidy() -> None:
    """Sorts in what was put in last: until the database does so by itself, every search reads it from end to end."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT gin_clean_pending_list(i.indexrelid) FROM pg_partition_tree('chat_searchentry') AS t "
            "JOIN pg_index AS i ON i.indrelid = t.relid JOIN pg_class AS c ON c.oid = i.indexrelid "
            "JOIN pg_am AS a ON a.oid = c.relam WHERE t.isleaf AND a.amname = 'gin'"
        )


# --- Asking -----------------------------------------------------------------------------------------------------------
def still_fits(chosen: Selection) -> Q:
    """What a row that the index has found must be asked all the same."""
    phrases = [term for term in search.terms(chosen.q) if term.is_phrase] if chosen.q else []
    if not phrases or encryption.is_on():
        return Q()
    # A phrase that is excluded excludes by its order too; alone, it would be no search.
    return search.with_words(phrases) | search.named(chosen.q)


def steps(chosen: Selection, *, position: UUID | None, is_rising: bool) -> Iterator[tuple[list[UUID], UUID | None]]:
    """Ids of rows that may fit, in order, and the last id that is then looked at; None when that is all of them. To be
    used within a transaction."""
    since, until = chosen.bounds()
    asked = _Question(*_query(chosen), is_rising=is_rising)
    lowest, highest = _end("id"), _end("-id")
    if lowest is None or highest is None:
        yield [], None
        return
    lowest = max(lowest, floor_at(since)) if since else lowest
    highest = min(highest, floor_at(until)) if until else highest
    edge = asked.near_edge(position)
    days = 0
    while True:
        found = asked.ids(position, edge, days=bool(days))
        is_full = len(found) == MOST
        position = found[-1] if is_full else edge
        is_last = position is None or (position > highest if is_rising else position <= lowest)
        yield found, None if is_last else position
        if is_last or position is None:
            return
        # Few were found: look at more days together.
        days = max(1, days) if len(found) > MOST // 8 else min(DAYS, max(4, days * 4))
        today = (position.int >> 80) // _DAY if is_rising else ((position.int >> 80) - 1) // _DAY
        edge = _midnight(today + days if is_rising else today - days + 1)


@dataclass(frozen=True, slots=True)
class _Question:
    sql: str
    parameters: list[str]
    is_rising: bool

    def near_edge(self, position: UUID | None) -> UUID | None:
        """The last of the `NEAR` entries next to `position`; None when there are fewer."""
        where, parameters = self._between(position, None)
        found = _column(
            f"SELECT interaction_id FROM chat_searchentry WHERE {where} "  # noqa: S608 - our own conditions
            f"ORDER BY interaction_id {self._order} LIMIT 1 OFFSET {NEAR - 1}",
            parameters,
        )
        return found[0] if found else None

    def ids(self, position: UUID | None, edge: UUID | None, *, days: bool) -> list[UUID]:
        """What fits between the two; `days`: by the index, else each entry is looked at."""
        where, parameters = self._between(position, edge)
        words, asked = self.sql, list(self.parameters)
        if days and position is not None and edge is not None:
            first, last = sorted(((position.int >> 80) // _DAY, (edge.int >> 80) // _DAY))
            words += " && %s::tsquery"
            asked.append(" | ".join(_quoted(f"=d{day}") for day in range(first, last + 1)))
        return _column(
            f"SELECT interaction_id FROM chat_searchentry WHERE {where} AND words @@ ({words}) "  # noqa: S608
            f"ORDER BY interaction_id {self._order} LIMIT {MOST}",
            [*parameters, *asked],
            # The planner does not know how words and days go together.
            off=("indexscan", "indexonlyscan", "seqscan") if days else ("bitmapscan", "seqscan"),
        )

    @property
    def _order(self) -> str:
        return "ASC" if self.is_rising else "DESC"

    def _between(self, position: UUID | None, edge: UUID | None) -> tuple[str, list[Any]]:
        beyond, up_to = (">", "<=") if self.is_rising else ("<", ">=")
        conditions, parameters = ["TRUE"], []
        for operator, bound in ((beyond, position), (up_to, edge)):
            if bound is not None:
                conditions.append(f"interaction_id {operator} %s")
                parameters.append(bound)
        return " AND ".join(conditions), parameters


def _query(chosen: Selection) -> tuple[str, list[str]]:
    """A tsquery of everything that the index knows of."""
    parts: list[str] = []
    parameters: list[str] = []
    if chosen.q:
        wanted = [] if encryption.is_on() else search.terms(chosen.q)
        # Of a phrase that is excluded, its words alone may well be there.
        wanted = [term for term in wanted if not (term.is_excluded and term.is_phrase)]
        named = " | ".join(_quoted(f"={kind}{chosen.q.strip()}"[:_VALUE]) for kind in "utr")
        words = " && ".join(f"{'!!' if term.is_excluded else ''}plainto_tsquery('simple', %s)" for term in wanted)
        parts.append(f"(({words}) || %s::tsquery)" if wanted else "%s::tsquery")
        parameters += [*(term.text for term in wanted), named]
    names = [f"=m{key}{is_pair}{value[:_VALUE]}" for key, is_pair, value in (m.partition("=") for m in chosen.metadata)]
    if chosen.user:
        names.append(f"=u{chosen.user}")
    if chosen.trace and not is_ours(chosen.trace):
        names.append(f"=t{chosen.trace}")
    if chosen.organization is not None:
        names.append(f"=o{chosen.organization.hex}")
    parts += ["%s::tsquery"] * len(names)
    parameters += [_quoted(name) for name in names]
    return " && ".join(parts), parameters


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"


def _end(order: str) -> UUID | None:
    return Interaction.objects.order_by(order).values_list("id", flat=True).first()


def _midnight(day: int) -> UUID:
    return floor_at(dt.datetime.fromtimestamp(max(0, day) * _DAY / 1000, tz=dt.UTC))


def _column(sql: str, parameters: list[Any], *, off: tuple[str, ...] = ()) -> list[UUID]:
    """The first column. `off`: ways of the planner that are not to be taken; in a transaction."""
    with connection.cursor() as cursor:
        if off:
            cursor.execute("; ".join(f"SET LOCAL enable_{way} = off" for way in off))
        cursor.execute(sql, parameters)
        found = [row[0] for row in cursor.fetchall()]
        if off:
            cursor.execute("; ".join(f"SET LOCAL enable_{way} TO DEFAULT" for way in off))
    return found
