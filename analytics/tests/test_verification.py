"""Verifying roll-ups: what rows do not add up to is named by period and dimensions; what is under way is no breach."""

from __future__ import annotations

import datetime as dt
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F

from accounts.models import Organization
from analytics import rolling
from analytics.models import Cell, Cube, Grain, Period
from analytics.tests.record import NOW, exchange, some_exchanges, store
from analytics.verification import SUBJECT
from chat import verification
from chat.models import Attempt, Change, Interaction
from chat.verification import Breach, Checked, Window

DAY = dt.timedelta(days=1)

pytestmark = pytest.mark.django_db


def breaches(window: Window | None = None) -> list[tuple[str, str]]:
    found = verification.verify(window or Window())
    return [(str(step.row), step.what) for step in found if isinstance(step, Breach) and step.invariant == "roll-ups"]


def cells_checked() -> int:
    steps = verification.verify(Window())
    return sum(step.rows for step in steps if isinstance(step, Checked) and step.subject == SUBJECT)


@pytest.mark.parametrize("later", [0, 0.5, 2, 20, 60], ids=lambda days: f"{days} days later")
def test_roll_ups_of_every_age_are_right(organization: Organization, later: float) -> None:
    store(some_exchanges([organization], 60, since=NOW - 50 * DAY, until=NOW, seed=1))
    rolling.roll_up(now=NOW)
    rolling.roll_up(now=NOW + later * DAY)
    assert breaches() == []
    assert cells_checked() > 60


def test_what_is_noted_and_not_rolled_up_is_no_breach(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW - 2 * DAY)])
    assert breaches() == []


def test_a_wrong_cell_is_named_by_its_period_and_dimensions(organization: Organization) -> None:
    store([exchange(organization, NOW, api_key_id=None)])
    rolling.roll_up(now=NOW + DAY)
    Cell.objects.filter(grain=Grain.HOUR, cube=Cube.ORGANIZATION).update(requests=3, cost=F("cost") + 1)
    ((row, what),) = breaches()
    assert row == "hour 2026-05-20T12:00Z"
    assert what == (
        f"organization {organization.id}, provider gemini, model gemini-2.0-flash, plan free, status succeeded, "
        "route_reason asked for: requests is 3, its rows make 1; cost is 20500001, its rows make 20500000"
    )


@pytest.mark.parametrize("grain", [Grain.DAY, Grain.MONTH])
def test_a_wrong_day_and_a_wrong_month_are_named(organization: Organization, grain: Grain) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW + 20 * DAY)
    Cell.objects.filter(grain=grain, cube=Cube.USER).update(input_tokens=1)
    start = "2026-05-20T00:00Z" if grain is Grain.DAY else "2026-05-01T00:00Z"
    assert breaches() == [
        (
            f"{grain.label.lower()} {start}",
            f"organization {organization.id}, user ana: input_tokens is 1, its rows make 25",
        )
    ]


def test_rows_that_nobody_noted_are_found(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW - 2 * DAY)])
    rolling.roll_up(now=NOW)
    store([exchange(organization, NOW), exchange(organization, NOW - 3 * DAY)])
    Change.objects.all().delete()
    assert {row for row, _ in breaches()} == {"hour 2026-05-20T12:00Z", "hour 2026-05-17T12:00Z"}


def test_rows_that_are_gone_are_found_unless_sealed(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW - 3 * DAY)])
    rolling.roll_up(now=NOW)
    rolling.seal(NOW - 3 * DAY)
    Attempt.objects.filter(started_at__lt=NOW - DAY).delete()
    Interaction.objects.filter(created_at__lt=NOW - DAY).delete()
    assert {row for row, _ in breaches()} == {"hour 2026-05-17T12:00Z", "day 2026-05-17T00:00Z"}
    rolling.seal(NOW - DAY)
    assert breaches() == []


def test_a_wrong_histogram_is_found(organization: Organization) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW)
    Cell.objects.filter(cube=Cube.EVERYTHING).update(latencies=b"\x01\x01")
    ((row, what),) = breaches()
    assert row == "hour 2026-05-20T12:00Z"
    assert what.startswith("all organizations, provider gemini, model gemini-2.0-flash")
    assert what.endswith("latencies is 1 in other buckets, its rows make 1 in other buckets")


def test_only_whole_hours_within_the_window_are_judged(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW - 2 * DAY)])
    rolling.roll_up(now=NOW)
    Cell.objects.filter(cube=Cube.EVERYTHING, grain=Grain.MINUTE).update(requests=2)
    hour = NOW.replace(minute=0, second=0)
    assert breaches(Window(since=hour + dt.timedelta(minutes=1))) == []
    assert breaches(Window(until=hour + dt.timedelta(minutes=59))) == []
    assert len(breaches(Window(since=hour, until=hour + dt.timedelta(hours=1)))) == 1


def test_cells_of_an_hour_that_is_not_listed_do_not_count(organization: Organization) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW + dt.timedelta(hours=5))
    Period.objects.all().delete()
    assert [row for row, _ in breaches()] == ["hour 2026-05-20T12:00Z"] * 6


def test_the_command_says_it(organization: Organization) -> None:
    store([exchange(organization, NOW, attempts=0, status="cancelled", cost=None)])
    rolling.roll_up(now=NOW)
    Cell.objects.filter(cube=Cube.EVERYTHING).update(requests=2)
    said = StringIO()
    with pytest.raises(CommandError, match=r"1 breach\.$"):
        call_command("verify_record", stdout=said)
    assert "roll-ups: hour 2026-05-20T12:00Z: all organizations, provider gemini" in said.getvalue()
