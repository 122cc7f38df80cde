"""What is done to keys and organizations, below commands and admin."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import services
from accounts.models import APIKey, Organization, Plan
from accounts.services import RAW_KEY, create_api_key, create_organization, revoke_api_key, rotate_api_key
from accounts.tests.asking import ask_sync
from accounts.tests.factories import APIKeyFactory, OrganizationFactory
from accounts.tests.fixtures import Person

pytestmark = pytest.mark.django_db


def test_raw_key_has_256_bits_and_only_its_prefix_and_hash_are_stored() -> None:
    key, raw = create_api_key(OrganizationFactory.create())

    assert RAW_KEY.fullmatch(raw)
    stored = APIKey.objects.values("prefix", "digest").get()
    assert stored == {"prefix": raw[:12], "digest": hashlib.sha256(raw.encode()).hexdigest()}
    assert [value for value in APIKey.objects.values_list().get() if raw[12:] in str(value)] == []
    assert key.status() == "active"


def test_no_two_keys_are_alike() -> None:
    organization = OrganizationFactory.create()

    assert len({create_api_key(organization)[1] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "wrong",
    [{"scopes": []}, {"scopes": ["admin"]}, {"budget_usd": Decimal(-1)}, {"name": ""}, {"name": "x" * 129}],
)
def test_key_that_makes_no_sense_is_not_created(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        create_api_key(OrganizationFactory.create(), **wrong)

    assert not APIKey.objects.exists()


def test_revoking_again_changes_nothing(owner: Person) -> None:
    revoke_api_key(owner.key)
    first = owner.key.revoked_at

    revoke_api_key(owner.key)

    assert first is not None
    assert owner.key.revoked_at == first


def test_rotation_keeps_rights_and_length_of_life() -> None:
    now = timezone.now()
    key = APIKeyFactory.create(
        scopes=["read"],
        budget_usd=Decimal("7.00"),
        created_at=now - timedelta(days=80),
        expires_at=now + timedelta(days=10),
    )

    successor, _ = rotate_api_key(key, grace=timedelta(hours=2))

    assert (successor.name, successor.scopes, successor.budget_usd) == (key.name, ["read"], Decimal("7.00"))
    assert successor.expires_at is not None
    assert round((successor.expires_at - now) / timedelta(days=1)) == 90
    assert round((key.expires_at - now) / timedelta(hours=1)) == 2


def test_rotation_never_prolongs_the_old_key() -> None:
    end = timezone.now() + timedelta(minutes=5)
    key = APIKeyFactory.create(expires_at=end)

    rotate_api_key(key, grace=timedelta(days=1))

    key.refresh_from_db()
    assert key.expires_at == end


def test_revoked_key_is_not_rotated(owner: Person) -> None:
    revoke_api_key(owner.key)

    with pytest.raises(ValidationError, match="Create a new one instead"):
        rotate_api_key(owner.key)


@pytest.mark.django_db(transaction=True)
def test_revocation_that_is_rolled_back_never_was(owner: Person) -> None:
    def revoke_and_fail() -> None:
        with transaction.atomic():
            revoke_api_key(owner.key)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        revoke_and_fail()

    assert ask_sync(x_api_key=owner.raw).status_code == 200


def test_organization_s_name_is_taken_once() -> None:
    plan = Plan.objects.get(slug="free")
    create_organization(" Acme ", plan=plan)

    with pytest.raises(ValidationError, match="already exists"):
        create_organization("Acme", plan=plan)
    assert list(Organization.objects.values_list("name", flat=True)) == ["Acme"]


def test_public_organization_is_made_once() -> None:
    assert services.public_organization() == services.public_organization()


def test_usable_keys_are_those_that_authenticate(owner: Person) -> None:
    now = timezone.now()
    for values in (
        {"expires_at": now},
        {"revoked_at": now},
        {"organization": OrganizationFactory.create(is_active=False)},
    ):
        APIKeyFactory.create(**values)
    later = APIKeyFactory.create(expires_at=now + timedelta(days=1))

    assert set(APIKey.objects.usable()) == {owner.key, later}


@pytest.mark.parametrize("patterns", ["gemini-*", {"a": 1}, [1], [""]])
def test_plan_takes_only_lists_of_patterns(patterns: Any) -> None:
    with pytest.raises(ValidationError):
        Plan(slug="custom", name="Custom", allowed_models=patterns).full_clean()


def test_system_checks_have_nothing_to_say_of_us() -> None:
    ours = [
        message
        for message in run_checks()
        if (message.id or "").startswith(("accounts", "django_ratelimit", "admin")) and not message.is_silenced()
    ]

    assert ours == []
