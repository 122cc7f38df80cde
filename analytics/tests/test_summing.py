"""Cells added up by hand-written statements are what the ORM makes of the same cells."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db.models import Q, Sum

from accounts.tests.factories import OrganizationFactory
from analytics import cells, rolling, summing
from analytics.models import Cell, Cube, Grain
from analytics.summing import Wanted
from analytics.tests.record import NOW, some_exchanges, store
from analytics.totals import COUNTERS

HOUR = dt.timedelta(hours=1)
SPANS = [
    (Grain.HOUR, [(NOW - 40 * HOUR, NOW - 20 * HOUR), (NOW - 12 * HOUR, NOW - 6 * HOUR)]),
    (Grain.DAY, [(NOW - 240 * HOUR, NOW - 60 * HOUR)]),
]


@pytest.fixture
def organizations() -> list[Any]:
    """Two, with rolled-up requests of ten days."""
    found = [OrganizationFactory(name="A"), OrganizationFactory(name="B")]
    store(some_exchanges(found, 300, since=NOW - 240 * HOUR, until=NOW - HOUR, seed=7))
    rolling.roll_up(now=NOW)
    return found


def by_the_orm(wanted: Wanted, columns: list[str]) -> dict[tuple[Any, ...], list[int]]:
    within = Q()
    for grain, ranges in wanted.spans:
        for since, until in ranges:
            within |= Q(grain=grain, start__gte=since, start__lt=until)
    found = Cell.objects.filter(within, cube=wanted.cube, **cells.that_are(wanted.only)).order_by()
    if wanted.organization_id is not None:
        found = found.filter(organization_id=wanted.organization_id)
    names = [name if name in {"start", "dimensions_id"} else cells.column(name) for name in columns]
    # A constant first: without any column there is one group, too.
    grouped = found.values_list("cube", *names).annotate(*(Sum(name) for name in COUNTERS))
    groups = {line[1 : 1 + len(names)]: [int(value) for value in line[1 + len(names) :]] for line in grouped}
    assert groups, "there is nothing to compare"
    return groups


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("cube", "columns", "only"),
    [
        (Cube.TOTAL, [], {}),
        (Cube.TOTAL, ["start"], {}),
        (Cube.OVERVIEW, ["start", "status", "cached"], {}),
        (Cube.OVERVIEW, ["provider"], {"cached": False}),
        (Cube.EVERYTHING, ["model", "provider", "error_code", "status"], {"status": ["failed", "succeeded"]}),
        (Cube.TENANT, ["organization_id", "status"], {"organization_id": "both"}),
        (Cube.KEY, ["organization_id", "api_key_id"], {"api_key_id": None}),
        (Cube.USER, ["dimensions_id"], {}),
        (Cube.USER, ["organization_id", "user_id"], {"organization_id": "first"}),
        (Cube.ORGANIZATION, ["start", "route_reason", "plan"], {}),
    ],
)
@pytest.mark.parametrize("are_many", [False, True])
def test_sums_are_those_of_the_orm(
    organizations: list[Any], cube: Cube, columns: list[str], only: dict[str, Any], are_many: bool
) -> None:
    ids = [each.id for each in organizations]
    named = {"both": [*ids, None], "first": ids[0]}
    only = {name: named[value] if name == "organization_id" else value for name, value in only.items()}
    wanted = Wanted(cube=cube, spans=SPANS, organization_id=None, only=only)
    found = dict(summing.sums(wanted, columns, are_many=are_many))
    told = {values: [getattr(totals, name) for name in COUNTERS] for values, totals in found.items()}
    assert told == by_the_orm(wanted, columns)


@pytest.mark.django_db
def test_one_organization_has_what_is_its_own(organizations: list[Any]) -> None:
    for organization in organizations:
        wanted = Wanted(cube=Cube.TENANT, spans=SPANS, organization_id=organization.id, only={})
        found = {
            values: [getattr(totals, name) for name in COUNTERS] for values, totals in summing.sums(wanted, ["status"])
        }
        assert found == by_the_orm(wanted, ["status"])


@pytest.mark.django_db
def test_nothing_is_one_of_no_values(organizations: list[Any]) -> None:
    for nobody in ([], [None]):
        wanted = Wanted(cube=Cube.OVERVIEW, spans=SPANS, organization_id=None, only={"model": nobody})
        assert list(summing.sums(wanted, [])) == []


@pytest.mark.django_db
@pytest.mark.parametrize("hostile", ["model; DROP TABLE analytics_cell", "d.model", "nothing"])
def test_what_is_no_dimension_gets_into_no_statement(hostile: str) -> None:
    wanted = Wanted(cube=Cube.OVERVIEW, spans=SPANS, organization_id=None, only={})
    with pytest.raises(KeyError):
        list(summing.sums(wanted, [hostile]))
    with pytest.raises(KeyError):
        list(summing.sums(Wanted(cube=wanted.cube, spans=SPANS, organization_id=None, only={hostile: "x"}), []))
