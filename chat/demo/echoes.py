"""Tells a long story quickly: a number of chunks in full, and the others as echoes of these, with ids and moments of
their own.

An echo says the same of other moments: texts repeat, each as often as there are echoes, but for the numbers of files in
prompts. It is taken from a chunk of about the same pace, told at the same prices. Deterministic, as the teller is.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from chat.demo import shapes, story
from chat.demo.shapes import Chunk, Row
from chat.demo.story import Teller

#: Chunks that are told in full, at most.
FULL: Final = 24
#: Of the full chunks with the same prices, as many as have the nearest pace take turns.
_NEAREST: Final = 4
#: For how long after a request its attempts may begin, in milliseconds.
_LATE: Final = 120_000
#: What a prompt with a file's number ends with.
_FILE: Final = ", file "
_DIGITS: Final = 8

_CONVERSATION: Final = shapes.INTERACTION.index("conversation_id")
_TRACE: Final = shapes.INTERACTION.index("trace_id")
_REQUEST: Final = shapes.INTERACTION.index("request_id")
_CREATED: Final = shapes.INTERACTION.index("created_at")
_FINISHED: Final = shapes.INTERACTION.index("finished_at")
_PROMPT: Final = shapes.INTERACTION.index("prompt")
_STARTED: Final = shapes.ATTEMPT.index("started_at")


@dataclass(slots=True)
class Original:
    """A chunk told in full, and what of it belongs together. By place in the chunk: `owners`, of each attempt its
    interaction; `threads`, of each conversation its first and last interaction."""

    number: int
    chunk: Chunk
    owners: list[int] = field(default_factory=list)
    threads: list[tuple[int, int]] = field(default_factory=list)
    has_file: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, number: int, chunk: Chunk) -> Original:
        places = {row[0]: place for place, row in enumerate(chunk.interactions)}
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for place, row in enumerate(chunk.interactions):
            if row[_CONVERSATION] is not None:
                first.setdefault(row[_CONVERSATION], place)
                last[row[_CONVERSATION]] = place
        return cls(
            number=number,
            chunk=chunk,
            owners=[places[row[1]] for row in chunk.attempts],
            threads=[(first[row[0]], last[row[0]]) for row in chunk.conversations],
            has_file=[row[_PROMPT][-_DIGITS - 1 - len(_FILE) : -_DIGITS - 1] == _FILE for row in chunk.interactions],
        )


@dataclass(slots=True)
class Echo:
    """What is its own in an echo, by place of the interactions: ids, moments (ms), traces, requests' ids, and the
    numbers of files."""

    original: Original
    ids: list[int]
    moments: list[int]
    traces: list[str]
    requests: list[str | None]
    files: list[str]

    def conversation_id(self, place: int) -> int:
        """The id of the conversation that the interaction at this place began."""
        return self.ids[place] - (1 << 32)

    def attempt_id(self, place: int, number: int, started: int) -> int:
        return started << 80 | (self.ids[place] & (1 << 80) - 1) + (number << 32)

    @property
    def conversations(self) -> list[Row]:
        return [
            (self.conversation_id(first), *row[1:4], self.moments[first], self.moments[last])
            for row, (first, last) in zip(self.original.chunk.conversations, self.original.threads, strict=True)
        ]

    @property
    def attempts(self) -> list[Row]:
        rows = []
        interactions = self.original.chunk.interactions
        for row, place in zip(self.original.chunk.attempts, self.original.owners, strict=True):
            started = row[_STARTED] - interactions[place][_CREATED] + self.moments[place]
            rows.append(
                (
                    self.attempt_id(place, row[2], started),
                    self.ids[place],
                    *row[2:_STARTED],
                    started,
                    *row[_STARTED + 1 :],
                )
            )
        return rows

    @property
    def interactions(self) -> list[Row]:
        renamed = self.renamed
        rows = []
        for place, row in enumerate(self.original.chunk.interactions):
            values = list(row)
            moment = self.moments[place]
            values[0], values[_CREATED] = self.ids[place], moment
            values[_TRACE], values[_REQUEST] = self.traces[place], self.requests[place]
            if row[_CONVERSATION] is not None:
                values[_CONVERSATION] = renamed[row[_CONVERSATION]]
            if row[_FINISHED] is not None:
                values[_FINISHED] = moment + row[_FINISHED] - row[_CREATED]
            if self.original.has_file[place]:
                values[_PROMPT] = f"{row[_PROMPT][: -_DIGITS - 1]}{self.files[place]}."
            rows.append(tuple(values))
        return rows

    @property
    def renamed(self) -> dict[int, int]:
        """Ids of conversations by those of the original."""
        return {
            row[0]: self.conversation_id(first)
            for row, (first, _) in zip(self.original.chunk.conversations, self.original.threads, strict=True)
        }


class Echoes:
    """Tells the chunks of a teller's plan, each by itself."""

    def __init__(self, teller: Teller) -> None:
        self.teller = teller
        self._told: dict[int, Original] = {}
        self._cuts = sorted({price[0] for route in teller.world.routes.values() for price in route.prices})
        whole = teller.plan.interactions // story.CHUNK
        full = [place * whole // FULL for place in range(FULL)] if whole >= 2 * FULL else []
        #: Numbers of full chunks by the prices of their time, with their pace.
        self._full: dict[int, list[tuple[int, int]]] = {}
        for number in full:
            if (prices := self._prices(number)) is not None:
                self._full.setdefault(prices, []).append((self._length(number), number))

    def tell(self, number: int) -> Chunk | Echo:
        teller = self.teller
        prices = self._prices(number)
        full = self._full.get(prices, []) if prices is not None else []
        if not full or (number + 1) * story.CHUNK > teller.plan.interactions:
            return teller.tell(number)
        length = self._length(number)
        nearest = sorted(full, key=lambda pair: (abs(pair[0] - length), pair[1]))[:_NEAREST]
        chosen = nearest[number % len(nearest)][1]
        original = self._told.get(chosen)
        if original is None:
            original = self._told[chosen] = Original.of(chosen, teller.tell(chosen))
        return original.chunk if chosen == number else self._echo(number, original)

    def _echo(self, number: int, original: Original) -> Echo:
        random, moment_of = self.teller.random(number), self.teller.moment_of
        draw, bits = random.random, random.getrandbits
        ids, moments = [], []
        first = number * story.CHUNK
        for n in range(first, first + story.CHUNK):
            ms = moment_of(n + draw())
            moments.append(ms)
            ids.append(shapes.identifier(random, ms, n * 8 + 1))
        digits = f"{random.getrandbits(128 * story.CHUNK):0{32 * story.CHUNK}x}"
        traces = []
        for place, identifier in enumerate(ids):
            own = digits[32 * place : 32 * place + 16]
            moment = f"{identifier >> 80:012x}"
            traces.append(f"{moment[:8]}-{moment[8:]}-7{own[:3]}-8{own[3:6]}-{own[4:]}")
        requests = [None if row[_REQUEST] is None else f"job-{bits(40):x}" for row in original.chunk.interactions]
        files = [digits[32 * place + 20 : 32 * place + 20 + _DIGITS] for place in range(story.CHUNK)]
        return Echo(original, ids, moments, traces, requests, files)

    def _prices(self, number: int) -> int | None:
        """Which prices are in force throughout the chunk; None when they change."""
        first, last = self._span(number)
        before = bisect_right(self._cuts, first)
        return before if bisect_right(self._cuts, last + _LATE) == before else None

    def _length(self, number: int) -> int:
        first, last = self._span(number)
        return last - first

    def _span(self, number: int) -> tuple[int, int]:
        moment_of = self.teller.moment_of
        last = min((number + 1) * story.CHUNK, self.teller.plan.interactions)
        return moment_of(number * story.CHUNK), moment_of(last)
