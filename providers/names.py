"""Which model a name means, decided from one immutable picture of the catalogue. Knows neither rows nor who asks.

The picture is made and kept fresh by `providers.catalogue`.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches
from functools import cache

from django.conf import settings

from llmchat.lib.frozen import dataclass
from providers import registry
from providers.adapters import local, simulated
from providers.errors import ModelNotFound, NotConfigured
from providers.pricing import PriceVersion, in_force

logger = logging.getLogger(__name__)

#: Characters of the longest id that a provider is asked for: what the columns hold that keep it.
MAX_ID_LENGTH = 200
#: Characters of a name that a message repeats, and that near names are searched for.
_SHOWN_LENGTH = 80
#: Names that a picture remembers what they mean: some are the callers' own.
_MOST_REMEMBERED = 1000

#: Models that exist because our code has them, whatever the rows say.
_BUILT_IN: Mapping[str, frozenset[str]] = {"local": frozenset({local.MODEL}), "simulated": frozenset(simulated.FAULTS)}

#: A provider's slug and its own id for the model.
Route = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model of the catalogue, as a value."""

    id: int
    name: str
    provider: str
    upstream_id: str
    display_name: str
    context_window: int | None
    max_output_tokens: int | None
    is_enabled: bool
    created_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """What a name means. `name` is the one to show; `model_id` is None for a model that is not in the catalogue;
    `reason` says how it was chosen: named, alias, default or fallback."""

    name: str
    provider: str
    upstream_id: str
    reason: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    model_id: int | None = None
    aliases: tuple[str, ...] = ()
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """All names by which it goes, the one to show first; without a drill's parameters too. For rules on names."""

    def __post_init__(self) -> None:
        route = f"{self.provider}/{self.upstream_id}"
        undrilled = f"{self.provider}/{without_drill(self.provider, self.upstream_id)}"
        object.__setattr__(self, "names", tuple(dict.fromkeys((self.name, route, undrilled, *self.aliases))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The catalogue and its prices at one moment. `aliases`: from alias to name."""

    entries: Mapping[str, Entry] = field(repr=False)
    aliases: Mapping[str, str] = field(repr=False)
    routes: Mapping[Route, Entry] = field(repr=False)
    prices: Mapping[Route, Sequence[PriceVersion]] = field(repr=False)
    _found: dict[tuple[str, str | None], tuple[object, ResolvedModel]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def resolve(self, name: str) -> ResolvedModel:
        """What `name` means: a catalogue name, an alias, `provider/upstream-id`; `auto` or nothing lets us choose.

        Raises ModelNotFound, which names near ones, for an unknown or disabled model; NotConfigured when the default
        model is not known.
        """
        if name in {"", "auto"}:
            return self._default()
        found = self._find(name)
        if found is None:
            raise ModelNotFound(f"There is no model {_shown(name)}.{self._hint(name)}")
        return found

    def fallbacks(self) -> list[ResolvedModel]:
        """The models of `settings.FALLBACK_ORDER` that there are."""
        found = [(name, self._find(name, reason="fallback")) for name in settings.FALLBACK_ORDER]
        for name in (name for name, model in found if model is None):
            _warn_once(f"FALLBACK_ORDER names {_shown(name)}, which is not a model that can be used.")
        return [model for _, model in found if model is not None]

    def name_of(self, provider: str, upstream_id: str) -> str:
        """The name to show for a provider's model: the catalogue's, else `provider/upstream-id`."""
        entry = self.routes.get((provider, upstream_id))
        return entry.name if entry else f"{provider}/{upstream_id}"

    def price_for(self, provider: str, upstream_id: str, at: dt.datetime) -> PriceVersion | None:
        """The price in force at `at` of the model that was asked for; None when it is unknown.

        Ask with our id for the model, not with the more specific one that a vendor may report.
        """
        return in_force(self.prices.get((provider, without_drill(provider, upstream_id)), ()), at)

    def listing(self) -> list[Entry]:
        """The models that can be used now: enabled, their provider configured. By provider and name."""
        usable = {slug for slug, config in registry.configs().items() if config.configured}
        return [entry for entry in self.entries.values() if entry.is_enabled and entry.provider in usable]

    def _default(self) -> ResolvedModel:
        name, reason = choose_default()
        found = self._find(name, reason=reason)
        if found is None:
            raise NotConfigured(f"DEFAULT_MODEL is {_shown(name)}, which is not a model.{self._hint(name)}")
        return found

    def _find(self, name: str, *, reason: str | None = None) -> ResolvedModel | None:
        # The picture does not change; the settings that count may.
        known, configs = self._found.get((name, reason)), registry.configs()
        if known is not None and known[0] is configs:
            return known[1]
        found = self._search(name, reason=reason)
        if found is not None and len(self._found) < _MOST_REMEMBERED:
            self._found[name, reason] = configs, found
        return found

    def _search(self, name: str, *, reason: str | None) -> ResolvedModel | None:
        entry = self.entries.get(name)
        if entry is not None:
            return self._resolved(entry, reason or "named")
        target = self.aliases.get(name)
        if target is not None:
            return self._resolved(self.entries[target], reason or "alias")
        provider, slash, upstream_id = name.partition("/")
        if slash and provider in registry.configs():
            return self._of_provider(provider, upstream_id, reason or "named")
        return None

    def _of_provider(self, provider: str, upstream_id: str, reason: str) -> ResolvedModel | None:
        """A provider's own id: in the catalogue or not, as long as it can be one."""
        if not 0 < len(upstream_id) <= MAX_ID_LENGTH or not upstream_id.isprintable() or " " in upstream_id:
            return None
        undrilled = without_drill(provider, upstream_id)
        entry = self.routes.get((provider, undrilled))
        if entry is not None:
            return self._resolved(entry, reason, upstream_id=upstream_id)
        if provider in _BUILT_IN and undrilled not in _BUILT_IN[provider]:
            return None
        return ResolvedModel(
            name=f"{provider}/{upstream_id}", provider=provider, upstream_id=upstream_id, reason=reason
        )

    def _resolved(self, entry: Entry, reason: str, *, upstream_id: str | None = None) -> ResolvedModel | None:
        if not entry.is_enabled:
            return None
        drilled = upstream_id is not None and upstream_id != entry.upstream_id
        return ResolvedModel(
            name=f"{entry.provider}/{upstream_id}" if drilled else entry.name,
            provider=entry.provider,
            upstream_id=upstream_id or entry.upstream_id,
            reason=reason,
            context_window=entry.context_window,
            max_output_tokens=entry.max_output_tokens,
            model_id=entry.id,
            aliases=tuple(alias for alias, name in self.aliases.items() if name == entry.name),
        )

    def _hint(self, name: str) -> str:
        near = get_close_matches(name[:_SHOWN_LENGTH], set(self._names()), n=3)
        return f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists those that there are."

    def _names(self) -> Iterator[str]:
        for entry in self.entries.values():
            if entry.is_enabled:
                yield entry.name
        yield from (alias for alias, name in self.aliases.items() if self.entries[name].is_enabled)
        for provider, built_in in _BUILT_IN.items():
            for upstream_id in built_in:
                if (provider, upstream_id) not in self.routes:
                    yield f"{provider}/{upstream_id}"


def choose_default() -> tuple[str, str]:
    """The name of the model for callers who name none, and the reason for choosing it."""
    return settings.DEFAULT_MODEL, "default"


def without_drill(provider: str, upstream_id: str) -> str:
    """The id without a drill's parameters: `slow?delay=2` of the simulated provider is the model `slow`."""
    return upstream_id.partition("?")[0] if provider == "simulated" else upstream_id


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_LENGTH else name[:_SHOWN_LENGTH] + "…")


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
