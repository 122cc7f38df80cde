"""Folds the events of one exchange into facts, and makes them durable.

The recorder knows nothing of HTTP and of who is waiting. It is told what happened, in order; `commit` returns when the
rows are on disk. What is not known stays None.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, assert_never
from uuid import UUID

from chat import durability, inserts, metrics, rows
from chat.calls import Call
from chat.conversations import Thread
from chat.journal import JournalFull
from chat.models import Attempt, Interaction, Status
from chat.privacy import as_kept, without_secrets
from chat.rows import ExchangeRows
from llmchat.lib.envelope import APIError
from llmchat.lib.uuid7 import moment_of, uuid7
from providers.catalogue import ResolvedModel, Snapshot
from providers.failover import AttemptEnded, AttemptStarted, Candidate, Restarted, Step, Together
from providers.pricing import cost_of
from providers.values import Finished, Piece, ReasoningDelta, TextDelta, ToolCallDelta, Usage

logger = logging.getLogger(__name__)

#: Bytes of text a token, for usage that no provider has told; such usage is marked as estimated.
_BYTES_PER_TOKEN = 4
#: Characters of a finish reason that are looked at.
_LONGEST_WORD = 256


@dataclass(slots=True)
class _AttemptFacts:
    """One upstream call as it goes on."""

    number: int
    candidate: Candidate
    row: Attempt
    began: float


class Recorder:
    """The facts of one exchange. Made when the request is accepted; `interaction` is whole after `end`."""

    def __init__(
        self,
        call: Call,
        *,
        identifier: UUID,
        snapshot: Snapshot,
        resolved: ResolvedModel,
        thread: Thread | None,
        history_messages: int,
    ) -> None:
        self.began = time.perf_counter()
        self.call = call
        self.snapshot = snapshot
        self.thread = thread
        self.attempts: list[_AttemptFacts] = []
        # Bytes in UTF-8: a string for each piece is ten times as large as its letters.
        self._text = bytearray()
        self._reasoning = bytearray()
        self.logprobs: list[Any] = []
        self.tool_calls: dict[int, dict[str, Any]] = {}
        self.finished: Finished | None = None
        self._kept: ExchangeRows | None = None
        principal = call.principal
        #: What is known of the interaction at its beginning, by the names of columns; kept until it is in the journal.
        self._known: dict[str, Any] = {
            "id": identifier,
            "organization_id": principal.organization_id,
            "api_key_id": principal.api_key_id,
            "conversation_id": thread.conversation.id if thread else None,
            "user_id": call.user_id,
            "plan": principal.plan.slug,
            "endpoint": call.endpoint,
            "streamed": call.stream,
            "trace_id": call.trace_id,
            "request_id": call.request_id,
            "created_at": moment_of(identifier),
            "model_requested": call.model,
            "model": resolved.name,
            "provider": resolved.provider,
            "route_reason": resolved.reason,
            "prompt": call.prompt,
            "system_prompt": call.system_prompt,
            "messages": [] if call.is_plain else [_as_json(message) for message in call.messages],
            "history_messages": history_messages,
            "parameters": dict(call.parameters),
            "metadata": dict(call.metadata),
        }
        self.interaction = inserts.new(Interaction, self._known)

    @property
    def response(self) -> str:
        return self._text.decode(errors="surrogatepass")

    @property
    def reasoning(self) -> str:
        return self._reasoning.decode(errors="surrogatepass")

    def fold(self, step: Step) -> None:
        """Takes note of what happened next."""
        match step:
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._fold_pieces((step,))
            case Together(pieces=pieces):
                self._fold_pieces(pieces)
            case AttemptStarted(number=number, candidate=candidate):
                self._begin_attempt(number, candidate)
            case AttemptEnded():
                self._end_attempt(step)
            case Restarted():
                self._drop_answer()
            case Finished():
                self.finished = step
            case _:
                assert_never(step)

    def _fold_pieces(self, pieces: Iterable[Piece]) -> None:
        self._mark_first_token()
        for piece in pieces:
            if isinstance(piece, TextDelta):
                self._text += piece.text.encode("utf-8", "surrogatepass")
                if piece.logprobs is not None:
                    self.logprobs.append(piece.logprobs)
            elif isinstance(piece, ReasoningDelta):
                self._reasoning += piece.text.encode("utf-8", "surrogatepass")
            else:
                self._fold_tool_call(piece)

    def _begin_attempt(self, number: int, candidate: Candidate) -> None:
        identifier = uuid7()
        known = {
            "id": identifier,
            "interaction_id": self.interaction.id,
            "number": number,
            "provider": candidate.provider,
            "model": candidate.model,
            "started_at": moment_of(identifier),
            "status": Status.INTERRUPTED,
        }
        row = inserts.new(Attempt, known)
        self.attempts.append(_AttemptFacts(number=number, candidate=candidate, row=row, began=time.perf_counter()))
        self._write_intent(known)

    def _write_intent(self, attempt: dict[str, Any]) -> None:
        """Puts on disk what is about to be done, before its first byte goes out."""
        journal, kept = durability.committer().journal, self._rows()
        if len(self.attempts) == 1:
            # Of rows that are kept as they are, what we have just put into them: the rest are their columns' defaults.
            is_plain = kept.interaction is self.interaction and kept.new_conversation is None
            facts = {"interaction": self._known, "attempts": [attempt]} if is_plain else rows.as_facts(kept)
            journal.begin(self.interaction.id, facts)
            self._known = {}
            return
        try:
            journal.attempt(self.interaction.id, rows.as_facts(kept))
        except JournalFull:
            # Who was let in may finish; only a crash would now miss this attempt.
            logger.exception("Attempt %d of %s is not in the journal.", len(self.attempts), self.interaction.id)

    def _end_attempt(self, step: AttemptEnded) -> None:
        facts = self.attempts[-1]
        row = facts.row
        row.latency_ms = _ms_since(facts.began)
        if step.error is not None:
            row.status = Status.FAILED
            row.error_code = step.error.code
            row.error_message = without_secrets(step.error.message)
            row.upstream_status = step.error.upstream_status
            row.upstream_request_id = without_secrets(step.error.upstream_request_id or "")[:200]
        elif step.finished is not None:
            row.status = Status.SUCCEEDED
            row.finish_reason = step.finished.reason.value
            row.raw_finish_reason = _word((step.finished.raw_reason or "")[:_LONGEST_WORD])
            row.upstream_request_id = without_secrets(step.finished.response_id or "")[:200]
            row.malformed_chunks = step.finished.malformed_chunks
            self._price(facts, step.finished.usage, step.finished.cost_usd)
        else:
            self._cancel_attempt(facts)

    def _cancel_attempt(self, facts: _AttemptFacts) -> None:
        facts.row.status = Status.CANCELLED
        facts.row.latency_ms = _ms_since(facts.began)
        if self._text or self._reasoning or self.tool_calls:
            self._price(facts, None, None)

    def _price(self, facts: _AttemptFacts, usage: Usage | None, reported: Decimal | None) -> None:
        """Puts tokens and cost on the attempt. A provider's own figure beats ours; no known price leaves NULL."""
        row = facts.row
        row.usage_estimated = usage is None
        usage = usage or self._estimate(facts)
        row.input_tokens = usage.input_tokens
        row.output_tokens = usage.output_tokens
        row.cached_input_tokens = usage.cached_input_tokens
        row.cache_write_tokens = usage.cache_write_tokens
        row.reasoning_tokens = usage.reasoning_tokens
        price = self.snapshot.price_for(facts.candidate.provider, facts.candidate.model, row.started_at)
        if reported is not None:
            row.cost, row.cost_reported = reported, True
        elif price is not None:
            row.cost, row.price_id = cost_of(usage, price), price.id

    def _estimate(self, facts: _AttemptFacts) -> Usage:
        """By the bytes of what went and came; what came so far is the running attempt's alone."""
        sent = sum(len(message.text.encode()) for message in facts.candidate.request.messages)
        called = "".join(call["function"]["arguments"] for call in self.tool_calls.values())
        received = len(self._text) + len(self._reasoning) + len(called.encode())
        return Usage(input_tokens=-(-sent // _BYTES_PER_TOKEN), output_tokens=-(-received // _BYTES_PER_TOKEN))

    def _mark_first_token(self) -> None:
        if self.interaction.time_to_first_token_ms is None:
            self.interaction.time_to_first_token_ms = _ms_since(self.began)
        facts = self.attempts[-1]
        if facts.row.time_to_first_token_ms is None:
            facts.row.time_to_first_token_ms = _ms_since(facts.began)

    def _fold_tool_call(self, piece: ToolCallDelta) -> None:
        call = self.tool_calls.setdefault(
            piece.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = piece.id or call["id"]
        call["function"]["name"] = piece.name or call["function"]["name"]
        call["function"]["arguments"] += piece.arguments
        call.update(piece.extra)

    def _drop_answer(self) -> None:
        """The answer begins again on another attempt: what came so far was never shown."""
        self._text.clear()
        self._reasoning.clear()
        self.logprobs.clear()
        self.tool_calls.clear()
        self.interaction.time_to_first_token_ms = None

    def end(self, status: Status, problem: APIError | None = None) -> Interaction:
        """Closes the books on the exchange and returns its row, not yet stored."""
        for facts in self.attempts:
            if facts.row.status == Status.INTERRUPTED:
                self._cancel_attempt(facts)
        row = self.interaction
        row.status = status
        # A clock that steps back never makes an end earlier than its beginning.
        row.finished_at = max(dt.datetime.now(dt.UTC), row.created_at)
        row.latency_ms = _ms_since(self.began)
        row.response = _storable(self.response)
        row.reasoning = _storable(self.reasoning)
        row.tool_calls = [self.tool_calls[index] for index in sorted(self.tool_calls)]
        if problem is not None:
            row.error_type, row.error_code, row.error_message = problem.type, problem.code, problem.message
        if self.finished is not None and status == Status.SUCCEEDED:
            row.finish_reason = self.finished.reason.value
        self._sum_up(row)
        return row

    def _sum_up(self, row: Interaction) -> None:
        """What the interaction knows from its attempts: tokens and model of the answer, cost and counts of all."""
        if not self.attempts:
            return
        last = self.attempts[-1]
        row.provider = last.candidate.provider
        row.model = self.snapshot.name_of(last.candidate.provider, last.candidate.model)
        row.provider_latency_ms = last.row.latency_ms
        row.input_tokens = last.row.input_tokens
        row.output_tokens = last.row.output_tokens
        row.cached_input_tokens = last.row.cached_input_tokens
        row.reasoning_tokens = last.row.reasoning_tokens
        row.usage_estimated = last.row.usage_estimated
        if len(self.attempts) == 1:
            row.cost = last.row.cost
            return
        routes = [(facts.candidate.provider, facts.candidate.model) for facts in self.attempts]
        row.fallback = len(set(routes)) > 1
        row.retries = len(routes) - len(set(routes))
        spent = [facts.row for facts in self.attempts if facts.row.input_tokens is not None]
        if spent and all(attempt.cost is not None for attempt in spent):
            row.cost = sum((attempt.cost for attempt in spent if attempt.cost is not None), Decimal(0))

    async def commit(self) -> None:
        """Makes the interaction, its attempts and a new conversation durable. Raises `NotDurable` when that fails; they
        are stored later all the same."""
        try:
            await durability.committer().commit(self._rows())
        finally:
            attempts = [facts.row for facts in self.attempts]
            metrics.observe(self.interaction, attempts, name_of=self.snapshot.name_of)

    def _rows(self) -> ExchangeRows:
        """The rows so far, as the organization lets them be kept."""
        if self._kept is not None and len(self._kept.attempts) == len(self.attempts):
            return self._kept
        attempts = [facts.row for facts in self.attempts]
        interaction, attempts = as_kept(self.interaction, attempts, principal=self.call.principal)
        is_new = self.thread is not None and self.thread.is_new
        conversation = self.thread.conversation if self.thread is not None and is_new else None
        kept = ExchangeRows(interaction=interaction, attempts=attempts, new_conversation=conversation)
        if interaction is self.interaction:
            # Nothing was copied: they are the rows, whatever they come to hold.
            self._kept = kept
        return kept


@functools.lru_cache(maxsize=256)
def _word(raw_reason: str) -> str:
    """A finish reason as it is kept: vendors have few, and say them again and again."""
    return without_secrets(raw_reason)[:64]


def _as_json(message: Any) -> dict[str, Any]:
    fields = {
        "role": message.role,
        "content": message.content,
        "name": message.name,
        "tool_calls": list(message.tool_calls) or None,
        "tool_call_id": message.tool_call_id,
    }
    return {name: value for name, value in fields.items() if value is not None or name == "content"}


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL character; a model that says one says nothing by it."""
    return text.replace("\x00", "\ufffd")


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
