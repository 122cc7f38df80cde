"""The people of every app's tests: `owner` and `member` of one organization, and a `stranger` from another.

A pytest plugin, named in the top-level conftest.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from accounts.key_cache import KEYS
from accounts.models import APIKey, Membership, Organization, User
from accounts.tests.factories import APIKeyFactory, MembershipFactory, OrganizationFactory, create_plans


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the staff with a role in an organization, and a key that speaks for it."""

    user: User
    organization: Organization
    key: APIKey
    raw: str

    @property
    def headers(self) -> dict[str, str]:
        """For HTTP clients, Django's test clients included (`client.get(path, headers=person.headers)`)."""
        return {"Authorization": f"Bearer {self.raw}"}


def person(organization: Organization, role: str) -> Person:
    """A new person with that role and a key of that organization."""
    membership = MembershipFactory.create(organization=organization, role=role)
    key = APIKeyFactory.create(organization=organization, name=role, created_by=membership.user)
    return Person(user=membership.user, organization=organization, key=key, raw=key.raw)


@pytest.fixture(autouse=True)
def no_cached_keys() -> None:
    """What one test's keys were never reaches the next."""
    KEYS.forget()
    KEYS.database_recovered()


@pytest.fixture(autouse=True)
def plans(request: pytest.FixtureRequest, _django_db_marker: None) -> None:
    """Tests that truncate the tables take the migration's plans with them."""
    asked = [name for name in ("transactional_db", "db") if name in request.fixturenames]
    if asked:
        request.getfixturevalue(asked[0])
    if asked or request.node.get_closest_marker("django_db"):
        create_plans()


@pytest.fixture
def owner(db: None) -> Person:
    return person(OrganizationFactory.create(name="Acme"), Membership.Role.OWNER)


@pytest.fixture
def member(owner: Person) -> Person:
    return person(owner.organization, Membership.Role.MEMBER)


@pytest.fixture
def stranger(db: None) -> Person:
    return person(OrganizationFactory.create(name="Umbrella"), Membership.Role.OWNER)
