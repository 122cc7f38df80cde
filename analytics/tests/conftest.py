"""Organizations whose rows are rolled up."""

from __future__ import annotations

import pytest

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory


@pytest.fixture
def organization(db: None) -> Organization:
    return OrganizationFactory.create(name="Acme")
