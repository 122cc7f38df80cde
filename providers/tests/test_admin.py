"""The catalogue in the admin: what people see there, what they can change, and what nobody can."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from providers import catalogue, services
from providers.models import LanguageModel, ModelAlias, Price
from providers.tests.factories import (
    LanguageModelFactory,
    ModelAliasFactory,
    ModelHealthFactory,
    PriceFactory,
)

pytestmark = pytest.mark.django_db

MODELS = "admin:providers_languagemodel"
PRICES = "admin:providers_price"


@pytest.fixture
def operator(admin_client: Client) -> Client:
    return admin_client


def page(client: Client, name: str, *arguments: Any, **query: str) -> str:
    response = client.get(reverse(name, args=arguments), query)
    assert response.status_code == 200
    return response.content.decode()


def names_listed(client: Client, **query: str) -> list[str]:
    response = client.get(reverse(f"{MODELS}_changelist"), query)
    return [model.name for model in response.context["cl"].result_list]


def test_a_model_shows_its_price_in_force_and_its_health(operator: Client) -> None:
    model = LanguageModelFactory.create(name="gpt-4o", provider="openai", upstream_id="gpt-4o", context_window=128_000)
    PriceFactory.create(model=model)
    PriceFactory.create(
        model=model,
        effective_from=timezone.now() - dt.timedelta(days=1),
        input_per_million=Decimal("0.15"),
        output_per_million=Decimal("0.6"),
    )
    PriceFactory.create(model=model, effective_from=timezone.now() + dt.timedelta(days=1))
    ModelHealthFactory.create(provider="openai", status="degraded", checked_at=timezone.now())
    shown = page(operator, f"{MODELS}_changelist")
    for text in ("gpt-4o", "128,000", "$0.15 / $0.6", "degraded"):
        assert text in shown
    assert "$1 / $2" not in shown


def test_models_are_found_by_provider_price_state_and_any_name(operator: Client) -> None:
    priced = PriceFactory.create(model=LanguageModelFactory.create(name="a", provider="openai")).model
    ModelAliasFactory.create(name="quick", model=priced)
    LanguageModelFactory.create(name="b", provider="openai", is_enabled=False)
    LanguageModelFactory.create(name="c", provider="groq", upstream_id="llama-3")
    assert names_listed(operator) == ["c", "a", "b"]
    assert names_listed(operator, provider="openai") == ["a", "b"]
    assert names_listed(operator, priced="yes") == ["a"]
    assert names_listed(operator, priced="no") == ["c", "b"]
    assert names_listed(operator, is_enabled__exact="0") == ["b"]
    assert names_listed(operator, q="quick") == ["a"]
    assert names_listed(operator, q="llama") == ["c"]


@pytest.mark.parametrize("name", ["languagemodel", "modelalias", "price", "modelhealth"])
def test_an_empty_list_says_what_to_do(operator: Client, name: str) -> None:
    response = operator.get(reverse(f"admin:providers_{name}_changelist"))
    hint = response.context["cl"].model_admin.empty_hint
    assert hint
    assert hint in response.content.decode()


def test_the_hint_is_gone_once_there_are_rows(operator: Client) -> None:
    LanguageModelFactory.create()
    assert "manage.py update_prices" not in page(operator, f"{MODELS}_changelist")


@pytest.mark.django_db(transaction=True)
def test_models_are_switched_off_in_the_list_and_cannot_be_named_any_more(operator: Client) -> None:
    model = LanguageModelFactory.create()
    assert [entry.name for entry in catalogue.current().listing()] == [model.name]
    response = operator.post(
        reverse(f"{MODELS}_changelist"), {"action": "switch_off", "_selected_action": [str(model.pk)]}, follow=True
    )
    assert "1 model switched off" in response.content.decode()
    assert catalogue.current().listing() == []
    assert not LanguageModel.objects.get().is_enabled


def test_a_new_model_gets_its_alias_on_the_same_page(operator: Client) -> None:
    assert "openrouter" in page(operator, f"{MODELS}_add")
    response = operator.post(
        reverse(f"{MODELS}_add"),
        {
            "name": "best",
            "provider": "openrouter",
            "upstream_id": "acme/best-1",
            "is_enabled": "on",
            "aliases-TOTAL_FORMS": "1",
            "aliases-INITIAL_FORMS": "0",
            "aliases-0-name": "top",
            "prices-TOTAL_FORMS": "0",
            "prices-INITIAL_FORMS": "0",
        },
    )
    assert response.status_code == 302, response.context["errors"]
    model = LanguageModel.objects.get()
    assert (model.name, model.provider, model.upstream_id) == ("best", "openrouter", "acme/best-1")
    assert [str(alias) for alias in ModelAlias.objects.all()] == ["top → best"]


def test_what_prices_are_about_cannot_be_exchanged_beneath_them(operator: Client) -> None:
    model = LanguageModelFactory.create(provider="openai", upstream_id="gpt-4o")
    response = operator.get(reverse(f"{MODELS}_change", args=[model.pk]))
    assert not {"provider", "upstream_id"} & set(response.context["adminform"].form.fields)


def test_a_new_price_is_set_from_the_models_page(operator: Client) -> None:
    model = LanguageModelFactory.create()
    response = operator.get(f"{reverse(f'{MODELS}_changelist')}{model.pk}/price/")
    assert response.status_code == 302, response
    assert response["Location"] == f"{reverse(f'{PRICES}_add')}?model={model.pk}"
    response = operator.post(
        reverse(f"{PRICES}_add"),
        {
            "model": str(model.pk),
            "effective_from_0": f"{timezone.now():%Y-%m-%d}",
            "effective_from_1": f"{timezone.now():%H:%M:%S}",
            "input_per_million": "0.15",
            "output_per_million": "0.6",
        },
    )
    assert response.status_code == 302, response.context["errors"]
    price = Price.objects.get()
    assert (price.model, price.input_per_million, price.cached_input_per_million, price.source) == (
        model,
        Decimal("0.15"),
        None,
        services.MANUAL,
    )


def test_a_price_in_force_is_neither_changed_nor_deleted_and_a_planned_one_is_withdrawn(operator: Client) -> None:
    in_force = PriceFactory.create()
    planned = PriceFactory.create(model=in_force.model, effective_from=timezone.now() + dt.timedelta(days=1))
    assert operator.post(reverse(f"{PRICES}_change", args=[in_force.pk]), {"input_per_million": "9"}).status_code == 403
    assert operator.post(reverse(f"{PRICES}_delete", args=[in_force.pk]), {"post": "yes"}).status_code == 403
    assert operator.post(reverse(f"{PRICES}_delete", args=[planned.pk]), {"post": "yes"}).status_code == 302
    assert list(Price.objects.all()) == [in_force]
    assert "planned" not in page(operator, f"{PRICES}_changelist")
    assert "in force" in page(operator, f"{PRICES}_changelist")


def test_the_history_of_prices_stands_on_the_models_page(operator: Client) -> None:
    price = PriceFactory.create(input_per_million=Decimal("7.25"))
    assert "$7.25" in page(operator, f"{MODELS}_change", price.model_id)


def test_a_model_with_prices_stays(operator: Client) -> None:
    model = PriceFactory.create().model
    response = operator.post(reverse(f"{MODELS}_delete", args=[model.pk]), {"post": "yes"})
    assert response.status_code in {200, 403}
    assert LanguageModel.objects.filter(pk=model.pk).exists()


def test_health_is_read_only(operator: Client) -> None:
    health = ModelHealthFactory.create(checked_at=timezone.now(), average_response_ms=1234.5, error_rate=0.25)
    shown = page(operator, "admin:providers_modelhealth_changelist")
    assert "1,234 ms" in shown
    assert "25.0%" in shown
    assert "the provider as a whole" in shown
    page(operator, "admin:providers_modelhealth_change", health.pk)
    assert operator.get(reverse("admin:providers_modelhealth_add")).status_code == 403
    assert operator.post(reverse("admin:providers_modelhealth_change", args=[health.pk]), {}).status_code == 403


def test_staff_see_and_change_what_their_permissions_say(client: Client) -> None:
    user = get_user_model().objects.create_user(username="clerk", is_staff=True)
    client.force_login(user)
    changelist = reverse(f"{MODELS}_changelist")
    assert client.get(changelist).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_languagemodel"))
    model = LanguageModelFactory.create()
    assert client.get(changelist).status_code == 200
    client.post(changelist, {"action": "switch_off", "_selected_action": [str(model.pk)]})
    assert client.get(f"{changelist}{model.pk}/price/").status_code == 403
    assert LanguageModel.objects.get().is_enabled
