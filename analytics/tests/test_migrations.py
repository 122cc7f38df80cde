"""What migrations do to roll-ups that are there already."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory
from analytics import rolling
from analytics.models import Cell, Cube, Dimensions
from analytics.tests.record import NOW, some_exchanges, store
from analytics.tests.test_rolling import DAY

pytestmark = pytest.mark.django_db

ADDED = (Cube.TOTAL, Cube.OVERVIEW, Cube.TENANT, Cube.KEY)


def cells() -> list[tuple[Any, ...]]:
    columns = [field.attname for field in Cell._meta.concrete_fields]
    rows = Cell.objects.filter(cube__in=ADDED).values_list(*columns)
    return sorted(tuple(bytes(each) if isinstance(each, memoryview) else each for each in row) for row in rows)


def dimensions() -> list[dict[str, Any]]:
    return [dict(row) for row in Dimensions.objects.filter(cube__in=ADDED).order_by("id").values()]


def test_cells_with_fewer_dimensions_are_added_up_as_rolling_up_makes_them(organization: Organization) -> None:
    migration = import_module("analytics.migrations.0004_fewer_dimensions")
    others = OrganizationFactory.create(name="Beta")
    store(some_exchanges([organization, others], 60, since=NOW - 3 * DAY, until=NOW, seed=4))
    rolling.roll_up(now=NOW)
    wanted, known = cells(), dimensions()
    assert len(wanted) > 20
    migration.remove(apps, None)
    assert (cells(), dimensions()) == ([], [])
    migration.add_up(apps, None)
    assert cells() == wanted
    assert dimensions() == known
    # Begun again after it broke off, it adds nothing twice.
    migration.add_up(apps, None)
    assert cells() == wanted
