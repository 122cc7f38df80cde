"""Rolling up: which cells there are when, and that nothing which comes in between is missed or counted twice."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Organization
from analytics import reading, rolling, rows, tasks, verification
from analytics.models import Cell, Cube, Grain, Period, RollUpState
from analytics.questions import Question
from analytics.tests.record import NOW, added_up, exchange, some_exchanges, store
from chat import changes, retention
from chat.models import Change, Conversation, Interaction
from chat.rows import ExchangeRows
from chat.services import delete_conversation
from chat.verification import Checked, Window
from llmchat.lib.uuid7 import moment_of

DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)

pytestmark = pytest.mark.django_db


def grains() -> set[Grain]:
    return {Grain(grain) for grain in Cell.objects.values_list("grain", flat=True)}


def listed(grain: Grain) -> list[dt.datetime]:
    return list(Period.objects.filter(grain=grain).order_by("start").values_list("start", flat=True))


def requests(cube: Cube = Cube.EVERYTHING, **only: Any) -> int:
    return sum(Cell.objects.filter(cube=cube, **only).values_list("requests", flat=True))


def test_a_row_and_the_note_of_its_minute_are_stored_together(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW + MINUTE), exchange(organization, NOW)])
    minute = NOW.replace(second=0)
    assert list(Change.objects.order_by("minute").values_list("minute", flat=True)) == [minute, minute + MINUTE]


def test_a_batch_leaves_one_note_for_each_of_its_minutes(organization: Organization) -> None:
    batch = some_exchanges([organization], 50, since=NOW - HOUR, until=NOW, seed=1)
    store(batch)
    minutes = {moment_of(rows.id).replace(second=0, microsecond=0) for rows in batch}
    assert len(minutes) < len(batch)
    assert sorted(Change.objects.values_list("minute", flat=True)) == sorted(minutes)


def test_a_fresh_row_is_in_its_minutes_cells_alone(organization: Organization) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW)
    assert not Change.objects.exists()
    assert grains() == {Grain.MINUTE}
    assert {cube: requests(cube) for cube in Cube} == dict.fromkeys(Cube, 1)


def test_an_hour_is_closed_three_hours_after_its_end(organization: Organization) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW)
    end = NOW.replace(hour=13, minute=0, second=0)
    rolling.roll_up(now=end + rolling.OPEN - MINUTE)
    assert grains() == {Grain.MINUTE}
    rolling.roll_up(now=end + rolling.OPEN)
    assert grains() == {Grain.HOUR}
    assert listed(Grain.HOUR) == [end - HOUR]


def test_days_and_months_are_closed_in_their_turn_and_old_hours_go(organization: Organization) -> None:
    store([exchange(organization, NOW), exchange(organization, NOW - 3 * DAY)])
    rolling.roll_up(now=NOW + DAY)
    assert grains() == {Grain.HOUR, Grain.DAY}
    # Nobody asks for users by the hour.
    assert requests(Cube.USER, grain=Grain.HOUR) == 0
    assert requests(Cube.USER, grain=Grain.DAY) == 2
    rolling.roll_up(now=NOW + 15 * DAY)
    assert grains() == {Grain.HOUR, Grain.DAY, Grain.MONTH}
    assert listed(Grain.MONTH) == [dt.datetime(2026, 5, 1, tzinfo=dt.UTC)]
    rolling.roll_up(now=NOW + 60 * DAY)
    assert grains() == {Grain.DAY, Grain.MONTH}
    assert requests(grain=Grain.MONTH) == requests(grain=Grain.DAY) == 2


def test_a_row_that_comes_late_is_in_hour_day_and_month(organization: Organization) -> None:
    store([exchange(organization, NOW)])
    rolling.roll_up(now=NOW + 15 * DAY)
    store([exchange(organization, NOW - HOUR)])
    rolling.roll_up(now=NOW + 15 * DAY)
    assert {grain: requests(grain=grain) for grain in grains()} == {Grain.HOUR: 2, Grain.DAY: 2, Grain.MONTH: 2}


def test_a_row_that_is_replayed_is_counted_once(organization: Organization) -> None:
    once = exchange(organization, NOW)
    for _ in range(3):
        store([once])
        rolling.roll_up(now=NOW)
    assert requests() == 1


def test_a_row_that_is_priced_later_is_counted_at_its_price(organization: Organization) -> None:
    unpriced = exchange(organization, NOW, cost=None)
    store([unpriced])
    rolling.roll_up(now=NOW + DAY)
    Interaction.objects.update(cost="0.25")
    changes.note([unpriced.id])
    rolling.roll_up(now=NOW + DAY)
    cell = Cell.objects.get(grain=Grain.DAY, cube=Cube.EVERYTHING)
    assert (cell.cost, cell.priced, cell.unpriced) == (25 * 10**10, 1, 0)


def test_a_row_whose_texts_are_erased_stays_counted(organization: Organization) -> None:
    conversation = Conversation.objects.create(organization=organization, user_id="ana")
    kept = exchange(organization, NOW)
    kept.interaction.conversation = conversation
    store([kept])
    rolling.roll_up(now=NOW)
    delete_conversation(conversation)
    rolling.roll_up(now=NOW + DAY)
    assert requests(grain=Grain.DAY) == 1
    assert rows.every_cube(NOW - MINUTE, NOW + MINUTE) == added_up([kept])


def test_a_change_that_comes_while_its_minute_is_read_waits_for_the_next_round(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = exchange(organization, NOW), exchange(organization, NOW)
    store([first])
    real = rows.every_cube

    def slow(since: dt.datetime, until: dt.datetime) -> Any:
        table = real(since, until)
        store([second])
        return table

    monkeypatch.setattr(rows, "every_cube", slow)
    rolling.roll_up(now=NOW)
    monkeypatch.undo()
    assert requests() == 1
    assert Change.objects.count() == 1
    rolling.roll_up(now=NOW)
    assert requests() == 2


def test_who_has_lost_the_turn_writes_nothing(organization: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process rolls up the same minute, with a row more, while this one still holds what it read before."""
    first, second = exchange(organization, NOW), exchange(organization, NOW)
    store([first])
    real = rows.every_cube

    def overtaken(since: dt.datetime, until: dt.datetime) -> Any:
        old = real(since, until)
        monkeypatch.setattr(rows, "every_cube", real)
        store([second])
        rolling.roll_up(now=NOW)
        return old

    monkeypatch.setattr(rows, "every_cube", overtaken)
    rolling.roll_up(now=NOW)
    assert requests() == 2
    assert not Change.objects.exists()


def test_a_round_that_has_no_more_time_leaves_the_rest_noted(organization: Organization) -> None:
    store(some_exchanges([organization], 30, since=NOW - 20 * DAY, until=NOW, seed=3))
    assert rolling.roll_up(now=NOW, seconds=0).left > 0
    assert not Cell.objects.exists()
    assert not RollUpState.objects.filter(whole_until__isnull=False).exists()
    began = timezone.now()
    rolling.roll_up(now=NOW)
    whole_until = RollUpState.objects.get().whole_until
    assert whole_until is not None
    assert began <= whole_until <= timezone.now()


def test_sealed_days_keep_their_numbers_when_their_rows_go(organization: Organization) -> None:
    store([exchange(organization, NOW - 3 * DAY), exchange(organization, NOW)])
    with pytest.raises(ValueError, match="not rolled up yet"):
        rolling.seal(NOW - DAY)
    rolling.roll_up(now=NOW)
    assert rolling.seal(NOW - DAY) == dt.datetime(2026, 5, 19, tzinfo=dt.UTC)
    Interaction.objects.filter(created_at__lt=NOW - DAY).delete()
    rolling.rebuild(now=NOW)
    rolling.roll_up(now=NOW)
    assert requests(grain=Grain.DAY) == 1
    assert requests(grain=Grain.MINUTE) == 1


def test_what_retention_removed_stays_rolled_up(organization: Organization) -> None:
    now = _fresh(organization).interaction.created_at
    store([exchange(organization, now - 9 * DAY), exchange(organization, now)])
    rolling.roll_up(now=now)
    organization.plan.retention_days = 7
    organization.plan.save()
    assert sum(removal.interactions for removal in retention.apply()) == 1
    rolling.rebuild(now=now)
    rolling.roll_up(now=now)
    assert requests(grain=Grain.DAY) == 1
    assert requests(grain=Grain.MINUTE) == 1
    assert list(verification.roll_ups(Window())) == [Checked("roll-ups", len(Cube))]


def test_retention_waits_until_what_it_would_remove_is_rolled_up(
    organization: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    now = _fresh(organization).interaction.created_at
    store([exchange(organization, now - 12 * DAY)])
    rolling.roll_up(now=now)
    store([exchange(organization, now - 9 * DAY), exchange(organization, now)])
    organization.plan.retention_days = 7
    organization.plan.save()
    assert sum(removal.interactions for removal in retention.apply()) == 1
    assert f"Exchanges from {(now - 9 * DAY).date()} on stay until they are rolled up" in caplog.text
    rolling.roll_up(now=now)
    assert sum(removal.interactions for removal in retention.apply()) == 1
    rolling.roll_up(now=now)
    assert requests(grain=Grain.DAY) == 2
    assert list(verification.roll_ups(Window())) == [Checked("roll-ups", len(Cube))]


def test_retention_waits_for_a_change_on_the_day_that_it_would_seal(organization: Organization) -> None:
    now = _fresh(organization).interaction.created_at
    kept = exchange(organization, now - 7 * DAY + MINUTE)
    store([exchange(organization, now - 7 * DAY - MINUTE), kept])
    rolling.roll_up(now=now)
    changes.note([kept.id])
    organization.plan.retention_days = 7
    organization.plan.save()
    list(retention.apply())
    rolling.roll_up(now=now)
    assert not Change.objects.exists()
    assert requests(Cube.TOTAL, grain=Grain.DAY) == 2


def test_retention_says_what_waits_for_roll_ups(organization: Organization, capsys: pytest.CaptureFixture[str]) -> None:
    now = _fresh(organization).interaction.created_at
    store([exchange(organization, now - 9 * DAY)])
    organization.plan.retention_days = 7
    organization.plan.save()
    call_command("apply_retention", dry_run=True)
    assert f"Exchanges from {(now - 9 * DAY).date()} on stay" in capsys.readouterr().out


def test_a_row_for_a_sealed_day_is_said_and_not_counted(
    organization: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    rolling.seal(NOW)
    store([exchange(organization, NOW - 2 * DAY)])
    rolling.roll_up(now=NOW)
    assert "came after that time was sealed" in caplog.text
    assert not Change.objects.exists()
    assert not Cell.objects.exists()


def test_rebuilding_mends_what_somebody_broke(organization: Organization) -> None:
    batch = some_exchanges([organization], 20, since=NOW - 2 * DAY, until=NOW, seed=5)
    store(batch)
    rolling.roll_up(now=NOW)
    whole = set(Cell.objects.values_list("grain", "start", "dimensions_id", "requests", "cost"))
    Cell.objects.update(requests=7)
    Cell.objects.filter(cube=Cube.USER).delete()
    rolling.rebuild(now=NOW)
    rolling.roll_up(now=NOW)
    assert set(Cell.objects.values_list("grain", "start", "dimensions_id", "requests", "cost")) == whole


def test_the_task_and_the_command_do_the_same(organization: Organization, capsys: pytest.CaptureFixture[str]) -> None:
    store([_fresh(organization)])
    tasks.roll_up()
    assert requests() == 1
    store([_fresh(organization)])
    call_command("roll_up")
    assert capsys.readouterr().out.startswith("Rolled up: 1 minute, 0 hours")
    assert requests() == 2
    call_command("roll_up", "--rebuild", "--since", "2026-01-01", "--seal", "2026-01-02T10:00")
    assert "Sealed: what is rolled up of before 2026-01-02T00:00:00+00:00" in capsys.readouterr().out
    with pytest.raises(CommandError, match="--since goes with --rebuild"):
        call_command("roll_up", "--since", "2026-01-01")


def test_rows_of_before_there_were_roll_ups_are_noted_in_bulk(organization: Organization) -> None:
    batch = some_exchanges([organization], 40, since=NOW - 2 * DAY, until=NOW, seed=6)
    store(batch)
    Change.objects.all().delete()
    changes.note_range(NOW - 2 * DAY, NOW + MINUTE, now=NOW)
    # By the hour up to six hours ago, then by the minute.
    assert Change.objects.count() == 43 + 6 * 60 + 31
    rolling.roll_up(now=NOW)
    assert not Change.objects.exists()
    question = Question(organization_id=None, since=NOW - 4 * DAY, until=NOW + MINUTE)
    assert reading.answer(question, now=NOW)[0].groups[(None,)].requests == 40


def _fresh(organization: Organization) -> ExchangeRows:
    now = dt.datetime.now(dt.UTC)
    return exchange(organization, now.replace(microsecond=0))
