"""`/v1/models`: what this key may ask, and how it has been lately."""

import pytest
from django.utils import timezone

from chat import tasks
from chat.tests.factories import AttemptFactory, InteractionFactory
from providers import catalogue
from providers.models import ModelHealth
from providers.tests.factories import LanguageModelFactory, PriceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def get(client):
    def get(person, path):
        return client.get(path, headers=person.headers)

    return get


def test_models_are_openais_with_our_extras(owner, get):
    model = LanguageModelFactory.create(
        name="simulated/ok", provider="simulated", upstream_id="ok", context_window=1000, max_output_tokens=100
    )
    PriceFactory.create(model=model, input_per_million="0.5", output_per_million="1.25")
    catalogue.forget()
    assert get(owner, "/v1/models").json() == {
        "object": "list",
        "data": [
            {
                "id": "simulated/ok",
                "object": "model",
                "created": int(model.created_at.timestamp()),
                "owned_by": "simulated",
                "context_window": 1000,
                "max_output_tokens": 100,
                "pricing": {"input_per_million": "0.500000", "output_per_million": "1.250000"},
            }
        ],
    }
    assert get(owner, "/v1/models/simulated/ok").json()["id"] == "simulated/ok"


def test_a_model_without_a_price_has_none(owner, get):
    LanguageModelFactory.create(name="simulated/ok", provider="simulated", upstream_id="ok")
    catalogue.forget()
    assert get(owner, "/v1/models/simulated/ok").json()["pricing"] is None


def test_models_that_cannot_be_used_are_not_listed(owner, get):
    LanguageModelFactory.create(name="gpt-4o", provider="openai", upstream_id="gpt-4o")
    LanguageModelFactory.create(name="simulated/ok", provider="simulated", upstream_id="ok", is_enabled=False)
    catalogue.forget()
    assert get(owner, "/v1/models").json()["data"] == []


def test_models_outside_the_plan_do_not_exist(owner, get):
    LanguageModelFactory.create(name="simulated/ok", provider="simulated", upstream_id="ok")
    catalogue.forget()
    owner.organization.plan.allowed_models = ["local/*"]
    owner.organization.plan.save()
    assert get(owner, "/v1/models").json()["data"] == []
    for path in ("/v1/models/simulated/ok", "/v1/models/simulated/ok/status"):
        response = get(owner, path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_an_unknown_model_names_near_ones(owner, get):
    response = get(owner, "/v1/models/simulated/eco")
    assert response.status_code == 404
    assert "simulated/echo" in response.json()["error"]["message"]


def test_a_model_never_checked_is_unknown(owner, get):
    assert get(owner, "/v1/models/simulated/ok/status").json() == {
        "model": "simulated/ok",
        "provider": "simulated",
        "status": "unknown",
        "averageResponseMs": None,
        "errorRate": None,
        "attempts": 0,
        "lastCheck": None,
    }


def test_the_periodic_task_joins_probe_and_record(owner, get):
    row = InteractionFactory.create(organization=owner.organization, attempt=None)
    good = {"provider": "simulated", "model": "ok", "status": "succeeded", "latency_ms": 100.0, "upstream_status": None}
    AttemptFactory.create(interaction=row, number=1, **good)
    AttemptFactory.create(interaction=row, number=2, **{**good, "latency_ms": 300.0})
    AttemptFactory.create(interaction=row, number=3, **{**good, "status": "failed", "upstream_status": 503})
    AttemptFactory.create(interaction=row, number=4, **{**good, "status": "failed", "upstream_status": 400})
    AttemptFactory.create(interaction=row, number=5, **{**good, "status": "cancelled"})
    before = timezone.now()
    tasks.refresh_health()
    status = get(owner, "/v1/models/simulated/ok/status").json()
    assert (status["averageResponseMs"], status["attempts"], status["status"]) == (200.0, 3, "degraded")
    assert status["errorRate"] == pytest.approx(1 / 3)
    assert ModelHealth.objects.get(provider="simulated", upstream_id="ok").checked_at >= before
