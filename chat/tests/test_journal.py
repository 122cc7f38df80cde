"""The journal: what is written is read back, whatever was torn, killed, full or foreign."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import UUID

import pytest

from chat import journal
from chat.journal import Journal, JournalError, JournalFull, Record
from llmchat.lib.uuid7 import uuid7

ROOM = 10 * 1024 * 1024


def records(path: Path) -> tuple[list[Record], list[str]]:
    """All records of the journal at `path` and all complaints."""
    complaints: list[str] = []
    read = [journal.read(segment, on_damage=complaints.append) for segment in journal.segments(path)]
    return [record for segment in read for record in segment], complaints


@pytest.fixture
def written(tmp_path: Path) -> Journal:
    return Journal(tmp_path, max_bytes=ROOM)


def test_what_is_written_is_read_back_in_order(written: Journal) -> None:
    one, two = uuid7(), uuid7()
    written.begin(one, {"prompt": "Grüße\n😀"})
    written.begin(two, {})
    written.attempt(one, {"number": 2})
    place = written.end(one, {"response": "x" * 100_000})
    found, complaints = records(written.path)
    assert [(record.kind, record.exchange, record.facts) for record in found] == [
        ("B", one, {"prompt": "Grüße\n😀"}),
        ("B", two, {}),
        ("A", one, {"number": 2}),
        ("E", one, {"response": "x" * 100_000}),
    ]
    assert complaints == []
    assert journal.fetch(place) == found[-1]
    assert written.size == sum(file.stat().st_size for file in journal.segments(written.path))


def test_a_torn_last_record_costs_only_itself_and_is_no_damage(
    written: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    kept = uuid7()
    written.begin(kept, {"a": 1})
    written.begin(uuid7(), {"b": 2})
    [segment] = journal.segments(written.path)
    os.truncate(segment, segment.stat().st_size - 3)
    found, complaints = records(written.path)
    assert ([record.exchange for record in found], complaints) == ([kept], [])
    assert "torn record" in caplog.text


@pytest.mark.parametrize("damage", [b"\x00" * 5, b"X", b"\xff\xfe\n"])
def test_a_damaged_record_in_the_middle_costs_only_itself(written: Journal, damage: bytes) -> None:
    ids = [uuid7() for _ in range(3)]
    for identifier in ids:
        written.begin(identifier, {"text": "some text that is long enough"})
    [segment] = journal.segments(written.path)
    raw = bytearray(segment.read_bytes())
    middle = raw.index(b"\n") + 60
    raw[middle : middle + len(damage)] = damage
    segment.write_bytes(raw)
    found, complaints = records(written.path)
    assert [record.exchange for record in found] == [ids[0], ids[2]]
    assert complaints


def test_foreign_files_are_not_segments(written: Journal) -> None:
    (written.path / "notes.txt").write_text("hello")
    written.begin(uuid7(), {})
    assert [file.name for file in journal.segments(written.path)] == ["00000001.journal"]


def test_segments_go_once_all_in_them_is_settled(written: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2000)
    ids = [uuid7() for _ in range(10)]
    for identifier in ids:
        written.begin(identifier, {"text": "x" * 900})
    assert len(journal.segments(written.path)) > 2
    written.settle(ids[:5])
    remaining = {record.exchange for record in records(written.path)[0]}
    assert set(ids[5:]) <= remaining
    assert not remaining & set(ids[:3])
    assert written.unsettled == 5
    written.settle(ids)
    assert written.unsettled == 0
    assert written.size == sum(file.stat().st_size for file in journal.segments(written.path))


def test_an_exchange_that_ends_in_a_later_segment_keeps_both(written: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    one, two = uuid7(), uuid7()
    written.begin(one, {"text": "x" * 990})
    written.begin(two, {"text": "x" * 990})
    written.end(one, {})
    written.settle([two])
    assert [(record.kind, record.exchange) for record in records(written.path)[0]] == [("B", one), ("E", one)]


def test_the_bound_refuses_new_ones_and_lets_running_ones_end(tmp_path: Path) -> None:
    small = Journal(tmp_path, max_bytes=3 * journal.END_RESERVE)
    running = uuid7()
    small.begin(running, {"text": "x" * 1000})
    small.begin(uuid7(), {"text": "x" * 1000})
    with pytest.raises(JournalFull, match=f"of {3 * journal.END_RESERVE} bytes"):
        small.begin(uuid7(), {"text": "x" * 1000})
    small.end(running, {"text": "x" * journal.END_RESERVE})
    assert records(small.path)[0][-1].exchange == running


def test_room_comes_back_with_settling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    small = Journal(tmp_path, max_bytes=3 * journal.END_RESERVE)
    for _ in range(200):
        identifier = uuid7()
        small.begin(identifier, {"text": "x" * 1000})
        small.settle([identifier])
    assert small.size <= 3 * journal.END_RESERVE


def test_a_full_disk_leaves_no_half_record(written: Journal) -> None:
    kept = uuid7()
    written.begin(kept, {})
    limit = journal.segments(written.path)[0].stat().st_size + 100
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(JournalFull):
            written.begin(uuid7(), {"text": "x" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    after = uuid7()
    written.begin(after, {})
    found, complaints = records(written.path)
    assert ([record.exchange for record in found], complaints) == ([kept, after], [])


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be made"):
        Journal(tmp_path / "file", max_bytes=ROOM)


def test_a_living_process_keeps_its_journal_and_a_dead_ones_can_be_claimed_once(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from uuid import UUID
        from chat.journal import Journal
        journal = Journal(Path(sys.argv[1]), max_bytes=10**7)
        journal.begin(UUID(int=1), {"prompt": "written, never synced"})
        print(journal.path, flush=True)
        time.sleep(60)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    path = Path(child.stdout.readline().strip())
    assert journal.lock(path) is None
    child.kill()
    child.wait()
    child.stdout.close()
    claimed = journal.lock(path)
    assert claimed is not None
    assert journal.lock(path) is None
    assert [record.exchange for record in records(path)[0]] == [UUID(int=1)]
    os.close(claimed)


def _being_made_in(directory: Path, *, then: str) -> subprocess.Popen[str]:
    """A process that is about to give its journal the name by which others know it, and does `then` instead."""
    program = textwrap.dedent(
        f"""
        import os, signal, sys, time
        from pathlib import Path
        from chat.journal import Journal
        def rename(path, target):
            print("born", flush=True)
            {then}
        Path.rename = rename
        Journal(Path(sys.argv[1]), max_bytes=10**7)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "born\n"
    return child


def test_nothing_is_left_of_a_process_that_was_killed_while_it_made_its_journal(tmp_path: Path) -> None:
    with _being_made_in(tmp_path, then="os.kill(os.getpid(), signal.SIGKILL)") as child:
        child.wait()
    assert len(list(tmp_path.iterdir())) == 1
    journal.remove_stillborn(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    with _being_made_in(tmp_path, then="time.sleep(60)") as child:
        journal.remove_stillborn(tmp_path)
        assert [path.name for path in tmp_path.glob("*/*")] == ["owner.lock"]
        child.kill()


def test_hidden_files_of_others_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / ".snapshot").mkdir()
    journal.remove_stillborn(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".snapshot"]


def test_nothing_is_left_of_a_settled_journal(written: Journal) -> None:
    identifier = uuid7()
    written.begin(identifier, {})
    written.settle([identifier])
    written.close()
    assert not written.path.exists()


def test_what_is_not_settled_stays_behind(written: Journal) -> None:
    identifier = uuid7()
    written.begin(identifier, {})
    written.close()
    assert [record.exchange for record in records(written.path)[0]] == [identifier]


def test_files_are_private(written: Journal) -> None:
    written.begin(uuid7(), {})
    assert oct(written.path.stat().st_mode)[-3:] == "700"
    assert {oct(file.stat().st_mode)[-3:] for file in written.path.iterdir()} == {"600"}


def test_sync_returns_when_all_is_synced(written: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    written.begin(uuid7(), {})
    written.sync()
    written.sync()
    assert len(synced) == 1
