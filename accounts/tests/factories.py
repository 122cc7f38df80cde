"""Rows of accounts, made for tests."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from django.contrib.auth.hashers import make_password
from factory.declarations import LazyAttribute, LazyFunction, Sequence, SubFactory
from factory.django import DjangoModelFactory

from accounts.models import APIKey, Membership, Organization, Plan, User
from accounts.services import PREFIX_LENGTH, digest_of

PASSWORD = "correct horse battery staple"

#: The plans as the migration makes them; tests that truncate the tables need them again.
PLANS: dict[str, dict[str, Any]] = importlib.import_module("accounts.migrations.0002_plans").PLANS


def create_plans() -> None:
    """Puts back those of the migration's plans that are missing."""
    Plan.objects.bulk_create([Plan(slug=slug, **values) for slug, values in PLANS.items()], ignore_conflicts=True)


class PlanFactory(DjangoModelFactory[Plan]):
    """`PlanFactory(slug="premium")` gives the plan that exists; another slug makes a plan without limits."""

    slug = "unlimited"
    name = LazyAttribute(lambda plan: plan.slug.capitalize())

    class Meta:
        model = Plan
        django_get_or_create = ("slug",)


class OrganizationFactory(DjangoModelFactory[Organization]):
    name = Sequence(lambda number: f"Organization {number}")
    plan = SubFactory(PlanFactory)

    class Meta:
        model = Organization


@functools.cache
def _password_hash() -> str:
    # Slow on purpose: once is enough.
    return make_password(PASSWORD)


class UserFactory(DjangoModelFactory[User]):
    """A person of the staff, who may log in with `PASSWORD`."""

    username = Sequence(lambda number: f"person{number}")
    email = LazyAttribute(lambda user: f"{user.username}@example.com")
    is_staff = True
    password = LazyFunction(_password_hash)

    class Meta:
        model = User


class MembershipFactory(DjangoModelFactory[Membership]):
    user = SubFactory(UserFactory)
    organization = SubFactory(OrganizationFactory)
    role = Membership.Role.MEMBER

    class Meta:
        model = Membership


class APIKeyFactory(DjangoModelFactory[Any]):
    """A key whose raw form the test may know: `APIKeyFactory().raw`. Real rows never carry it."""

    organization = SubFactory(OrganizationFactory)
    name = "test"
    scopes = LazyFunction(lambda: ["chat", "read"])
    raw = Sequence(lambda number: f"llmc_{number:043d}")

    class Meta:
        model = APIKey

    @classmethod
    def _create(cls, model_class: type[APIKey], *args: Any, raw: str, **kwargs: Any) -> Any:
        kwargs |= {"prefix": raw[:PREFIX_LENGTH], "digest": digest_of(raw)}
        key = super()._create(model_class, *args, **kwargs)
        key.raw = raw
        return key
