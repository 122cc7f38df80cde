"""The providers of `settings.PROVIDERS`, as adapters one can talk to; the one place where settings become providers.

    PROVIDERS = {"openai": {"ADAPTER": "dotted.path.Class", "API_KEY": ..., "BASE_URL": ..., "NEEDS_KEY": True,
                            "HEADERS": {...}, "OPTIONS": {...}, "TIMEOUTS": {"connect": 5.0, ...}, "SETTING": "OPENAI",
                            "CONNECTIONS": 0, "WHOLE_TOKENS": 0}}

Adapters are made on first use, one per event loop (a client reused across loops breaks), and their modules are imported
only then: a vendor's library costs tens of megabytes that nobody without its key should pay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter, ProviderConfig, Timeouts
from providers.errors import NotConfigured


@dataclass(slots=True)
class _Made:
    """The adapters of one event loop; `retired` ones were made from settings that have changed since."""

    adapters: dict[str, Adapter] = field(default_factory=dict)
    retired: list[Adapter] = field(default_factory=list)


_made: dict[asyncio.AbstractEventLoop, _Made] = {}
#: By dotted path. Not `sys.modules`, where a module stands while another thread is still importing it.
_classes: dict[str, type[Adapter]] = {}


@cache
def configs() -> Mapping[str, ProviderConfig]:
    """All providers of the settings by slug, in their order, those without a key included."""
    return MappingProxyType({slug: _config(slug, row) for slug, row in settings.PROVIDERS.items()})


def config(slug: str) -> ProviderConfig:
    """The provider called `slug`. Raises NotConfigured, which names near ones, when there is none."""
    known = configs()
    if slug in known:
        return known[slug]
    near = get_close_matches(slug, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(known)}."
    raise NotConfigured(f"There is no provider {slug!r}. {hint}", provider=slug)


def adapter(slug: str) -> Adapter:
    """The running event loop's adapter of the provider `slug`.

    Raises NotConfigured when there is no such provider, no key for it (the message names the setting), or no adapter.
    """
    wanted = config(slug)
    made = _made_here()
    found = made.adapters.get(slug)
    if found is not None and (found.config is wanted or found.config == wanted):
        return found
    _require_key(wanted)
    if found is not None:
        made.retired.append(found)
    made.adapters[slug] = new = _adapter_class(wanted)(wanted)
    return new


async def aadapter(slug: str) -> Adapter:
    """As `adapter`, for use on a serving event loop: an import that is still to be done happens in a thread."""
    wanted = config(slug)
    if wanted.adapter not in _classes:
        _require_key(wanted)
        await asyncio.to_thread(_adapter_class, wanted)
    return adapter(slug)


def preload() -> None:
    """Import the adapters of all providers that have a key, so that no first request waits a second for an import."""
    for wanted in configs().values():
        if wanted.api_key:
            _adapter_class(wanted)


async def set_up() -> None:
    """Make the running event loop's adapters of all providers that have a key. One that cannot be made is left to the
    request that wants it, which is told why."""
    for slug, wanted in configs().items():
        if wanted.api_key:
            with suppress(NotConfigured):
                await aadapter(slug)


async def aclose_all() -> None:
    """Close every adapter of the running event loop."""
    made = _made.pop(asyncio.get_running_loop(), None)
    if made is not None:
        await asyncio.gather(*(each.aclose() for each in (*made.adapters.values(), *made.retired)))


def _made_here() -> _Made:
    loop = asyncio.get_running_loop()
    if loop not in _made:
        # Adapters hold their loop, so that weak references would never let go of either
        for gone in [other for other in _made if other.is_closed()]:
            del _made[gone]
        _made[loop] = _Made()
    return _made[loop]


def _config(slug: str, row: Mapping[str, Any]) -> ProviderConfig:
    return ProviderConfig(
        slug=slug,
        adapter=row["ADAPTER"],
        api_key=(row.get("API_KEY") or "").strip() or None,
        base_url=row.get("BASE_URL") or None,
        needs_key=row.get("NEEDS_KEY", True),
        headers=dict(row.get("HEADERS") or {}),
        options=dict(row.get("OPTIONS") or {}),
        timeouts=Timeouts(**row.get("TIMEOUTS") or {}),
        setting=row.get("SETTING") or slug.upper(),
        connections=row.get("CONNECTIONS", 0),
        whole_tokens=row.get("WHOLE_TOKENS", 0),
    )


def _require_key(wanted: ProviderConfig) -> None:
    name = f"{wanted.setting}_API_KEY"
    if not wanted.configured:
        raise NotConfigured(f"{wanted.slug} has no key. Set {name} to use it.", provider=wanted.slug)
    key = wanted.api_key
    if key and not (key.isascii() and key.isprintable()):
        raise NotConfigured(f"{name} holds characters that no key has. Copy it again.", provider=wanted.slug)


def _adapter_class(wanted: ProviderConfig) -> type[Adapter]:
    if wanted.adapter not in _classes:
        try:
            _classes[wanted.adapter] = import_string(wanted.adapter)
        except ImportError as error:
            raise NotConfigured(
                f"{wanted.slug}'s adapter {wanted.adapter} cannot be imported: {error}", provider=wanted.slug
            ) from error
    return _classes[wanted.adapter]


@receiver(setting_changed)
def _read_settings_again(*, setting: str, **_: object) -> None:
    if setting == "PROVIDERS":
        configs.cache_clear()
