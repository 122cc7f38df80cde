"""Pages of one organization's interactions: the same whichever index tells the first of them."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.tests.factories import OrganizationFactory
from chat import walking
from chat.models import Interaction
from chat.selection import Selection
from chat.tests.factories import InteractionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def two() -> tuple[list[Interaction], list[Interaction]]:
    """Rows of two organizations in turns, each organization's from the newest on."""
    acme, beta = OrganizationFactory.create(name="Acme"), OrganizationFactory.create(name="Beta")
    rows: tuple[list[Interaction], list[Interaction]] = ([], [])
    for number in range(7):
        for organization, own in ((acme, rows[0]), (beta, rows[1])):
            status = {"status": "failed", "error_code": "boom"} if number % 2 else {}
            own.insert(0, InteractionFactory.create(organization=organization, **status))
    return rows


@pytest.mark.parametrize("are_all", [True, False])
@pytest.mark.parametrize("status", [(), ("failed",)])
def test_pages_of_an_organization_follow_each_other(
    two: tuple[list[Interaction], list[Interaction]], are_all: bool, status: tuple[str, ...]
) -> None:
    own = two[0]
    expected = [row.pk for row in own if not status or row.status in status]
    chosen = Selection(organization=own[0].organization_id, status=status)
    rows = Interaction.objects.all()
    found, before = [], None
    while True:
        page = walking.page(rows, chosen, before=before, limit=2, are_all=are_all)
        found += [row.pk for row in page.rows]
        if not page.has_more:
            break
        before = page.rows[-1].pk
    assert found == expected


def test_rows_that_leave_some_out_are_asked_themselves(two: tuple[list[Interaction], list[Interaction]]) -> None:
    own = two[0]
    rows = Interaction.objects.filter(pk=own[-1].pk)
    page = walking.page(rows, Selection(organization=own[0].organization_id), limit=2)
    assert [row.pk for row in page.rows] == [own[-1].pk]


def test_who_may_not_see_an_organization_sees_none_of_its_rows(
    two: tuple[list[Interaction], list[Interaction]],
) -> None:
    own, others = two
    rows = Interaction.objects.filter(organization=own[0].organization_id)
    chosen = Selection(organization=others[0].organization_id)
    assert walking.page(rows, chosen, are_all=True).rows == []
    assert walking.page(rows, chosen, organizations=[own[0].organization_id], are_all=True).rows == []


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the plan is PostgreSQL's (remedy: --services)")
def test_what_another_organization_has_just_asked_is_not_walked_through(
    two: tuple[list[Interaction], list[Interaction]],
) -> None:
    with CaptureQueriesContext(connection) as queries:
        walking.page(Interaction.objects.all(), Selection(organization=two[0][0].organization_id), are_all=True)
    [ids, _] = [query["sql"] for query in queries if 'FROM "chat_interaction"' in query["sql"]]
    with connection.cursor() as cursor:
        # Whatever the planner thinks of so few rows: in this order only the organization's own index has them.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {ids}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "organization_id" in plan
    assert "_pkey" not in plan
