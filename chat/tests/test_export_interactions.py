"""`manage.py export_interactions`: the same rows in every format, by every filter, with and without texts; and what
becomes of it when something is in its way."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import secrets
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import CommandError, call_command

from accounts.tests.factories import OrganizationFactory
from chat.exports import copying, files, reading
from chat.fields import PLACEHOLDER
from chat.management import selecting
from chat.models import Interaction
from chat.selection import NAMES, Selection
from chat.tests.factories import InteractionFactory
from llmchat.lib import tables
from llmchat.lib.tables import Format
from llmchat.lib.uuid7 import uuid7
from llmchat.tests.environment import Services
from llmchat.tests.furnished import Migrated
from llmchat.tests.servers import PROJECT, LiveServer
from llmchat.tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

FORMATS = [form.value for form in Format]

HOSTILE = [
    'quotes "and", commas',
    "lines\nand\r\nmore",
    "=HYPERLINK(1)",
    "'-1",
    "naïve 😀 数\u2028",
    "enc1:not really",
    "x" * 1_000_000,
]


def export(path: Path, form: str, **options: Any) -> str:
    told = io.StringIO()
    call_command("export_interactions", output=str(path), format=form, stderr=told, **options)
    return told.getvalue()


def read_back(path: Path) -> list[dict[str, Any]]:
    """The rows as DuckDB reads them, all as texts."""
    match path.suffix:
        case ".csv":
            source = (
                f"read_csv('{path}', header=true, all_varchar=true, quote='\"', escape='\"', max_line_size=4000000)"
            )
        case ".jsonl":
            with path.open() as lines:
                names = list(json.loads(next(lines)))
            types = dict.fromkeys(names, "VARCHAR")
            source = f"read_json('{path}', maximum_object_size=4000000, columns={types})"
        case _:
            source = f"read_parquet('{path}')"
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {source}")
        names = [one[0] for one in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    if path.suffix == ".csv" and "prompt" in names:
        for row in rows:
            row["prompt"] = tables.restored(row.get("prompt") or "")
    return rows


@pytest.mark.parametrize("form", FORMATS)
def test_another_tool_reads_every_row_whatever_its_texts(form: str, tmp_path: Path):
    rows = [
        InteractionFactory.create(prompt=text, metadata={"note": text[:100]}, user_id=f"user {number}")
        for number, text in enumerate(HOSTILE)
    ]
    rows.append(InteractionFactory.create(failed=True, user_id="last"))
    path = tmp_path / f"rows.{form}"
    export(path, form)
    found = read_back(path)
    assert [row["id"] for row in found] == [str(row.id) for row in rows]
    assert [row["prompt"] for row in found] == [row.prompt for row in rows]
    assert [row["user_id"] for row in found] == [row.user_id for row in rows]
    assert [row["organization"] for row in found] == [row.organization.name for row in rows]
    assert [json.loads(row["metadata"]) for row in found] == [row.metadata for row in rows]
    first, last = found[0], found[-1]
    assert first["cost"] == f"{rows[0].cost:.12f}"
    assert int(first["input_tokens"]) == rows[0].input_tokens
    assert float(first["latency_ms"]) == rows[0].latency_ms
    assert first["streamed"] == "false"
    assert first["organization_id"] == str(rows[0].organization_id)
    moment = dt.datetime.fromisoformat(first["created_at"])
    assert moment.replace(tzinfo=dt.UTC) == rows[0].created_at
    assert last["cost"] is None
    assert last["input_tokens"] is None
    assert last["status"] == "failed"


def test_columns_are_those_of_the_row_and_the_organizations_name():
    names = [column.name for column in reading.columns(redact=False)]
    assert set(names) == {field.attname for field in Interaction._meta.concrete_fields} | {"organization"}
    redacted = {column.name for column in reading.columns(redact=True)}
    assert set(names) - redacted == reading.REDACTED | {"user_id"}
    assert redacted - set(names) == {reading.PSEUDONYM}


@pytest.mark.parametrize("form", FORMATS)
def test_a_redacted_export_has_no_text_and_one_pseudonym_for_each_user(form: str, tmp_path: Path):
    here, there = OrganizationFactory.create(), OrganizationFactory.create()
    for organization, user in ((here, "ana"), (here, "ana"), (here, "bo"), (there, "ana")):
        InteractionFactory.create(organization=organization, user_id=user, request_id=str(uuid7()), prompt="Secret 7")
    paths = [tmp_path / f"{number}.{form}" for number in range(2)]
    for path in paths:
        export(path, form, redact=True)
        assert b"Secret 7" not in path.read_bytes()
        assert b"ana" not in path.read_bytes()
        assert not {"prompt", "request_id", "trace_id", "user_id"} & set(read_back(path)[0])
    one, again = ([row[reading.PSEUDONYM] for row in read_back(path)] for path in paths)
    assert one[0] == one[1]
    assert len(set(one)) == 3
    # Two files cannot be joined by them.
    assert not set(one) & set(again)


def test_encrypted_texts_are_opened_with_their_key_and_only_with_it(settings: Any, tmp_path: Path):
    settings.TEXT_ENCRYPTION_KEYS = (secrets.token_bytes(32),)
    texts = {"prompt": "a \0 \ud800 b", "metadata": {"shop": "Lisbon"}, "messages": [{"role": "user", "content": "x"}]}
    InteractionFactory.create(**texts)
    assert "TEXT_ENCRYPTION_KEYS" not in export(tmp_path / "a.jsonl", "jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert (row["prompt"], row["metadata"], row["messages"]) == ("a \0 \ufffd b", texts["metadata"], texts["messages"])
    settings.TEXT_ENCRYPTION_KEYS = ()
    told = export(tmp_path / "b.jsonl", "jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert (row["prompt"], row["metadata"]) == (PLACEHOLDER, {"unreadable": PLACEHOLDER})
    assert "Encrypted with a key that is not in TEXT_ENCRYPTION_KEYS: " in told


def test_filters_are_those_of_the_list(tmp_path: Path):
    here = InteractionFactory.create(user_id="ana", age=dt.timedelta(hours=5))
    InteractionFactory.create(user_id="bo", organization=here.organization)
    failed = InteractionFactory.create(failed=True, user_id="cy", model="other", provider="")

    def ids(**options: Any) -> list[str]:
        path = tmp_path / "rows.jsonl"
        export(path, "jsonl", force=True, **options)
        return [json.loads(line)["id"] for line in path.read_text().splitlines()]

    assert ids(user="ana") == [str(here.id)]
    assert ids(
        organization=here.organization.name, until=f"{here.created_at + dt.timedelta(hours=1):%Y-%m-%dT%H:%MZ}"
    ) == [str(here.id)]
    assert ids(status=["failed,cancelled"]) == [str(failed.id)]
    assert ids(model="oth*", period="day") == [str(failed.id)]
    assert ids(user="nobody") == []


def test_each_filter_has_an_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        call_command("export_interactions", "--help")
    said = capsys.readouterr().out
    assert [name for name in NAMES if f"--{name} " not in said] == []
    assert set(selecting._HELP) == set(NAMES)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": None}, "Say which --format"),
        ({"status": ["late"]}, "--status: status cannot be “late”."),
        ({"since": "soon"}, "--since: since “soon” is no moment."),
        ({"since": "2999-01-01"}, "is not before until"),
        ({"output": "no/such/directory/rows.csv"}, "There is no directory"),
        ({"output": "-", "resume": True}, "Standard output cannot be gone on with"),
        ({"resume": True}, "There is no unfinished export"),
    ],
)
def test_wrong_options_are_said_with_the_remedy(options: dict[str, Any], says: str, tmp_path: Path):
    given = {"output": str(tmp_path / "rows.csv"), "format": "csv", **options}
    with pytest.raises(CommandError, match=says) as refused:
        call_command("export_interactions", stderr=io.StringIO(), **given)
    assert refused.value.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_without_force(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("precious")
    with pytest.raises(CommandError, match="is there already"):
        export(path, "csv")
    assert path.read_text() == "precious"
    export(path, "csv", force=True)
    assert path.read_text().startswith("id,")


def test_only_its_owner_may_read_the_file(tmp_path: Path):
    InteractionFactory.create()
    for form in FORMATS:
        path = tmp_path / f"rows.{form}"
        export(path, form)
        assert path.stat().st_mode & 0o777 == 0o600
    assert {path.suffix for path in tmp_path.iterdir()} == {f".{form}" for form in FORMATS}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("redact", [False, True])
def test_an_export_that_was_ended_goes_on_to_the_same_file(
    form: str, redact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "PAGE", 4)
    monkeypatch.setattr(reading, "CHUNK", 2)
    for number in range(15):
        InteractionFactory.create(prompt=f"number {number}", user_id=f"u{number % 3}")
    checkpoint = copying.first_checkpoint(Format(form), Selection(), redact=redact)
    columns = copying.columns_of(checkpoint)

    def whole(name: str, *, ended_after: int) -> bytes:
        path = tmp_path / f"{name}.{form}"
        again = files.Checkpoint(**{each: getattr(checkpoint, each) for each in ("what", "secret")})
        with files.Partial.begin(path, Format(form), columns, again) as partial:
            pages = iter(range(100))
            if copying.copy(partial, copying.reader_of(again), go_on=lambda: next(pages) < ended_after):
                partial.finish()
            else:
                # As if the process had died in the middle of a write.
                partial.write([(*("x" for _ in columns),)]) if form == "csv" else None
        if not path.exists():
            assert "in step" not in export(path, None, resume=True)  # type: ignore[arg-type]
        return path.read_bytes()

    assert whole("b", ended_after=1) == whole("a", ended_after=100)
    assert {path.name for path in tmp_path.iterdir()} == {f"a.{form}", f"b.{form}"}


def test_going_on_with_other_options_is_refused(tmp_path: Path):
    path = tmp_path / "rows.csv"
    checkpoint = copying.first_checkpoint(Format.CSV, Selection(user="ana"), redact=False)
    with files.Partial.begin(path, Format.CSV, copying.columns_of(checkpoint), checkpoint):
        pass
    for options in ({"user": "bo"}, {"format": "jsonl"}, {"redact": True}):
        with pytest.raises(CommandError, match=r"was begun with --format csv, --redact False, .* --user ana"):
            call_command("export_interactions", output=str(path), resume=True, stderr=io.StringIO(), **options)
    with pytest.raises(CommandError, match=r"was not finished\. Go on with --resume"):
        export(path, "csv")
    export(path, "csv", user="ana", resume=True)
    assert path.exists()


def test_two_processes_do_not_write_one_file(tmp_path: Path):
    path = tmp_path / "rows.csv"
    checkpoint = copying.first_checkpoint(Format.CSV, Selection(), redact=False)
    with (
        files.Partial.begin(path, Format.CSV, copying.columns_of(checkpoint), checkpoint),
        pytest.raises(CommandError, match="Another process is writing"),
    ):
        export(path, "csv", resume=True)


# --- In processes of their own ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def machine(migrated: Migrated, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """Data of its own, which the tests only read."""
    server = LiveServer(tmp_path_factory.mktemp("machine"))
    server.environment.update(migrated.copy(server.data))
    server.manage("seed_demo", "--interactions", "1500", "--days", "3", "--seed", "exports")
    return server


def begun(machine: LiveServer, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "export_interactions", *arguments],
        env={**machine.environment, **options.pop("environment", {})},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", FORMATS)
def test_killed_in_the_middle_it_goes_on_to_what_it_would_have_been(form: str, machine: LiveServer, tmp_path: Path):
    whole, killed = tmp_path / f"whole.{form}", tmp_path / f"killed.{form}"
    until_ = "--until=2999-01-01"
    machine.manage("export_interactions", f"--format={form}", f"--output={whole}", until_)
    # A throttled copy of the command: a page is small, and takes a while.
    throttled = (
        "import time; from chat.exports import copying, reading; reading.PAGE = 100; copying.SAVE_SECONDS = 0.0; "
        "real = reading.Reader.page\n"
        "def page(self, after, **options):\n    time.sleep(0.05)\n    yield from real(self, after, **options)\n"
        "reading.Reader.page = page\n"
    )
    program = (
        "import os, django; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'llmchat.settings'); django.setup()\n"
        f"{throttled}"
        "from django.core.management import call_command\n"
        f"call_command('export_interactions', format={form!r}, output={str(killed)!r})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=machine.environment, cwd=PROJECT, stderr=subprocess.PIPE
    )
    part = files.checkpoint_path(killed)
    eventually(lambda: part.exists() and files.read_checkpoint(killed).rows >= 300, wanted="300 rows")
    process.kill()
    process.communicate()
    assert not killed.exists()
    machine.manage("export_interactions", f"--output={killed}", "--resume")
    if form == "parquet":
        assert read_back(killed) == read_back(whole)
    else:
        assert killed.read_bytes() == whole.read_bytes()
    assert not part.exists()


@pytest.fixture(scope="module")
def large(migrated: Migrated, services: Services | None, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """100,000 rows, which the test only reads."""
    if services is not None:
        pytest.skip("the rows are read in portions from either database: looked at on SQLite")
    server = LiveServer(tmp_path_factory.mktemp("large"))
    server.environment.update(migrated.copy(server.data))
    server.manage("seed_demo", "--interactions", "100000", "--days", "20", "--seed", "memory", seconds=280)
    return server


def peak_of(machine: LiveServer, *arguments: str) -> tuple[int, int]:
    """Bytes that an export in a process of its own had in memory at most, and how many rows it wrote."""
    process = begun(machine, *arguments)
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, told
    return usage.ru_maxrss * 1024, int(told.splitlines()[-1].split(" interactions")[0].replace(",", ""))


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_rows(large: LiveServer, tmp_path: Path):
    """Ten times the rows, and a process as large but for a little."""
    few, all_, more = tmp_path / "few.csv", tmp_path / "all.csv", 16_000_000
    with contextlib.closing(sqlite3.connect(large.data / "llmchat.sqlite3")) as record:
        place = (
            "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', created_at) FROM chat_interaction ORDER BY id LIMIT 1 OFFSET 10000"
        )
        (until,) = record.execute(place).fetchone()
    peak_of_few, rows_of_few = peak_of(large, "--format=csv", f"--output={few}", f"--until={until}")
    peak_of_all, rows_of_all = peak_of(large, "--format=csv", f"--output={all_}")
    assert rows_of_few == pytest.approx(10_000, abs=100)
    assert rows_of_all > 99_000
    assert peak_of_all - peak_of_few < more
    # The bound means something: the rows would not fit into it.
    assert all_.stat().st_size > 2 * more


def test_what_was_exported_is_counted_in_words(tmp_path: Path):
    InteractionFactory.create()
    assert export(tmp_path / "one.csv", "csv").startswith(f"1 interaction to {tmp_path / 'one.csv'}, 1 of them in ")


@pytest.mark.timeout(300)
def test_standard_output_takes_every_format(machine: LiveServer, tmp_path: Path):
    for form in FORMATS:
        path = tmp_path / f"piped.{form}"
        with path.open("wb") as out:
            process = begun(machine, f"--format={form}", "--output=-", stdout=out)
            told = process.communicate()[1].decode()
        assert process.returncode == 0, told
        assert told.startswith("1,500 interactions, 1,500 of them in ")
        assert len(read_back(path)) == 1_500


def test_a_reader_that_goes_is_said_in_one_line(machine: LiveServer):
    reading_end, writing_end = os.pipe()
    process = begun(machine, "--format=csv", "--output=-", stdout=writing_end)
    os.close(writing_end)
    os.close(reading_end)
    told = process.communicate()[1].decode()
    assert process.returncode == 1
    assert told.startswith("CommandError: Not finished: whoever read standard output has gone. Name a file")
    assert told.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_with_the_remedy(machine: LiveServer):
    with Path("/dev/full").open("wb") as out:
        process = begun(machine, "--format=csv", "--output=-", stdout=out)
        told = process.communicate()[1].decode()
    assert process.returncode == 1
    assert told.startswith("CommandError: Not finished: the disk is full; make room.")
