"""What becomes of each demo request: when it comes, who asks what, which attempts it takes, how it ends, what it costs.

Deterministic: the same plan tells the same story, chunk by chunk, in the order of time, in the rows of `chat.demo.
shapes`. Knows no database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from random import Random
from typing import Final

from chat.conversations import TITLE_LENGTH
from chat.demo.moments import moments
from chat.demo.shapes import Chunk, Row, identifier, trace_of
from chat.demo.words import Subject, Words
from chat.demo.world import Route, Tenant, World
from chat.models import Status
from chat.rows import INTERRUPTED_CODE
from providers import errors

#: Interactions in a chunk, which is stored as a whole or not at all.
CHUNK: Final = 10_000

#: What goes wrong with a provider, by weight: the error, its status, whether another try is made, what is said.
_FAULTS: Final[Sequence[tuple[float, type[errors.ProviderError], int | None, str]]] = (
    (30, errors.RateLimited, 429, "{provider} answered 429: too many requests."),
    (22, errors.Overloaded, 503, "{provider} answered 503: the model is overloaded."),
    (14, errors.ServerFault, 500, "{provider} answered 500: internal error."),
    (10, errors.FirstByteTimeout, None, "{provider} did not answer within 10 seconds."),
    (8, errors.ConnectionFailed, None, "{provider} could not be reached: connection reset."),
    (6, errors.ContextLengthExceeded, 400, "The request has more tokens than the context of {model}."),
    (5, errors.ContentRefused, 400, "The content policy of {provider} refused the request."),
    (3, errors.InvalidRequest, 400, "{provider} refused the request: max_tokens is too large."),
    (2, errors.CredentialsRejected, 401, "{provider} refuses our credentials."),
)
_FAULT_WEIGHTS: Final = tuple(accumulate(weight for weight, *_ in _FAULTS))
_PASSING: Final = tuple(fault for fault in _FAULTS if fault[1].retryable)
_PASSING_WEIGHTS: Final = tuple(accumulate(weight for weight, *_ in _PASSING))

_PARAMETERS: Final = (
    *("{}",) * 4,
    '{"temperature": 0.2}',
    '{"temperature": 0.7}',
    '{"max_tokens": 800, "temperature": 0}',
)
_METADATA: Final = (*("{}",) * 6, '{"page": "/pricing"}', '{"team": "support"}', '{"build": "2026.4", "beta": "yes"}')
_TOOL_CALLS: Final = (
    '[{"id": "call_%06x", "type": "function", '
    '"function": {"name": "find_order", "arguments": "{\\"order\\": \\"A-%d\\"}"}}]'
)
_UPSTREAM_IDS: Final = {"gemini": "%022x", "anthropic": "msg_01%022x", "openrouter": "gen-%024x"}
_INTERRUPTED: Final = "The server process ended before the answer did. What is not known of it stays empty."
#: Tokens are about four bytes.
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many interactions from `began` until before `ended`, by which seed."""

    interactions: int
    began: dt.datetime
    ended: dt.datetime
    seed: str

    @property
    def chunks(self) -> int:
        return -(-self.interactions // CHUNK)


@dataclass(slots=True)
class _Thread:
    """A conversation under way. `turns`: that are to come; `sent`: bytes of its history."""

    id: int
    tenant: Tenant
    user_id: str
    title: str
    began: int
    turns: int
    updated: int = 0
    messages: int = 0
    sent: int = 0


@dataclass(slots=True)
class _Outcome:
    """How an exchange went on: what its interaction takes from its attempts."""

    route: Route
    retries: int = 0
    fallback: bool = False
    elapsed: float = 0.0
    rows: list[Row] = field(default_factory=list)
    costs: list[int | None] = field(default_factory=list)


class Teller:
    """Tells the chunks of a plan, each by itself."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self._fallback = world.routes.get("gemini-2.0-flash")
        self.moment_of = moments(plan.interactions, began=plan.began, ended=plan.ended)
        spread = Random(f"{plan.seed}/spread")  # noqa: S311 - nothing here is secret
        #: Around 1, with a long tail: drawing from these is cheaper than drawing anew.
        self._spread = [spread.lognormvariate(0, 0.45) for _ in range(4096)]

    def first_id(self, chunk: int) -> int:
        """The id of the chunk's first interaction."""
        number = chunk * CHUNK
        random = self.random(chunk)
        return identifier(random, self.moment_of(number + random.random()), number * 8 + 1)

    def tell(self, chunk: int) -> Chunk:
        """All that happens in a chunk."""
        random = self.random(chunk)
        draw, bits, choices = random.random, random.getrandbits, random.choices
        world, told = self.world, Chunk()
        threads: list[tuple[int, int, _Thread]] = []
        opened: list[_Thread] = []
        for number in range(chunk * CHUNK, min((chunk + 1) * CHUNK, self.plan.interactions)):
            ms = self.moment_of(number + draw())
            row_id = identifier(random, ms, number * 8 + 1)
            if threads and threads[0][0] <= ms:
                due = heappop(threads)[2]
                thread: _Thread | None = due
                tenant, user_id = due.tenant, due.user_id
            else:
                tenant = choices(world.tenants, cum_weights=world.weights)[0]
                user_id = tenant.naming.format(int(tenant.people * draw() ** 3) + 1)
                thread = None
            subject = world.words.subjects[tenant.subject]
            prompt = _prompt(random, subject, world.words)
            if thread is None and draw() < tenant.threads:
                turns = 1 + int(8 * draw() ** 3)
                thread = _Thread(identifier(random, ms, number * 8), tenant, user_id, prompt[:TITLE_LENGTH], ms, turns)
                opened.append(thread)
            ended = self._exchange(told, random, tenant, user_id, thread, row_id, ms, number, subject, prompt)
            if thread is not None:
                thread.updated = ms
                thread.turns -= 1
                if thread.turns:
                    # Somebody reads the answer before asking on.
                    heappush(threads, (ended + 4_000 + bits(17), number, thread))
        told.conversations = [
            (thread.id, thread.tenant.id, thread.user_id, thread.title, thread.began, thread.updated)
            for thread in opened
        ]
        return told

    def _exchange(
        self,
        told: Chunk,
        random: Random,
        tenant: Tenant,
        user_id: str,
        thread: _Thread | None,
        row_id: int,
        ms: int,
        number: int,
        subject: Subject,
        prompt: str,
    ) -> int:
        """Adds the rows of one exchange; returns when it ended, in milliseconds."""
        draw, bits = random.random, random.getrandbits
        asked = random.choices(tenant.routes, cum_weights=tenant.weights)[0]
        outcome = _Outcome(route=asked)
        luck = draw()
        status, error, message = Status.SUCCEEDED, None, ""
        if luck < 0.065:
            status, error, message = self._trouble(random, outcome, row_id, ms, number, luck)
        streamed = draw() < tenant.streamed
        is_completion = draw() < tenant.completions
        if error is None and luck > 0.985:
            status = Status.CANCELLED
            streamed = True
        elif error is None and luck > 0.9835:
            status = Status.INTERRUPTED
        # Nobody asks on in the very words of somebody before.
        is_cached = 0.065 <= luck < 0.105 and thread is None
        answer, tool_calls, finish = "", "[]", ""
        if status is Status.SUCCEEDED:
            answer = _answer(random, subject)
            finish = "stop" if draw() < 0.96 else "length"
            if is_completion and not is_cached and draw() < 0.08:
                answer, finish = "", "tool_calls"
                tool_calls = _TOOL_CALLS % (bits(24), bits(16))
        elif status is Status.CANCELLED:
            answer = _answer(random, subject)[: 20 + bits(7)]
        history = thread.sent if thread is not None else 0
        messages = thread.messages if thread is not None else 0
        sent = len(prompt) + len(subject.system_prompt) + history
        tokens: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None)
        first_token: float | None = None
        latency: float | None = None
        finished: int | None = None
        provider_latency: float | None = None
        cost: int | None = None
        route = outcome.route
        if is_cached:
            tokens = (sent // _BYTES_PER_TOKEN + 8, len(answer) // _BYTES_PER_TOKEN + 1, 0, 0)
            latency = first_token = round(1.5 * self._spread[bits(12)], 3)
            cost = 0
        elif error is None and status is not Status.INTERRUPTED:
            incoming = sent // _BYTES_PER_TOKEN + 8
            outgoing = (len(answer) or 120) // _BYTES_PER_TOKEN + 1
            cached = incoming // 2 if history and incoming > 200 and status is Status.SUCCEEDED else 0
            thought = outgoing // 2 if route.name == "gemini-2.5-pro" and status is Status.SUCCEEDED else 0
            tokens = (incoming, outgoing + thought, cached, thought)
            spread = self._spread[bits(12)]
            begun = round(route.first_token_ms * spread, 3)
            provider_latency = round(begun + (outgoing + thought) * 1000 / route.tokens_per_second, 3)
            first_token = round(outcome.elapsed + begun + 1.2, 3)
            self._attempt(
                random, outcome, row_id, ms, number, status=status, finish=finish, tokens=tokens,
                latency=provider_latency, first_token=begun,
            )  # fmt: skip
            latency = round(outcome.elapsed + 2.4 * spread, 3)
            spent = [known for known in outcome.costs if known is not None]
            cost = sum(spent) if spent and len(spent) == len(outcome.costs) else None
        elif status is Status.INTERRUPTED:
            self._attempt(random, outcome, row_id, ms, number, status=status)
            error, message = errors.ProviderError, _INTERRUPTED
        else:
            provider_latency = outcome.rows[-1][-2]
            latency = round(outcome.elapsed + 1.9, 3)
        if latency is not None:
            finished = ms + int(latency)
        interrupted = status is Status.INTERRUPTED
        trace = trace_of(identifier(random, ms, number * 8))
        told.interactions.append(
            (
                row_id, tenant.id, tenant.keys[bits(2) % len(tenant.keys)], thread.id if thread else None, user_id,
                tenant.plan, "completions" if is_completion else "chat", streamed,
                trace, f"job-{bits(40):x}" if draw() < tenant.named_requests else None, ms, finished, None,
                status.value,
                "server_error" if interrupted else error.type if error else "",
                INTERRUPTED_CODE if interrupted else error.code if error else "",
                message, asked.name, route.name, route.provider, "named",
                prompt, subject.system_prompt, "[]", messages, _PARAMETERS[bits(8) % 7], answer, "", tool_calls,
                finish, _METADATA[bits(8) % 9], *tokens, status is Status.CANCELLED, cost,
                latency, provider_latency, first_token, outcome.retries, outcome.fallback, is_cached,
            )
        )  # fmt: skip
        told.attempts += outcome.rows
        if thread is not None and answer and status is Status.SUCCEEDED:
            thread.messages += 2
            thread.sent += len(prompt) + len(answer)
        return finished if finished is not None else ms

    def _trouble(
        self, random: Random, outcome: _Outcome, row_id: int, ms: int, number: int, luck: float
    ) -> tuple[Status, type[errors.ProviderError] | None, str]:
        """Failed attempts: up to a failure, or to what another attempt or another provider mends."""
        faults, weights = (_FAULTS, _FAULT_WEIGHTS) if luck < 0.02 else (_PASSING, _PASSING_WEIGHTS)
        _, error, status, words = random.choices(faults, cum_weights=weights)[0]
        tries = 1 + random.getrandbits(1) if error.retryable else 1
        for attempt in range(tries):
            message = words.format(provider=outcome.route.provider, model=outcome.route.name)
            waited = 10_000.0 if error is errors.FirstByteTimeout else 90 * self._spread[random.getrandbits(12)]
            self._attempt(
                random, outcome, row_id, ms, number, status=Status.FAILED, error=error, message=message,
                upstream_status=status, latency=round(waited, 3),
            )  # fmt: skip
            outcome.retries = attempt
            outcome.elapsed += 400 * (attempt + 1)
        if luck < 0.02:
            return Status.FAILED, error, message
        if luck < 0.04 and self._fallback is not None and self._fallback is not outcome.route:
            outcome.route, outcome.fallback = self._fallback, True
        else:
            outcome.retries += 1
        return Status.SUCCEEDED, None, ""

    def _attempt(
        self,
        random: Random,
        outcome: _Outcome,
        row_id: int,
        ms: int,
        number: int,
        *,
        status: Status,
        finish: str = "",
        tokens: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None),
        error: type[errors.ProviderError] | None = None,
        message: str = "",
        upstream_status: int | None = None,
        latency: float | None = None,
        first_token: float | None = None,
    ) -> None:
        route, place = outcome.route, len(outcome.rows)
        started = ms + int(outcome.elapsed)
        incoming, outgoing, cached, _ = tokens
        cost: int | None = None
        price: int | None = None
        is_reported = False
        if incoming is not None and outgoing is not None and cached is not None:
            for since, plain, reused, out, version in reversed(route.prices):
                if since <= started:
                    # Per million tokens in millionths of a dollar is per token in 1e-12 dollars.
                    cost, price = (incoming - cached) * plain + cached * reused + outgoing * out, version
                    break
            if route.reports_cost and cost is not None and status is Status.SUCCEEDED:
                price, is_reported = None, True
            outcome.costs.append(cost)
        answered = status in {Status.SUCCEEDED, Status.CANCELLED} or upstream_status is not None
        outcome.rows.append(
            (
                identifier(random, started, number * 8 + 2 + place), row_id, place + 1, route.provider,
                route.upstream_id, started, status.value, error.code if error else "", message, upstream_status,
                _UPSTREAM_IDS.get(route.provider, "chatcmpl-%024x") % random.getrandbits(88) if answered else "",
                finish, finish.upper() if route.provider == "gemini" else finish, 0,
                incoming, outgoing, cached, 0 if incoming is not None else None, tokens[3],
                status is Status.CANCELLED, price, cost, is_reported, latency, first_token,
            )
        )  # fmt: skip
        outcome.elapsed += latency or 0.0

    def random(self, chunk: int) -> Random:
        """What the chunk's chances follow from."""
        return Random(f"{self.plan.seed}/{chunk}")  # noqa: S311 - nothing here is secret


def _prompt(random: Random, subject: Subject, words: Words) -> str:
    draw = random.random
    questions = subject.questions
    text = questions[int(draw() * len(questions))]
    kind = draw()
    if kind < 0.25:
        # The smaller the number, the more often: by a power law.
        text = (
            f"{text} It concerns {words.rare[int(len(words.rare) * draw() ** 4)]}, file {random.getrandbits(32):08x}."
        )
    elif kind < 0.5:
        text = f"{text} {questions[int(draw() * len(questions))]}"
    return text


def _answer(random: Random, subject: Subject) -> str:
    answers = subject.answers
    count = 1 + int(7 * random.random() ** 2)
    return " ".join(random.choices(answers, k=count))
