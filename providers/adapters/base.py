"""What every adapter is: one `stream` method over `providers.values`, errors from `providers.errors` only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from providers.values import ChatRequest, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Limits of one upstream call, in seconds. `connect`: TCP and TLS. `first_byte`: until response headers.
    `first_token`: until the first event. `between_chunks`: silence inside an answer. `total`: the whole call."""

    connect: float = 5.0
    first_byte: float = 10.0
    first_token: float = 12.0
    between_chunks: float = 10.0
    total: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One row of `settings.PROVIDERS`: a vendor as data.

    `slug`: the name in model names and in the record. `adapter`: the dialect's class by dotted path. `api_key`: None
    means not configured, unless `needs_key` is false. `base_url`: None means the library's own default. `headers`:
    sent with every call. `options`: what only one dialect knows. `setting`: prefix of the environment variables, so
    that errors can name the setting to fill. `connections`: to its address at most, 0 for no limit. `whole_tokens`: an
    answer that nobody wants in pieces may be asked for in one when it cannot be longer than this.
    """

    slug: str
    adapter: str
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    needs_key: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    setting: str = ""
    connections: int = 0
    whole_tokens: int = 0

    @property
    def configured(self) -> bool:
        return bool(self.api_key) or not self.needs_key


class Adapter(Protocol):
    """A provider one can talk to. Made once per provider and event loop by the registry.

    `stream` yields events as they come, `Finished` last and exactly once; it raises only `ProviderError`s; closing
    the iterator (`aclose`) closes the upstream connection at once. `probe` is a cheap sign of life (listing models,
    say) that costs no tokens; it raises like `stream`. `aclose` releases connections.
    """

    config: ProviderConfig

    def __init__(self, config: ProviderConfig) -> None: ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]: ...

    async def probe(self) -> None: ...

    async def aclose(self) -> None: ...


def bursts(adapter: Adapter, request: ChatRequest) -> AsyncGenerator[Sequence[Event], None]:
    """What `adapter` answers to `request`: as its `stream`, but what came together in one step, and `Finished` alone.
    No step is empty.

    Each step of a stream costs more than an event itself, so an adapter that knows what came together may say so by a
    method of this name.
    """
    own = getattr(adapter, "bursts", None)
    found: AsyncGenerator[Sequence[Event], None] = own(request) if own else _singly(adapter.stream(request))
    return found


async def _singly(stream: AsyncGenerator[Event, None]) -> AsyncGenerator[Sequence[Event], None]:
    async with aclosing(stream):
        async for event in stream:
            yield (event,)
