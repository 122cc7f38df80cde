"""Every way to show a key, and every reason to refuse one; the same on the event loop and beside it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import AsyncRequestFactory
from django.utils import timezone
from pytest_django import Settings

from accounts import services
from accounts.models import APIKey, Organization
from accounts.tests.asking import Ask, AsyncView, body, code
from accounts.tests.factories import APIKeyFactory, OrganizationFactory
from accounts.tests.fixtures import Person
from llmchat.lib import request_id
from llmchat.lib.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def test_bearer_key_speaks_for_its_organization(ask: Ask, owner: Person) -> None:
    response = ask(authorization=f"Bearer {owner.raw}")

    assert (response.status_code, body(response)) == (
        200,
        {
            "organization": "Acme",
            "key": "owner",
            "plan": "unlimited",
            "user": "Acme",
            "is_authenticated": True,
            "is_staff": False,
        },
    )


def test_x_api_key_is_as_good(ask: Ask, owner: Person) -> None:
    assert body(ask(x_api_key=owner.raw))["organization"] == "Acme"


@pytest.mark.parametrize("header", ["bearer {}", "BEARER  {}", " Bearer {} "])
def test_bearer_is_read_generously(ask: Ask, owner: Person, header: str) -> None:
    assert ask(authorization=header.format(owner.raw)).status_code == 200


def test_the_same_key_in_both_headers_is_fine(ask: Ask, owner: Person) -> None:
    assert ask(authorization=f"Bearer {owner.raw}", x_api_key=owner.raw).status_code == 200


def test_different_keys_in_the_two_headers_are_refused(ask: Ask, owner: Person, stranger: Person) -> None:
    response = ask(authorization=f"Bearer {owner.raw}", x_api_key=stranger.raw)

    assert code(response) == (400, "conflicting_api_keys")


def test_each_key_speaks_for_its_own_organization(ask: Ask, owner: Person, stranger: Person) -> None:
    asked = [body(ask(x_api_key=raw))["organization"] for raw in (owner.raw, stranger.raw, owner.raw)]

    assert asked == ["Acme", "Umbrella", "Acme"]


def test_request_without_key_is_told_how_to_send_one(ask: Ask) -> None:
    request_id.begin("request-1")

    response = ask()

    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Bearer realm="llmchat"'
    assert body(response) == {
        "error": {
            "message": (
                "No API key was sent. Send one in the header 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
            ),
            "type": "authentication_error",
            "code": "missing_api_key",
            "param": None,
            "request_id": "request-1",
        }
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer one two"},
        {"authorization": "Basic dXNlcjpwYXNzd29yZA=="},
        {"authorization": "llmc_0000000000000000000000000000000000000000000"},
        {"x_api_key": ""},
        {"x_api_key": "one two"},
    ],
)
def test_malformed_header_is_refused(ask: Ask, headers: dict[str, str]) -> None:
    response = ask(**headers)

    assert code(response) == (401, "malformed_api_key")
    assert response["WWW-Authenticate"] == 'Bearer realm="llmchat", error="invalid_token"'


@pytest.mark.parametrize(
    "raw",
    [
        "llmc_" + "x" * 43,
        "llmc_" + "x" * 42,
        "sk-something-of-another-vendor",
        "llmc_" + "x" * 100_000,
        "llmc_\xe4\xf6\xfc\x80" + "x" * 39,
        "' OR 1=1 --".replace(" ", "\t"),
        "{{7*7}}",
    ],
)
def test_unknown_key_is_refused(ask: Ask, owner: Person, raw: str) -> None:
    response = ask(x_api_key="".join(raw.split()))

    assert code(response) == (401, "invalid_api_key")
    assert raw not in response.content.decode()  # type: ignore[attr-defined]


def test_key_is_compared_whole(ask: Ask, owner: Person) -> None:
    last = "0" if owner.raw[-1] != "0" else "1"

    assert code(ask(x_api_key=owner.raw[:-1] + last)) == (401, "invalid_api_key")
    assert code(ask(x_api_key=owner.raw.upper())) == (401, "invalid_api_key")
    assert code(ask(x_api_key=owner.raw[:12])) == (401, "invalid_api_key")


def test_expired_key_is_refused(ask: Ask) -> None:
    key = APIKeyFactory.create(expires_at=timezone.now() - timedelta(seconds=1))

    assert code(ask(x_api_key=key.raw)) == (401, "api_key_expired")


def test_key_expires_in_time_although_it_is_cached(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    end = timezone.now() + timedelta(hours=1)
    key = APIKeyFactory.create(expires_at=end)
    assert ask(x_api_key=key.raw).status_code == 200

    monkeypatch.setattr("accounts.authentication.timezone.now", lambda: end)

    assert code(ask(x_api_key=key.raw)) == (401, "api_key_expired")


def test_revoked_key_is_refused_at_once(ask: Ask, owner: Person) -> None:
    assert ask(x_api_key=owner.raw).status_code == 200

    services.revoke_api_key(owner.key)

    assert code(ask(x_api_key=owner.raw)) == (401, "api_key_revoked")


def test_key_of_a_switched_off_organization_is_refused_but_not_as_a_wrong_one(ask: Ask) -> None:
    key = APIKeyFactory.create(organization=OrganizationFactory.create(is_active=False))

    assert code(ask(x_api_key=key.raw)) == (403, "organization_inactive")


def test_request_without_key_speaks_for_the_public_where_no_key_is_required(ask: Ask, settings: Settings) -> None:
    settings.REQUIRE_API_KEY = False

    first, second = ask(), ask()

    expected = {
        "organization": "public",
        "key": "",
        "plan": "free",
        "user": "public",
        "is_authenticated": True,
        "is_staff": False,
    }
    assert [body(first), body(second)] == [expected, expected]
    assert Organization.objects.filter(name="public").count() == 1


def test_wrong_key_is_refused_even_where_none_is_required(ask: Ask, settings: Settings, owner: Person) -> None:
    settings.REQUIRE_API_KEY = False

    assert code(ask(x_api_key="llmc_" + "x" * 43)) == (401, "invalid_api_key")
    assert body(ask(x_api_key=owner.raw))["organization"] == "Acme"


def test_public_organization_that_is_switched_off_requires_keys_again(ask: Ask, settings: Settings) -> None:
    settings.REQUIRE_API_KEY = False
    OrganizationFactory.create(name="public", is_active=False)

    assert code(ask()) == (401, "missing_api_key")


async def test_known_key_is_not_looked_up_again(owner: Person) -> None:
    view = AsyncView.as_view({"get": "show"})
    assert (await view(AsyncRequestFactory().get("/", headers=owner.headers))).status_code == 200

    await in_thread(APIKey.objects.all().delete)

    assert (await view(AsyncRequestFactory().get("/", headers=owner.headers))).status_code == 200
