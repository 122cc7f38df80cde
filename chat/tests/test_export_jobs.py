"""Exports as jobs: each made once by whoever is free, gone on with after a death, ended by erasure, time and people."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.tests.factories import OrganizationFactory, UserFactory
from audit.models import Action, Entry
from chat import erasure, tasks
from chat.exports import copying, files, jobs, reading
from chat.models import Export
from chat.selection import Selection, SelectionError
from chat.tests.factories import InteractionFactory
from llmchat.lib.tables import Format

pytestmark = pytest.mark.django_db(transaction=True)

State = Export.State


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.EXPORTS_DIR = tmp_path / "exports"
    return tmp_path / "exports"


def asked(selection: Selection | None = None, **options: Any) -> Export:
    given = {"redact": False, "organizations": None, "owner": None, **options}
    owner = given.pop("owner") or UserFactory.create()
    return jobs.ask_for(owner, selection or Selection(), given.pop("form", Format.JSONL), **given)


def ids(export: Export) -> list[str]:
    return [json.loads(line)["id"] for line in jobs.path_of(export).read_text().splitlines()]


@pytest.mark.parametrize("form", Format)
def test_a_job_makes_the_file_and_says_how_long_it_stays(form: Format, folder: Path):
    rows = [InteractionFactory.create() for _ in range(3)]
    export = asked(form=form)
    assert (export.state, export.rows) == (State.QUEUED, 0)
    assert jobs.opened(export) is None
    assert jobs.work()
    export.refresh_from_db()
    assert (export.state, export.rows, export.progress, export.error) == (State.DONE, 3, 1.0, "")
    assert export.bytes == jobs.path_of(export).stat().st_size > 0
    assert dt.timedelta(hours=23) < export.expires_at - timezone.now() < dt.timedelta(hours=24)
    assert [path.name for path in folder.iterdir()] == [f"{export.pk}.{form.value}"]
    if form is Format.JSONL:
        assert ids(export) == [str(row.id) for row in rows]
    assert not jobs.work()


def test_the_audit_trail_says_who_exported_what():
    asked(Selection(user="ana"))
    entry = Entry.objects.get(action=Action.EXPORTED)
    assert entry.details["user"] == "ana"


def test_an_export_holds_the_organizations_of_its_beginning_and_nothing_accepted_later():
    ours, theirs = InteractionFactory.create(), InteractionFactory.create()
    export = asked(organizations=[ours.organization_id])
    foreign = asked(Selection(organization=theirs.organization_id), organizations=[ours.organization_id])
    InteractionFactory.create(organization=ours.organization, age=dt.timedelta(seconds=-5))
    assert jobs.work()
    assert jobs.work()
    assert ids(export) == [str(ours.id)]
    assert ids(foreign) == []


def test_a_turn_is_short_and_the_next_worker_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "PAGE", 2)
    rows = [InteractionFactory.create() for _ in range(5)]
    export = asked()
    assert jobs.work(seconds=0)
    export.refresh_from_db()
    assert (export.state, export.rows, export.worker) == (State.QUEUED, 2, None)
    assert 0 < export.progress < 1
    assert jobs.work(seconds=0)
    assert jobs.work(seconds=0)
    export.refresh_from_db()
    assert (export.state, export.rows) == (State.DONE, 5)
    assert ids(export) == [str(row.id) for row in rows]


def test_the_task_asks_for_the_next_turn_while_there_is_any(monkeypatch: pytest.MonkeyPatch):
    asked()
    asked()
    turns: list[None] = []
    monkeypatch.setattr(tasks.work_on_exports, "delay", lambda: turns.append(None))
    tasks.work_on_exports()
    assert len(turns) == 1
    tasks.work_on_exports()
    assert len(turns) == 1
    assert set(Export.objects.values_list("state", flat=True)) == {State.DONE}


def test_what_a_dead_worker_left_is_gone_on_with_when_its_lease_is_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "PAGE", 2)
    rows = [InteractionFactory.create() for _ in range(5)]
    export = asked()
    jobs.work(seconds=0)
    Export.objects.filter(pk=export.pk).update(state=State.RUNNING, worker=export.pk)
    assert not jobs.work()
    Export.objects.filter(pk=export.pk).update(beat_at=timezone.now() - dt.timedelta(seconds=jobs.LEASE + 1))
    assert jobs.work()
    assert ids(export) == [str(row.id) for row in rows]


def test_what_was_left_half_is_begun_anew_when_the_disk_lost_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "PAGE", 2)
    rows = [InteractionFactory.create() for _ in range(3)]
    export = asked()
    jobs.work(seconds=0)
    files.part_path(jobs.path_of(export)).unlink()
    jobs.work()
    assert ids(export) == [str(row.id) for row in rows]


def test_two_workers_at_once_make_one_file_each_and_none_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_at_work", _Always())
    InteractionFactory.create()
    exports = [asked() for _ in range(4)]
    claimed: list[Any] = []
    real = jobs._work_on

    def work_on(export: Export, *, until: float) -> None:
        claimed.append(export.pk)
        real(export, until=until)

    monkeypatch.setattr(jobs, "_work_on", work_on)
    start = threading.Barrier(2)

    def work() -> None:
        try:
            start.wait()
            while jobs.work():
                pass
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(claimed) == sorted(export.pk for export in exports)
    assert set(Export.objects.values_list("state", flat=True)) == {State.DONE}


class _Always:
    """A lock that two threads of a test may hold as two processes would."""

    def acquire(self, *, blocking: bool) -> bool:
        return True

    def release(self) -> None:
        pass


def test_a_cancelled_export_stops_at_the_next_page_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "PAGE", 1)
    monkeypatch.setattr(jobs, "_BEAT", 0.0)
    for _ in range(3):
        InteractionFactory.create()
    export = asked()
    real = copying.Extent.done

    def done(self: copying.Extent, moment: dt.datetime | None) -> float:
        jobs.cancel(export)
        return real(self, moment)

    monkeypatch.setattr(copying.Extent, "done", done)
    jobs.work()
    export.refresh_from_db()
    assert export.state == State.CANCELLED
    assert not jobs.path_of(export).exists()
    assert not jobs.cancel(export)
    jobs.expire()
    assert not jobs.work()


def test_a_person_has_a_limited_number_of_them(settings: Any):
    settings.EXPORTS_PER_PERSON = 2
    owner = UserFactory.create()
    first, _ = asked(owner=owner), asked(owner=owner)
    with pytest.raises(jobs.Refused, match="You have 2 exports already"):
        asked(owner=owner)
    asked()
    jobs.cancel(first)
    asked(owner=owner)


def test_a_file_has_a_limited_size(settings: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "PAGE", 1)
    monkeypatch.setattr(copying, "SAVE_SECONDS", 0.0)
    settings.EXPORT_MAX_BYTES = 1024
    for _ in range(4):
        InteractionFactory.create(prompt="x" * 1000)
    export = asked()
    jobs.work()
    export.refresh_from_db()
    assert export.state == State.FAILED
    assert export.error.startswith("It is larger than 1,024 bytes. Select less")
    assert list(folder.iterdir()) == []


def test_a_disk_that_is_full_is_said_in_words(monkeypatch: pytest.MonkeyPatch):
    InteractionFactory.create()
    export = asked()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Partial, "write", full)
    jobs.work()
    export.refresh_from_db()
    assert (export.state, export.error) == (
        State.FAILED,
        "The server's disk is full. Tell your operator, then ask again.",
    )


def test_a_fault_of_ours_ends_an_export_and_a_database_that_is_away_does_not(monkeypatch: pytest.MonkeyPatch):
    """The first would come again at each try; after the second somebody goes on."""
    InteractionFactory.create()
    export = asked()
    fault: Exception = OperationalError("the connection is lost")

    def raises(*_: Any) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(files.Partial, "write", raises)
        with pytest.raises(OperationalError):
            jobs.work()
        broken.setattr(jobs, "LEASE", -1.0)
        assert jobs.is_waiting()
        fault = ValueError("year 10000 is out of range")
        jobs.work()
        assert not jobs.is_waiting()
    export.refresh_from_db()
    assert export.state == State.FAILED
    assert "the server's log says which" in export.error


def test_a_selection_that_begins_in_the_future_is_refused():
    with pytest.raises(SelectionError):
        asked(Selection(since=timezone.now() + dt.timedelta(days=1)))
    assert not Export.objects.exists()


def test_files_go_when_their_time_is_over_and_those_of_nobody_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    kept, old = asked(), asked()
    jobs.work()
    jobs.work()
    (folder / "stray.csv").write_text("x")
    monkeypatch.setattr(jobs, "LEASE", -1.0)
    Export.objects.filter(pk=old.pk).update(expires_at=timezone.now())
    assert jobs.expire() == 1
    assert [path.name for path in folder.iterdir()] == [f"{kept.pk}.jsonl"]
    old.refresh_from_db()
    assert (old.state, jobs.opened(old)) == (State.EXPIRED, None)


# --- Erasure ----------------------------------------------------------------------------------------------------------
def test_erasing_a_person_removes_the_files_that_may_hold_them_and_tells_why():
    row = InteractionFactory.create(user_id="ana")
    here, elsewhere = row.organization, OrganizationFactory.create()
    owner = UserFactory.create()
    holding = [
        asked(),
        asked(organizations=[here.pk, elsewhere.pk], owner=owner),
        asked(Selection(user="ana", organization=here.pk), owner=owner),
    ]
    others = [
        asked(organizations=[elsewhere.pk]),
        asked(Selection(user="bo")),
        asked(Selection(organization=elsewhere.pk)),
        asked(redact=True),
    ]
    while jobs.work():
        pass
    holding.append(asked())
    told = erasure.erase_person(here, "ana", by="test", dry_run=True)
    assert [export.pk for export in told.exports] == [export.pk for export in holding]
    assert all(jobs.path_of(export).exists() for export in holding[:3])
    done = erasure.erase_person(here, "ana", by="test")
    assert [export.pk for export in done.exports] == [export.pk for export in holding]
    for export in holding:
        export.refresh_from_db()
        assert export.state == State.FAILED
        assert export.error.startswith(f"ana of {here} was erased")
        assert not jobs.path_of(export).exists()
    for export in others:
        export.refresh_from_db()
        assert export.state == State.DONE
        assert jobs.path_of(export).exists()
