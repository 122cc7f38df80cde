"""`manage.py export_audit`: what it writes can be read by others, it goes on where it was ended, and it leaves an entry
itself."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from accounts import services
from accounts.models import Plan
from audit.models import Entry
from chat.exports import copying, files
from chat.management.commands import export_audit
from chat.selection import Selection
from llmchat.lib.tables import Format

pytestmark = pytest.mark.django_db


@pytest.fixture
def trail(owner, stranger):
    Entry.objects.all().delete()
    services.create_api_key(owner.organization, name="=ours")
    services.create_api_key(stranger.organization, name="theirs")
    Plan.objects.create(slug="gold", name="Gold")
    return list(Entry.objects.order_by("id"))


def _export(path: Path, form: str, *arguments: str) -> str:
    told = StringIO()
    call_command("export_audit", "--format", form, "--output", str(path), "--force", *arguments, stderr=told)
    return told.getvalue()


def test_csv_has_every_entry_and_no_formula(tmp_path, trail):
    said = _export(tmp_path / "trail.csv", "csv")
    with (tmp_path / "trail.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [str(entry.pk) for entry in trail]
    assert lines[0]["object_name"].startswith("'=ours")
    assert json.loads(lines[2]["changes"])["name"] == [None, "Gold"]
    assert said.startswith(f"3 entries to {tmp_path / 'trail.csv'}, 3 of them in ")


def test_json_lines_and_parquet_say_the_same(tmp_path, trail):
    _export(tmp_path / "trail.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trail.jsonl").read_text().splitlines()]
    _export(tmp_path / "trail.parquet", "parquet")
    rows = pq.read_table(tmp_path / "trail.parquet").to_pylist()
    assert [line["id"] for line in lines] == [row["id"] for row in rows][: len(lines)]
    assert rows[0]["created_at"] == trail[0].created_at
    assert json.loads(rows[0]["changes"]) == trail[0].changes


def test_filters_narrow_it_down(tmp_path, trail, owner):
    path = tmp_path / "trail.jsonl"
    _export(path, "jsonl", "--organization", owner.organization.name)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [str(trail[0].pk)]
    _export(path, "jsonl", "--user", "nobody")
    assert path.read_text() == ""
    _export(path, "jsonl", "--until", "2001-01-01")
    assert path.read_text() == ""


def test_secrets_are_not_in_it(tmp_path, trail, owner):
    _export(tmp_path / "trail.csv", "csv")
    assert owner.key.digest not in (tmp_path / "trail.csv").read_text()


def test_what_cannot_be_written_is_said(tmp_path, trail):
    with pytest.raises(CommandError, match=r"There is no directory .*nowhere\. Make it first") as refused:
        _export(tmp_path / "nowhere" / "trail.csv", "csv")
    assert refused.value.returncode == 2
    with pytest.raises(CommandError, match="is not a moment") as refused:
        _export(tmp_path / "trail.csv", "csv", "--since", "soon")
    assert refused.value.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_without_force(tmp_path, trail):
    path = tmp_path / "trail.csv"
    path.write_text("precious")
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_audit", "--format=csv", f"--output={path}")
    assert path.read_text() == "precious"


def test_exporting_is_entered(tmp_path, trail, owner):
    _export(tmp_path / "trail.csv", "csv", "--organization", owner.organization.name)
    entry = Entry.objects.order_by("-id").first()
    assert (entry.action, entry.object_type) == ("exported", "audit.entry")
    assert entry.details == {
        "format": "csv",
        "organization": owner.organization.name,
        "output": str(tmp_path / "trail.csv"),
    }


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_export_that_was_ended_goes_on_to_the_same_file(form, tmp_path, trail, monkeypatch):
    """The connection goes after the second page; meanwhile the trail goes on."""
    for number in range(10):
        Plan.objects.create(slug=f"plan{number}", name=f"Plan {number}")
    monkeypatch.setattr(export_audit._Trail, "full", 3)
    monkeypatch.setattr(copying, "SAVE_SECONDS", -1.0)
    whole, ended = tmp_path / f"whole.{form}", tmp_path / f"ended.{form}"
    wanted = ("--until", "2999-01-01")
    real, pages = export_audit._Trail.page, iter(range(100))

    def page(self, after):
        if next(pages) == 2:
            raise OperationalError("the server has gone")
        yield from real(self, after)

    with monkeypatch.context() as ending:
        ending.setattr(export_audit._Trail, "page", page)
        with pytest.raises(CommandError, match=r"Not finished: the server has gone\. Go on with: .* --resume"):
            _export(ended, form, *wanted)
    there = 6
    assert files.read_checkpoint(ended).rows == there
    until = Entry.objects.filter(action="exported").latest("id")
    with pytest.raises(CommandError, match="was begun with --format"):
        call_command("export_audit", f"--output={ended}", "--resume", "--user=ana")
    told = StringIO()
    call_command("export_audit", f"--output={ended}", "--resume", *wanted, stderr=told)
    assert told.getvalue().startswith(f"13 entries to {ended}, 7 of them in ")
    Entry.objects.filter(pk=until.pk).delete()
    _export(whole, form, *wanted)
    assert ended.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, ended.name}


def test_a_file_begun_by_another_command_is_not_gone_on_with(tmp_path, trail):
    path = tmp_path / "rows.csv"
    checkpoint = copying.first_checkpoint(Format.CSV, Selection(), redact=False)
    with files.Partial.begin(path, Format.CSV, copying.columns_of(checkpoint), checkpoint):
        pass
    with pytest.raises(CommandError, match="was begun by another command or version"):
        call_command("export_audit", f"--output={path}", "--resume")
