"""The simulated provider: finds the behaviour that a model's name asks for, and logs the calls as a vendor would.

The log is the other side of the record: each call's id is the `response_id` or `upstream_request_id` that the caller
gets to see, so that what we put on record can be compared with what was really called.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import ClassVar
from urllib.parse import parse_qsl

from providers.adapters.base import ProviderConfig
from providers.adapters.simulated.behaviours import Call
from providers.adapters.simulated.faults import FAULTS, Fault
from providers.errors import InvalidRequest, ModelNotFound, ProviderError
from providers.values import ChatRequest, Event

_LOGGED = 100_000
_REMEMBERED = 10_000
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCall:
    """A call that reached the provider, whatever came of it."""

    at: datetime
    model: str
    call_id: str


@dataclass(slots=True)
class _Memory:
    """What the provider remembers of one model name."""

    began: float
    calls: int = 0


class SimulatedAdapter:
    """The provider `simulated`. Its models are `FAULTS`, with parameters as in a URL: `slow?delay=2&tokens=10`.

    `key=anything` gives a model name a memory of its own: `500-once?key=a` fails once whatever `500-once` has done.
    Log and memory are the process's, shared by all adapters; `reset` empties them.
    """

    #: The latest calls, oldest first.
    log: ClassVar[deque[LoggedCall]] = deque(maxlen=_LOGGED)
    #: The ids of the calls that have neither ended nor been closed.
    running: ClassVar[set[str]] = set()
    #: Seconds; `down-60s` goes by it.
    clock: ClassVar[Callable[[], float]] = staticmethod(time.monotonic)
    _memories: ClassVar[dict[str, _Memory]] = {}
    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config

    @classmethod
    def reset(cls) -> None:
        """Forget all calls."""
        cls.log.clear()
        cls._memories.clear()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Yield or raise what an adapter would whose vendor behaves as `request.model` says.

        Raises ModelNotFound, which names near ones, for a name that is not in `FAULTS`.
        """
        call_id = f"sim-{next(self._numbers):08d}"
        self.log.append(LoggedCall(at=datetime.now(UTC), model=request.model, call_id=call_id))
        self.running.add(call_id)
        try:
            fault, parameters = _behaviour(request.model)
            now = type(self).clock()
            memory = self._remember(request.model, now)
            call = Call(
                id=call_id,
                request=request,
                timeouts=self.config.timeouts,
                parameters=parameters,
                count=memory.calls,
                age=now - memory.began,
            )
            async with aclosing(fault.play(call)) as events:
                async for event in events:
                    yield event
        except ProviderError as error:
            error.provider = self.config.slug
            if error.upstream_status is not None:  # without a response there is no id in its headers
                error.upstream_request_id = call_id
            raise
        finally:
            self.running.discard(call_id)

    async def probe(self) -> None:
        """Always well: what is ill here is meant to be."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _remember(self, model: str, now: float) -> _Memory:
        if model not in self._memories and len(self._memories) >= _REMEMBERED:
            del self._memories[next(iter(self._memories))]
        memory = self._memories.setdefault(model, _Memory(began=now))
        memory.calls += 1
        return memory


def _behaviour(model: str) -> tuple[Fault, Mapping[str, float]]:
    """The fault that `model` names, and its parameters with their defaults filled in."""
    name, _, query = model.partition("?")
    fault = FAULTS.get(name)
    if fault is None:
        near = get_close_matches(name, FAULTS, n=3) or list(FAULTS)
        raise ModelNotFound(f"There is no simulated model {name!r}. Near ones: {', '.join(near)}.", upstream_status=404)
    given = dict(parse_qsl(query, keep_blank_values=True))
    given.pop("key", None)
    return fault, {**fault.parameters, **{key: _number(fault, key, text) for key, text in given.items()}}


def _number(fault: Fault, key: str, text: str) -> float:
    if key not in fault.parameters:
        raise InvalidRequest(f"{fault.name} has the parameters {', '.join(fault.parameters)}, not {key!r}.")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _LARGEST:
        raise InvalidRequest(f"{key} of {fault.name} is a number from 0 to {_LARGEST}, not {text!r}.")
    return number
