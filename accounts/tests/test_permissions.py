"""Scopes of keys, and models of plans."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from accounts.models import Plan
from accounts.permissions import check_model_allowed, is_model_allowed
from accounts.principals import PlanLimits
from accounts.tests.asking import Ask, SyncView, body, code
from accounts.tests.factories import APIKeyFactory, OrganizationFactory, PlanFactory
from accounts.tests.principals import principal
from llmchat.lib.envelope import APIError


@pytest.mark.django_db(transaction=True)
def test_key_with_the_scope_is_let_in(ask: Ask) -> None:
    key = APIKeyFactory.create(scopes=["read"])

    assert ask(scope="read", x_api_key=key.raw).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_key_without_the_scope_is_told_which_one_it_lacks(ask: Ask) -> None:
    key = APIKeyFactory.create(scopes=["chat", "read"])

    response = ask(scope="metrics", x_api_key=key.raw)

    assert code(response) == (403, "insufficient_scope")
    assert body(response)["error"]["message"] == (
        "This needs the scope 'metrics'; your key has chat, read. Use a key that has it."
    )
    assert response["WWW-Authenticate"] == 'Bearer realm="llmchat", error="insufficient_scope", scope="metrics"'


@pytest.mark.django_db(transaction=True)
def test_view_without_scope_wants_a_key_all_the_same(ask: Ask) -> None:
    key = APIKeyFactory.create(scopes=["metrics"])

    assert ask(scope=None, x_api_key=key.raw).status_code == 200
    assert code(ask(scope=None)) == (401, "missing_api_key")


@pytest.mark.django_db(transaction=True)
def test_scope_may_differ_by_action(ask: Ask) -> None:
    reader = APIKeyFactory.create(scopes=["read"])
    chatter = APIKeyFactory.create(scopes=["chat"])
    scopes = {"show": "read", "destroy": "chat"}

    assert ask(scope=scopes, x_api_key=reader.raw).status_code == 200
    assert code(ask(scope=scopes, x_api_key=chatter.raw)) == (403, "insufficient_scope")


@pytest.mark.django_db
def test_method_that_does_not_exist_is_405_with_a_key_and_401_without() -> None:
    key = APIKeyFactory.create(scopes=["chat"])
    view = SyncView.as_view({"get": "show"}, required_scope={"show": "read"})

    with_key = view(RequestFactory().delete("/", headers={"X-API-Key": key.raw})).render()
    without = view(RequestFactory().delete("/")).render()

    assert (code(with_key), code(without)) == ((405, "method_not_allowed"), (401, "missing_api_key"))


def test_plan_without_a_list_admits_every_model() -> None:
    assert is_model_allowed(principal(allowed_models=()), "anything", "any/thing")


def test_model_is_admitted_by_any_of_its_names() -> None:
    asking = principal(allowed_models=("gemini-*", "local/*"))

    assert is_model_allowed(asking, "gemini/gemini-2.0-flash", "gemini-2.0-flash")
    assert is_model_allowed(asking, "local/smollm2-135m")
    assert not is_model_allowed(asking, "gpt-4o", "openai/gpt-4o")


def test_model_outside_the_plan_is_refused_with_what_the_plan_includes() -> None:
    with pytest.raises(APIError) as refused:
        check_model_allowed(principal(allowed_models=("gemini-*", "local/*")), "gpt-4o", "openai/gpt-4o")

    error = refused.value
    assert (error.status, error.type, error.code, error.param, error.message) == (
        403,
        "permission_error",
        "model_not_allowed",
        "model",
        "The plan Free does not include the model 'gpt-4o'. It includes gemini-*, local/*.",
    )


@pytest.mark.parametrize(
    "model",
    [
        "local/smollm2-135m",
        "simulated/fast",
        "gemini-2.0-flash",
        "gemini/gemini-2.5-flash",
        "openai/gpt-4o-mini",
        "anthropic/claude-haiku-4-5",
        "openrouter/openai/gpt-4o-mini",
        "deepseek/deepseek-chat",
        "groq/llama-3.1-8b-instant",
        "together/meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ],
)
@pytest.mark.django_db
def test_free_plan_includes_what_may_become_the_default_model(model: str) -> None:
    free = PlanLimits.of(Plan.objects.get(slug="free"))

    assert is_model_allowed(principal(plan=free), model)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", "gemini-2.5-pro", "claude-opus-4-1"])
@pytest.mark.django_db
def test_free_plan_leaves_the_dear_models_out_and_the_others_do_not(model: str) -> None:
    admits = {plan.slug: is_model_allowed(principal(plan=PlanLimits.of(plan)), model) for plan in Plan.objects.all()}

    assert admits == {"free": False, "premium": True, "enterprise": True, "unlimited": True}


@pytest.mark.django_db
def test_plans_have_the_limits_of_the_price_list() -> None:
    organization = OrganizationFactory.create(plan=PlanFactory.create(slug="premium"))

    limits = list(Plan.objects.values_list("slug", "requests_per_hour", "tokens_per_day", "priority"))

    assert limits == [
        ("free", 50, 10_000, 0),
        ("premium", 500, 100_000, 10),
        ("enterprise", 5_000, 1_000_000, 20),
        ("unlimited", None, None, 30),
    ]
    assert organization.plan.requests_per_hour == 500
