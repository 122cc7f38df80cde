"""Do the books agree? Compares what the vendor's log, the clients and the database say of the same calls.

Prompts tie them together: each call's prompt is its own. The rows are read by SQL from outside, as an auditor would,
so that no code of the product stands between them and the judgement.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from llmchat.tests.calls import Call
from llmchat.tests.mock_upstream import UpstreamCall
from llmchat.tests.servers import LiveServer
from llmchat.tests.waiting import PATIENCE

#: Differences that a report spells out; the rest is only counted.
_SHOWN = 20
_POLL_SECONDS = 0.5

_INTERACTIONS = "SELECT id, prompt, status, response, usage_estimated, output_tokens FROM chat_interaction ORDER BY id"
_ATTEMPTS = "SELECT id, interaction_id, number, status, error_code FROM chat_attempt ORDER BY id"
_CLAIMS = "SELECT interaction_id, journal, awaited_at FROM chat_idempotencyclaim ORDER BY id"
_QUARANTINE = "SELECT reason FROM chat_quarantinedexchange ORDER BY id"


@dataclass(frozen=True, slots=True)
class InteractionRow:
    id: UUID
    prompt: str
    status: str
    response: str
    usage_estimated: bool
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    id: UUID
    interaction_id: UUID
    number: int
    status: str
    error_code: str

    @property
    def may_be_unsent(self) -> bool:
        """Whether the vendor need not know of it: the process died between intent and call, or found nobody."""
        return self.status == "interrupted" or (
            self.status == "failed" and self.error_code == "provider_connection_failed"
        )


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """`journal`: that of the process that answers. `is_awaited`: whether another one has said that it waits."""

    interaction_id: UUID
    journal: UUID
    is_awaited: bool


@dataclass(slots=True)
class Report:
    """Counts for people; `differences` is what must be empty.

    `unsent`: attempts of which the vendor never heard, for a good reason.
    """

    upstream_calls: int = 0
    attempts: int = 0
    interactions: dict[str, int] = field(default_factory=dict)
    client_calls: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    twice: int = 0
    unsent: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        calls = f"{self.missing} missing, {self.twice} twice, {self.unsent} never sent"
        lines = [
            f"upstream calls {self.upstream_calls}, attempts {self.attempts}: {calls}",
            f"interactions: {_listed(self.interactions)}; clients: {_listed(self.client_calls)}",
            *self.differences[:_SHOWN],
        ]
        if len(self.differences) > _SHOWN:
            lines.append(f"... and {len(self.differences) - _SHOWN} more differences")
        return "\n".join(lines)


def interactions(server: LiveServer) -> list[InteractionRow]:
    """All of them in the order of their ids."""
    return [
        InteractionRow(_uuid(id_), prompt, status, response, bool(estimated), tokens)
        for id_, prompt, status, response, estimated, tokens in _rows(server, _INTERACTIONS)
    ]


def attempts(server: LiveServer) -> list[AttemptRow]:
    """All of them in the order of their ids."""
    return [
        AttemptRow(_uuid(id_), _uuid(interaction), number, status, code)
        for id_, interaction, number, status, code in _rows(server, _ATTEMPTS)
    ]


def claims(server: LiveServer) -> list[ClaimRow]:
    """All of them, the oldest first."""
    return [
        ClaimRow(_uuid(id_), _uuid(journal), awaited_at is not None)
        for id_, journal, awaited_at in _rows(server, _CLAIMS)
    ]


def compare(
    upstream_calls: Sequence[UpstreamCall],
    client_calls: Iterable[Call],
    interaction_rows: Sequence[InteractionRow],
    attempt_rows: Sequence[AttemptRow],
) -> Report:
    """What the three say. Clients' calls need only be those of which the test knows; the other two are all there is."""
    client_calls = list(client_calls)
    report = Report(
        upstream_calls=len(upstream_calls),
        attempts=len(attempt_rows),
        interactions=dict(Counter(row.status for row in interaction_rows)),
        client_calls=dict(Counter(call.ending for call in client_calls)),
    )
    by_id = {row.id: row for row in interaction_rows}
    attempts_of: defaultdict[UUID, list[AttemptRow]] = defaultdict(list)
    for attempt in attempt_rows:
        attempts_of[attempt.interaction_id].append(attempt)
    for orphan in attempts_of.keys() - by_id.keys():
        report.differences.append(f"attempts of {orphan}, of which there is no interaction")
    _compare_calls(report, upstream_calls, interaction_rows, attempts_of)
    _check_interactions(report, interaction_rows, attempts_of, {call.prompt for call in client_calls if call.tries > 1})
    prompts = {row.prompt for row in interaction_rows}
    for call in client_calls:
        if call.ending == "done":
            _compare_answer(report, call, by_id)
        elif call.status == 200 and call.prompt not in prompts:
            report.differences.append(f"{_short(call.prompt)}: was told 200, is not on record")
    return report


def _compare_calls(
    report: Report,
    upstream_calls: Sequence[UpstreamCall],
    interaction_rows: Sequence[InteractionRow],
    attempts_of: dict[UUID, list[AttemptRow]],
) -> None:
    """Every upstream call is exactly one attempt."""
    heard = Counter(call.prompt for call in upstream_calls)
    told: defaultdict[str, list[AttemptRow]] = defaultdict(list)
    for row in interaction_rows:
        told[row.prompt] += attempts_of.get(row.id, [])
    for prompt in heard.keys() | told.keys():
        surplus = len(told[prompt]) - heard[prompt]
        if surplus < 0:
            report.missing -= surplus
            report.differences.append(f"{_short(prompt)}: {heard[prompt]} upstream calls, {len(told[prompt])} attempts")
        elif surplus > 0:
            unsent = min(surplus, sum(attempt.may_be_unsent for attempt in told[prompt]))
            report.unsent += unsent
            if surplus > unsent:
                report.twice += surplus - unsent
                statuses = _listed(Counter(attempt.status for attempt in told[prompt]))
                report.differences.append(f"{_short(prompt)}: {heard[prompt]} upstream calls, attempts: {statuses}")


def _check_interactions(
    report: Report,
    interaction_rows: Sequence[InteractionRow],
    attempts_of: dict[UUID, list[AttemptRow]],
    retried: set[str],
) -> None:
    """One interaction for a request, or one success at most for one that was sent again; none succeeded by nothing."""
    for prompt, count in Counter(row.prompt for row in interaction_rows).items():
        if count > 1 and prompt not in retried:
            report.differences.append(f"{_short(prompt)}: {count} interactions")
    for prompt, count in Counter(row.prompt for row in interaction_rows if row.status == "succeeded").items():
        if count > 1 and prompt in retried:
            report.differences.append(f"{_short(prompt)}: {count} successes of one idempotency key")
    for row in interaction_rows:
        mine = attempts_of.get(row.id, [])
        succeeded = sum(attempt.status == "succeeded" for attempt in mine)
        if row.status == "succeeded" and succeeded != 1:
            report.differences.append(f"{row.id} ({_short(row.prompt)}) succeeded by {succeeded} attempts")
        if [attempt.number for attempt in mine] != list(range(1, len(mine) + 1)):
            report.differences.append(f"{row.id} ({_short(row.prompt)}) has attempts out of order")


def _compare_answer(report: Report, call: Call, by_id: dict[UUID, InteractionRow]) -> None:
    """An answer that was given is an answer on record."""
    row = by_id.get(UUID(call.id))
    if row is None:
        report.differences.append(f"{_short(call.prompt)}: answered as {call.id}, which is not on record")
    elif row.status != "succeeded":
        report.differences.append(f"{_short(call.prompt)}: answered as {call.id}, on record as {row.status}")
    elif (row.prompt, row.response) != (call.prompt, call.text):
        report.differences.append(f"{_short(call.prompt)}: answered as {call.id}, whose texts are others")


def audit(server: LiveServer, *, upstream: Callable[[], Sequence[UpstreamCall]], clients: Iterable[Call]) -> Report:
    """The books as they are now. They can only agree while no call is under way."""
    report = compare(upstream(), clients, interactions(server), attempts(server))
    report.differences += [f"in quarantine: {reason}" for (reason,) in _rows(server, _QUARANTINE)]
    return report


def settled(
    server: LiveServer,
    *,
    upstream: Callable[[], Sequence[UpstreamCall]],
    clients: Iterable[Call],
    patience: float = PATIENCE,
) -> Report:
    """The books once they agree, or as they are when `patience`, in seconds, is at its end."""
    deadline = time.monotonic() + patience
    while (report := audit(server, upstream=upstream, clients=clients)).differences and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return report


def _rows(server: LiveServer, query: str) -> list[tuple[Any, ...]]:
    url = server.environment.get("DATABASE_URL")
    if url is None:
        with closing(sqlite3.connect(server.data / "llmchat.sqlite3", timeout=30)) as embedded:
            return embedded.execute(query).fetchall()
    if not urlsplit(url).scheme.startswith("postgres"):
        raise ValueError(f"no auditor for {url}")
    with psycopg.connect(url, connect_timeout=10) as connection:
        return connection.execute(query).fetchall()


def _uuid(value: str | UUID) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 40 else f"{prompt[:39]}…"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
