"""How the record lies on PostgreSQL: months ahead, a place for every row, and the way from one table to partitions."""

from __future__ import annotations

import datetime as dt
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts.tests.factories import OrganizationFactory
from chat import partitions, rotation, tasks
from chat.encryption import ring
from chat.models import Attempt, Interaction
from chat.rows import ExchangeRows, store
from chat.tests.factories import AttemptFactory, InteractionFactory, id_at
from llmchat.lib.uuid7 import floor_at

pytestmark = pytest.mark.django_db

NOW = timezone.now()
migration: Any = import_module("chat.migrations.0006_partitions")


@pytest.fixture
def _partitioned() -> None:
    if not partitions.is_partitioned():
        pytest.skip("SQLite keeps one table (remedy: --services)")


def interaction(**fields: Any) -> Interaction:
    return InteractionFactory.create(**fields)


def names(table: str) -> list[str]:
    return [partition.name for partition in partitions.partitions(table)]


def rows_in(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


def test_sqlite_has_nothing_to_do() -> None:
    if partitions.is_partitioned():
        pytest.skip("on PostgreSQL there is something to do")
    assert partitions.make() == []


@pytest.mark.usefixtures("_partitioned")
class TestPartitions:
    def test_this_month_and_two_ahead_are_there_after_migrating(self) -> None:
        for table in partitions.TABLES:
            bounds = partitions.partitions(table)
            assert bounds[-1].until >= floor_at(NOW + dt.timedelta(days=56))
            assert any(partition.since <= floor_at(NOW) < partition.until for partition in bounds)

    def test_bounds_are_months_in_utc(self) -> None:
        partitions.make(dt.datetime(2031, 2, 28, 23, 59, tzinfo=dt.UTC))
        found = {partition.name: partition for partition in partitions.partitions("chat_attempt")}
        assert found["chat_attempt_2031_02"].since == floor_at(dt.datetime(2031, 2, 1, tzinfo=dt.UTC))
        assert found["chat_attempt_2031_02"].until == floor_at(dt.datetime(2031, 3, 1, tzinfo=dt.UTC))
        assert found["chat_attempt_2031_04"].until == floor_at(dt.datetime(2031, 5, 1, tzinfo=dt.UTC))

    def test_making_them_again_changes_nothing(self) -> None:
        partitions.make()
        before = names("chat_interaction")
        tasks.make_partitions()
        assert names("chat_interaction") == before

    def test_a_row_of_a_clock_that_is_ahead_is_stored_and_later_moved(self) -> None:
        row = interaction(age=-dt.timedelta(days=400))
        assert rows_in("chat_interaction_default") == rows_in("chat_attempt_default") == 1
        made = partitions.make()
        month = f"{row.created_at:%Y_%m}"
        assert made == [f"chat_interaction_{month}", f"chat_attempt_{month}"]
        assert rows_in("chat_interaction_default") == rows_in("chat_attempt_default") == 0
        assert rows_in(f"chat_interaction_{month}") == rows_in(f"chat_attempt_{month}") == 1
        assert Interaction.objects.get(id=row.id).attempts.count() == 1

    def test_rows_of_impossible_years_stay_where_they_are(self) -> None:
        interaction(id=id_at(dt.datetime(2150, 1, 1, tzinfo=dt.UTC)))
        interaction(id=UUID(int=4 << 76), created_at=NOW)
        assert partitions.make() == []
        assert rows_in("chat_interaction_default") == 2

    def test_attempts_lie_with_their_interaction_whatever_their_own_moment(self) -> None:
        partitions.make(dt.datetime(2031, 1, 31, tzinfo=dt.UTC))
        midnight = dt.datetime(2031, 2, 1, tzinfo=dt.UTC)
        row = interaction(id=id_at(midnight - dt.timedelta(seconds=1)), attempt=None)
        AttemptFactory(id=id_at(midnight + dt.timedelta(seconds=1)), interaction=row)
        assert rows_in("chat_interaction_2031_01") == rows_in("chat_attempt_2031_01") == 1

    def test_storing_twice_stores_once(self) -> None:
        row = InteractionFactory.build(organization=OrganizationFactory.create())
        attempts = [AttemptFactory.build(interaction=row)]
        for _ in range(2):
            store([ExchangeRows(interaction=row, attempts=attempts)])
        assert Interaction.objects.filter(id=row.id).count() == Attempt.objects.filter(interaction=row).count() == 1

    def test_what_no_column_takes_is_refused_in_every_partition(self) -> None:
        for age in (0, -400):
            with pytest.raises(IntegrityError), transaction.atomic():
                interaction(age=dt.timedelta(days=age), input_tokens=-1)
        partitions.make(dt.datetime(2031, 1, 15, tzinfo=dt.UTC))
        with pytest.raises(IntegrityError), transaction.atomic():
            interaction(id=id_at(dt.datetime(2031, 1, 15, tzinfo=dt.UTC)), input_tokens=-1)

    def test_dropping_takes_interactions_and_attempts_of_the_month(self) -> None:
        partitions.make(dt.datetime(2031, 1, 15, tzinfo=dt.UTC))
        row = interaction(id=id_at(dt.datetime(2031, 1, 15, tzinfo=dt.UTC)))
        kept = interaction()
        january = next(
            partition for partition in partitions.partitions("chat_interaction") if partition.name.endswith("2031_01")
        )
        partitions.drop(january)
        assert not Interaction.objects.filter(id=row.id).exists()
        assert not Attempt.objects.filter(interaction_id=row.id).exists()
        assert kept.attempts.count() == 1

    def test_a_query_with_bounds_reads_the_partitions_within_them_only(self) -> None:
        partitions.make(dt.datetime(2031, 1, 15, tzinfo=dt.UTC))
        january, february = (floor_at(dt.datetime(2031, month, 1, tzinfo=dt.UTC)) for month in (1, 2))
        plan = Interaction.objects.filter(id__gte=january, id__lt=february).explain()
        assert "chat_interaction_2031_01" in plan
        assert plan.count("chat_interaction_2") == plan.count("chat_interaction_2031_01")

    def test_rows_of_before_stay_in_their_table_and_are_found(self) -> None:
        rows = [interaction(age=dt.timedelta(days=days)) for days in (0, 40, 400)]
        ahead = interaction(age=-dt.timedelta(days=100))
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        # The migration by itself: what later ones did to other tables is not at stake.
        with connection.schema_editor() as editor:
            migration.unpartition(apps, editor)
        assert not names("chat_interaction")
        assert partitions.make() == []
        assert set(Interaction.objects.all()) == {*rows, ahead}
        with connection.schema_editor() as editor:
            migration.partition(apps, editor)
        assert rows_in("chat_interaction_before") == rows_in("chat_attempt_before") == 3
        assert rows_in("chat_interaction_default") == rows_in("chat_attempt_default") == 1
        assert set(Interaction.objects.all()) == {*rows, ahead}
        assert {attempt.interaction_id for attempt in Attempt.objects.all()} == {row.id for row in [*rows, ahead]}
        partitions.make()
        assert rows_in("chat_interaction_default") == 0
        assert names("chat_interaction")[0] == "chat_interaction_before"
        # The month in which it happened has its place in the table of before.
        assert f"chat_interaction_{NOW:%Y_%m}" not in names("chat_interaction")
        interaction()
        assert rows_in("chat_interaction_before") == 4


def test_every_attempt_is_rekeyed_though_it_has_no_index_by_its_own_id(settings) -> None:
    first, second = interaction(attempt=None), interaction(attempt=None)
    for number in range(1, rotation.BATCH + 3):
        AttemptFactory(interaction=first, number=number, failed=True)
    AttemptFactory(interaction=second, failed=True)
    settings.TEXT_ENCRYPTION_KEYS = (b"k" * 32,)
    assert [step.changed for step in rotation.rekey(Attempt, opening=ring())] == [rotation.BATCH, 3]
    assert list(rotation.rekey(Attempt, opening=ring())) == []


def test_migrations_are_in_step() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
