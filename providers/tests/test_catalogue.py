"""Which model a name means, and how the catalogue's picture in the process follows its rows."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from providers import catalogue, services
from providers.catalogue import ResolvedModel
from providers.errors import ModelNotFound, NotConfigured
from providers.models import LanguageModel
from providers.pricing import PriceVersion
from providers.tests.factories import LanguageModelFactory, ModelAliasFactory, PriceFactory


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No snapshot of another test's rows, and none of this one's for the next."""
    monkeypatch.setattr(catalogue, "_held", catalogue._Held())
    yield
    catalogue.forget()


@pytest.fixture
def flash(db: None) -> LanguageModel:
    return LanguageModelFactory.create(
        name="gemini-2.0-flash",
        provider="gemini",
        upstream_id="gemini-2.0-flash",
        context_window=1_000_000,
        max_output_tokens=8192,
    )


def resolved(model: LanguageModel, **changes: object) -> ResolvedModel:
    return ResolvedModel(
        **{  # type: ignore[arg-type]
            "name": model.name,
            "provider": model.provider,
            "upstream_id": model.upstream_id,
            "context_window": model.context_window,
            "max_output_tokens": model.max_output_tokens,
            "model_id": model.pk,
            "reason": "named",
            **changes,
        }
    )


@pytest.mark.parametrize("name", ["gemini-2.0-flash", "gemini/gemini-2.0-flash"])
def test_a_model_goes_by_its_name_and_by_its_providers(flash: LanguageModel, name: str) -> None:
    assert catalogue.current().resolve(name) == resolved(flash)


def test_a_model_goes_by_its_alias_and_plans_see_all_its_names(flash: LanguageModel) -> None:
    ModelAliasFactory.create(name="fast", model=flash)
    ModelAliasFactory.create(name="other")
    found = catalogue.current().resolve("fast")
    assert found == resolved(flash, reason="alias", aliases=("fast",))
    assert found.names == ("gemini-2.0-flash", "gemini/gemini-2.0-flash", "fast")


@pytest.mark.django_db
def test_an_id_that_the_catalogue_does_not_know_is_the_providers_affair() -> None:
    assert catalogue.current().resolve("openrouter/openai/gpt-4o-mini") == ResolvedModel(
        name="openrouter/openai/gpt-4o-mini", provider="openrouter", upstream_id="openai/gpt-4o-mini", reason="named"
    )


@pytest.mark.django_db
def test_the_part_before_the_first_slash_is_the_provider_only_if_there_is_one() -> None:
    LanguageModelFactory.create(name="groq/openai/gpt-oss-20b", provider="groq", upstream_id="openai/gpt-oss-20b")
    snapshot = catalogue.current()
    of_groq = snapshot.resolve("groq/openai/gpt-oss-20b")
    of_openai = snapshot.resolve("openai/gpt-oss-20b")
    assert [(model.provider, model.upstream_id) for model in (of_groq, of_openai)] == [
        ("groq", "openai/gpt-oss-20b"),
        ("openai", "gpt-oss-20b"),
    ]
    with pytest.raises(ModelNotFound):
        snapshot.resolve("acme/gpt-oss-20b")


@pytest.mark.django_db
def test_without_any_rows_the_models_of_this_process_are_known_and_no_others_of_theirs() -> None:
    snapshot = catalogue.current()
    assert [snapshot.resolve(name).upstream_id for name in ("local/smollm2-135m", "simulated/echo")] == [
        "smollm2-135m",
        "echo",
    ]
    with pytest.raises(ModelNotFound, match=r"'local/smollm2-1b'\. Did you mean local/smollm2-135m\?"):
        snapshot.resolve("local/smollm2-1b")
    with pytest.raises(ModelNotFound, match="simulated/echo"):
        snapshot.resolve("simulated/ecko")


@pytest.mark.django_db
def test_a_drill_keeps_its_parameters_and_is_priced_by_its_model() -> None:
    slow = LanguageModelFactory.create(upstream_id="slow", context_window=4096)
    price = PriceFactory.create(model=slow)
    snapshot = catalogue.current()
    found = snapshot.resolve("simulated/slow?delay=2")
    assert found == resolved(slow, name="simulated/slow?delay=2", upstream_id="slow?delay=2")
    assert found.names == ("simulated/slow?delay=2", "simulated/slow")
    priced = snapshot.price_for("simulated", "slow?delay=2", timezone.now())
    assert priced is not None
    assert priced.id == price.id


def test_an_unknown_model_is_refused_and_near_ones_are_named(flash: LanguageModel) -> None:
    ModelAliasFactory.create(name="gemini-fast", model=flash)
    LanguageModelFactory.create(name="gemini-2.0-flush", is_enabled=False)
    with pytest.raises(ModelNotFound) as refusal:
        catalogue.current().resolve("gemini-2.0-flsh")
    assert refusal.value.message == (
        "There is no model 'gemini-2.0-flsh'. Did you mean gemini-2.0-flash or gemini-fast?"
    )
    assert (refusal.value.http_status, refusal.value.code) == (404, "model_not_found")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["zzz", "openai/", "/", "openai/a b", "openai/\x00", "openai/" + "x" * 201, "x" * 10_000]
)
def test_what_cannot_be_a_model_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        catalogue.current().resolve(name)
    assert len(refusal.value.message) < 400


def test_a_disabled_model_cannot_be_named_by_any_name(flash: LanguageModel) -> None:
    ModelAliasFactory.create(name="fast", model=flash)
    services.set_enabled(LanguageModel.objects.filter(pk=flash.pk), enabled=False)
    snapshot = catalogue.current()
    for name in ("gemini-2.0-flash", "gemini/gemini-2.0-flash", "fast"):
        with pytest.raises(ModelNotFound):
            snapshot.resolve(name)


@pytest.mark.parametrize("name", ["", "auto"])
def test_no_name_means_the_default_model(flash: LanguageModel, name: str, settings) -> None:
    settings.DEFAULT_MODEL = "gemini/gemini-2.0-flash"
    assert catalogue.current().resolve(name) == resolved(flash, reason="default")


@pytest.mark.django_db
def test_a_default_that_is_no_model_is_our_fault_and_not_the_callers(settings) -> None:
    settings.DEFAULT_MODEL = "local/smollm"
    with pytest.raises(NotConfigured, match=r"DEFAULT_MODEL is 'local/smollm'.*local/smollm2-135m"):
        catalogue.current().resolve("auto")


def test_fallbacks_are_those_of_the_settings_that_there_are(flash: LanguageModel, settings) -> None:
    settings.FALLBACK_ORDER = ["simulated/echo", "gone", "gemini-2.0-flash"]
    assert catalogue.current().fallbacks() == [
        ResolvedModel(name="simulated/echo", provider="simulated", upstream_id="echo", reason="fallback"),
        resolved(flash, reason="fallback"),
    ]


def test_only_enabled_models_of_configured_providers_are_listed(flash: LanguageModel) -> None:
    usable = LanguageModelFactory.create()
    LanguageModelFactory.create(is_enabled=False)
    assert [entry.name for entry in catalogue.current().listing()] == [usable.name]


def test_a_model_has_a_name_to_show_even_outside_the_catalogue(flash: LanguageModel) -> None:
    snapshot = catalogue.current()
    assert snapshot.name_of("gemini", "gemini-2.0-flash") == "gemini-2.0-flash"
    assert snapshot.name_of("openai", "gpt-9") == "openai/gpt-9"


def test_a_price_is_that_of_the_moment(flash: LanguageModel) -> None:
    now = timezone.now()
    old = PriceFactory.create(model=flash)
    new = PriceFactory.create(
        model=flash,
        effective_from=now,
        input_per_million=Decimal("0.1"),
        output_per_million=Decimal("0.4"),
        cached_input_per_million=Decimal("0.025"),
    )
    snapshot = catalogue.current()
    before = snapshot.price_for("gemini", "gemini-2.0-flash", now - dt.timedelta(seconds=1))
    after = snapshot.price_for("gemini", "gemini-2.0-flash", now)
    assert before is not None
    assert before.id == old.id
    assert after == PriceVersion(
        id=new.id,
        effective_from=now,
        input_per_million=Decimal("0.1"),
        output_per_million=Decimal("0.4"),
        cached_input_per_million=Decimal("0.025"),
    )
    assert snapshot.price_for("openai", "gemini-2.0-flash", now) is None


def test_looking_again_asks_the_database_nothing(flash: LanguageModel) -> None:
    first = catalogue.current()
    with CaptureQueriesContext(connection) as queries:
        again = catalogue.current()
    assert again is first
    assert len(queries) == 0


@pytest.mark.django_db(transaction=True)
def test_a_change_shows_at_once_when_it_is_committed() -> None:
    model = LanguageModelFactory.create()
    before = catalogue.current()
    services.set_price(model, input_per_million=Decimal(3), output_per_million=Decimal(4))
    found = catalogue.current().price_for(model.provider, model.upstream_id, timezone.now())
    assert before.price_for(model.provider, model.upstream_id, timezone.now()) is None
    assert found is not None
    assert found.input_per_million == Decimal(3)


@pytest.mark.django_db(transaction=True)
async def test_an_old_picture_serves_while_the_new_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    first = await catalogue.snapshot()
    model = await sync_to_async(LanguageModelFactory.create)()
    assert await catalogue.snapshot() is first
    monkeypatch.setattr(catalogue, "FRESH_SECONDS", -1.0)
    assert await catalogue.snapshot() is first
    assert catalogue._held.renewal is not None
    await asyncio.wrap_future(catalogue._held.renewal)
    assert [*(await catalogue.snapshot()).entries] == [model.name]
    await asyncio.wrap_future(catalogue._held.renewal)


@pytest.mark.django_db(transaction=True)
async def test_after_a_long_silence_the_new_picture_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    await catalogue.snapshot()
    model = await sync_to_async(LanguageModelFactory.create)()
    monkeypatch.setattr(catalogue._held, "_made_at", time.monotonic() - catalogue.STALE_SECONDS - 1)
    assert [*(await catalogue.snapshot()).entries] == [model.name]


@pytest.mark.django_db(transaction=True)
async def test_many_who_ask_at_once_share_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []
    read = catalogue._read

    def counted() -> catalogue.Snapshot:
        readings.append(1)
        return read()

    monkeypatch.setattr(catalogue, "_read", counted)
    found = await asyncio.gather(*(catalogue.snapshot() for _ in range(50)))
    assert len({id(snapshot) for snapshot in found}) == len(readings) == 1


@pytest.mark.django_db(transaction=True)
async def test_when_the_database_fails_the_last_known_picture_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> catalogue.Snapshot:
        raise OperationalError("gone")

    read = catalogue._read
    monkeypatch.setattr(catalogue, "_read", fail)
    with pytest.raises(OperationalError):
        await catalogue.snapshot()
    monkeypatch.setattr(catalogue, "_read", read)
    known = await catalogue.snapshot()
    monkeypatch.setattr(catalogue, "_read", fail)
    catalogue.forget()
    assert await catalogue.snapshot() is known


@pytest.mark.django_db(transaction=True)
async def test_a_database_that_hangs_does_not_stop_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    known = await catalogue.snapshot()
    go_on = threading.Event()
    read = catalogue._read

    def hang() -> catalogue.Snapshot:
        go_on.wait(60)
        return read()

    monkeypatch.setattr(catalogue, "_read", hang)
    monkeypatch.setattr(catalogue, "PATIENCE_SECONDS", 0.01)
    catalogue.forget()
    try:
        assert await catalogue.snapshot() is known
        assert await catalogue.snapshot() is known
    finally:
        go_on.set()
        assert catalogue._held.renewal is not None
        await asyncio.wrap_future(catalogue._held.renewal)


@pytest.mark.django_db
def test_a_change_during_the_reading_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    read = catalogue._read

    def read_and_change() -> catalogue.Snapshot:
        picture = read()
        LanguageModelFactory.create(name="late")
        catalogue.forget()
        return picture

    monkeypatch.setattr(catalogue, "_read", read_and_change)
    assert "late" not in catalogue.current().entries
    monkeypatch.setattr(catalogue, "_read", read)
    assert "late" in catalogue.current().entries
