"""Asks a model from the terminal, straight through its adapter."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from providers import catalogue, registry
from providers.catalogue import ResolvedModel, Snapshot
from providers.errors import ProviderError, TruncatedAnswer
from providers.pricing import cost_of
from providers.values import ChatRequest, Finished, Message, ReasoningDelta, TextDelta, ToolCallDelta


@dataclass(slots=True)
class _Answer:
    """What has come so far. Times are of `time.perf_counter`."""

    began: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    text: list[str] = field(default_factory=list)
    finished: Finished | None = None


class Command(BaseCommand):
    help = (
        "Asks a model and prints its answer as it comes; tokens, cost and timings go to standard error. The question "
        "goes straight to the provider: no key, no limits, no retries, and nothing is put on record."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="such as gemini-2.0-flash, openai/gpt-4o, local/smollm2-135m, or auto")
        parser.add_argument("prompt")
        parser.add_argument("--system", metavar="TEXT", help="a system prompt")
        parser.add_argument("--temperature", type=float, metavar="T")
        parser.add_argument("--max-tokens", type=int, metavar="N")
        parser.add_argument("--no-stream", action="store_true", help="print the answer only when it is whole")

    def handle(self, *args: Any, model: str, prompt: str, no_stream: bool, **options: Any) -> None:
        snapshot = catalogue.current()
        messages = [Message(role="system", content=options["system"])] if options["system"] else []
        try:
            resolved = snapshot.resolve(model)
            request = ChatRequest(
                model=resolved.upstream_id,
                messages=[*messages, Message(role="user", content=prompt)],
                temperature=options["temperature"],
                max_tokens=options["max_tokens"],
                whole=no_stream,
            )
            answer = asyncio.run(self._ask(resolved, request, stream=not no_stream))
        except ProviderError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=130) from None
        if no_stream:
            self.stdout.write("".join(answer.text), ending="")
        self.stdout.write("")
        self.stderr.write(_facts(snapshot, resolved, answer), style_func=self.style.NOTICE)

    async def _ask(self, model: ResolvedModel, request: ChatRequest, *, stream: bool) -> _Answer:
        adapter = await registry.aadapter(model.provider)
        answer = _Answer()
        try:
            async with aclosing(adapter.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        answer.finished = event
                        continue
                    answer.first_token = answer.first_token or time.perf_counter()
                    piece = _text(event)
                    answer.text.append(piece)
                    if stream and piece:
                        self.stdout.write(piece, ending="")
                        self.stdout.flush()
        finally:
            await registry.aclose_all()
        if answer.finished is None:
            raise TruncatedAnswer("The answer ended without a finish reason.", provider=model.provider)
        return answer


def _text(event: TextDelta | ReasoningDelta | ToolCallDelta) -> str:
    return event.text if isinstance(event, TextDelta) else ""


def _facts(snapshot: Snapshot, model: ResolvedModel, answer: _Answer) -> str:
    """One line: who answered, why it ended, tokens, cost, timings."""
    finished, now = answer.finished, time.perf_counter()
    facts = [f"{model.provider} {finished.model or model.upstream_id}" if finished else model.name]
    if finished is not None:
        facts.append(finished.raw_reason or str(finished.reason))
        if finished.usage is None:
            facts.append("tokens not reported")
        else:
            facts.append(f"{finished.usage.input_tokens} + {finished.usage.output_tokens} tokens")
        facts.append(_cost(snapshot, model, finished))
    if answer.first_token is not None:
        facts.append(f"first token {1000 * (answer.first_token - answer.began):.0f} ms")
    facts.append(f"total {1000 * (now - answer.began):.0f} ms")
    return " · ".join(facts)


def _cost(snapshot: Snapshot, model: ResolvedModel, finished: Finished) -> str:
    cost: Decimal | None = finished.cost_usd
    if cost is None and finished.usage is not None:
        cost = cost_of(finished.usage, snapshot.price_for(model.provider, model.upstream_id, timezone.now()))
    return "cost unknown" if cost is None else f"${cost.normalize():f}"
