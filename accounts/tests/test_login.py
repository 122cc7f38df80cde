"""The admin's log-in and its limit by address."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.login import ATTEMPTS
from accounts.tests.factories import PASSWORD, UserFactory
from llmchat.tests.servers import free_port

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def within_one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: 1_750_000_000.0)


def attempt(client: Client, password: str, address: str = "203.0.113.7") -> int:
    form = {"username": "ada", "password": password, "next": "/admin/"}
    return client.post(LOGIN, form, REMOTE_ADDR=address).status_code


def test_right_password_logs_in() -> None:
    UserFactory.create(username="ada")

    assert attempt(Client(), PASSWORD) == 302


def test_too_many_attempts_are_refused_even_with_the_right_password_and_only_there() -> None:
    UserFactory.create(username="ada")

    assert [attempt(Client(), "guess") for _ in range(ATTEMPTS)] == [200] * ATTEMPTS
    refusal = Client().post(LOGIN, {"username": "ada", "password": PASSWORD}, REMOTE_ADDR="203.0.113.7")

    assert refusal.status_code == 429
    assert "Too many attempts to log in from this address." in refusal.content.decode()
    assert 1 <= int(refusal["Retry-After"]) <= 60
    assert attempt(Client(), PASSWORD, address="203.0.113.8") == 302


def test_looking_at_the_form_does_not_count() -> None:
    UserFactory.create(username="ada")

    assert {Client().get(LOGIN, REMOTE_ADDR="203.0.113.7").status_code for _ in range(ATTEMPTS + 1)} == {200}
    assert attempt(Client(), PASSWORD) == 302


def test_log_in_is_closed_while_attempts_cannot_be_counted(settings: Settings) -> None:
    UserFactory.create(username="ada")
    settings.CACHES = {
        "default": {
            "BACKEND": "llmchat.lib.caches.SharedRedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}",
        }
    }

    assert attempt(Client(), PASSWORD) == 503


def test_pages_of_the_admin_send_those_who_are_not_logged_in_to_the_form() -> None:
    response = Client().get("/admin/accounts/apikey/")

    assert (response.status_code, response["Location"]) == (302, f"{LOGIN}?next=/admin/accounts/apikey/")
