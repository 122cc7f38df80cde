"""`manage.py export_usage`: what `/v1/usage` tells, as files; by any interval and group, and gone on with."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory
from analytics import exporting, rolling, usage
from analytics.tests.record import some_exchanges, store
from audit.models import Entry
from chat.exports import copying, files
from chat.models import Change

pytestmark = pytest.mark.django_db

COUNTERS = {
    "total_requests": "requests",
    "unpriced_requests": "unpriced_requests",
    "attempts": "attempts",
    "retries": "retries",
    "fallbacks": "fallbacks",
}
TOKENS = {"input": "input_tokens", "cached_input": "cached_input_tokens", "output": "output_tokens"}


@pytest.fixture
def organizations() -> list[Organization]:
    """Two with exchanges of the last five days, most of them rolled up."""
    found = [OrganizationFactory.create(name=name) for name in ("=Acme", "Other")]
    now = timezone.now()
    store(some_exchanges(found, 60, since=now - dt.timedelta(days=5), until=now - dt.timedelta(hours=3), seed=5))
    rolling.roll_up()
    store(some_exchanges(found, 20, since=now - dt.timedelta(hours=2), until=now, seed=6))
    return found


def export(path: Path, **options: Any) -> str:
    told = io.StringIO()
    call_command("export_usage", output=str(path), stderr=told, **{"format": path.suffix[1:], **options})
    return told.getvalue()


def exported(folder: Path, **options: Any) -> list[dict[str, Any]]:
    path = folder / "usage.jsonl"
    export(path, force=True, **options)
    return [json.loads(line) for line in path.read_text().splitlines()]


def _day(days: int) -> str:
    return str(timezone.now().date() - dt.timedelta(days=days))


def told(organization: Organization, *, days: int, **asked: Any) -> Any:
    """What the API tells of so many days up to today."""
    today = timezone.now().date()
    everything: dict[str, Any] = {"group_by": None, "interval": None, "only": {}, "limit": 1000}
    return usage.usage(organization.pk, start=today - dt.timedelta(days=days - 1), end=today, **{**everything, **asked})


def test_one_row_without_interval_and_groups_is_the_apis_summary(organizations: list[Organization], tmp_path: Path):
    summary = told(organizations[0], days=30)["summary"]
    (row,) = exported(tmp_path, organization="=Acme")
    assert {name: row[column] for name, column in COUNTERS.items()} == {name: summary[name] for name in COUNTERS}
    assert {name: row[column] for name, column in TOKENS.items()} == {name: summary["tokens"][name] for name in TOKENS}
    assert float(row["cost"]) == summary["total_cost"]
    for times in ("latency_ms", "time_to_first_token_ms"):
        assert {name: row[f"{times}_{name}"] for name in summary[times]} == summary[times]
    assert (row["start"], row["priced_requests"] > 0) == (f"{_day(29)}T00:00:00Z", True)


@pytest.mark.parametrize(
    ("interval", "group_by"),
    [("hour", None), ("hour", "model"), ("day", "cached"), ("day", "key"), ("month", "route_reason")],
)
def test_rows_are_the_apis_series(
    interval: str, group_by: str | None, organizations: list[Organization], tmp_path: Path
):
    options = {"group_by": [group_by]} if group_by else {}
    rows = exported(tmp_path, organization="=Acme", since=_day(6), interval=interval, **options)
    series = told(organizations[0], days=7, interval=usage.INTERVALS[interval], group_by=group_by)["series"]
    assert sum(row["requests"] for row in rows) == sum(point["requests"] for point in series) > 10

    def named(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else value or usage.UNKNOWN

    found = {}
    for row in rows:
        # The first month begins with the range.
        start = row["start"][:8] + "01T00:00:00Z" if interval == "month" else row["start"]
        found[start, named(row[usage.DIMENSIONS[group_by]]) if group_by else ""] = (row["requests"], row["cost"])
    assert {key: (requests, cost and float(cost)) for key, (requests, cost) in found.items()} == {
        (point["start"].replace(".000", ""), point.get(group_by, "")): (point["requests"], point["cost"])
        for point in series
    }


def test_all_organizations_add_up_to_each(organizations: list[Organization], tmp_path: Path):
    (whole,) = exported(tmp_path)
    each = exported(tmp_path, group_by=["organization,model"], interval="day")
    assert {row["organization"] for row in each} == {"=Acme", "Other"}
    assert {row["organization_id"] for row in each} == {str(one.pk) for one in organizations}
    assert sum(row["requests"] for row in each) == whole["requests"] == 80
    assert sum(Decimal(row["cost"] or 0) for row in each) == Decimal(whole["cost"])


def test_users_are_told_within_their_organization(organizations: list[Organization], tmp_path: Path):
    rows = exported(tmp_path, group_by=["user"])
    assert {(row["organization"], row["user_id"]) for row in rows} >= {("=Acme", "ana"), ("Other", "ana")}
    groups = told(organizations[0], days=30, group_by="user")["groups"]
    assert {row["user_id"] or usage.UNKNOWN: row["requests"] for row in rows if row["organization"] == "=Acme"} == {
        group["user"]: group["total_requests"] for group in groups
    }


def test_filters_narrow_it_down(organizations: list[Organization], tmp_path: Path):
    (failed,) = exported(tmp_path, status="failed", provider="openai", organization="=Acme")
    summary = told(organizations[0], days=30, only={"status": "failed", "provider": "openai"})["summary"]
    assert failed["requests"] == summary["total_requests"] > 0
    assert exported(tmp_path, model="no such model") == []
    assert exported(tmp_path, until="2001-02-01") == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_another_tool_adds_up_the_same_in_every_format(form: str, organizations: list[Organization], tmp_path: Path):
    path = tmp_path / f"usage.{form}"
    said = export(path, group_by=["organization", "model"], interval="day")
    rows = exported(tmp_path / "..", group_by=["organization", "model"], interval="day")
    assert said.startswith(f"{len(rows):,} rows of usage to {path}, {len(rows):,} of them in ")
    wanted = 'sum(requests), sum(CAST(cost AS DECIMAL(20,12))), max(latency_ms_p95), min(start) < max("end")'
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {wanted} FROM '{path}'").fetchone()
    assert found == (
        80,
        sum(Decimal(row["cost"] or 0) for row in rows),
        max(row["latency_ms_p95"] or 0 for row in rows),
        True,
    )


def test_a_spreadsheet_runs_no_name(organizations: list[Organization], tmp_path: Path):
    path = tmp_path / "usage.csv"
    export(path, group_by=["organization"])
    assert {row["organization"] for row in csv.DictReader(io.StringIO(path.read_text()))} == {"'=Acme", "Other"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_export_that_was_ended_goes_on_to_the_same_file(
    form: str, organizations: list[Organization], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(copying, "SAVE_SECONDS", -1.0)
    options: dict[str, Any] = {"interval": "hour", "group_by": ["model"], "until": _day(0)}
    whole, ended = tmp_path / f"whole.{form}", tmp_path / f"ended.{form}"
    real, pages = exporting.Reader.page, iter(range(100))

    def page(self: exporting.Reader, after: str | None) -> Any:
        if next(pages) == 3:
            raise OperationalError("the server has gone")
        yield from real(self, after)

    with monkeypatch.context() as ending:
        ending.setattr(exporting.Reader, "page", page)
        with pytest.raises(CommandError, match=r"Not finished: the server has gone\. Go on with: .* --resume") as gone:
            export(ended, **options)
    assert gone.value.returncode == 1
    assert files.read_checkpoint(ended).rows > 0
    with pytest.raises(CommandError, match="was begun with --format"):
        export(ended, resume=True, **{**options, "interval": "day"})
    export(ended, resume=True)
    export(whole, **options)
    assert ended.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, ended.name}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": None}, "Say which --format"),
        ({"group_by": ["model,moon"]}, "--group-by moon is not known. Give some of organization, model, provider"),
        ({"group_by": ["user"], "interval": "hour"}, "Users are added up by the day"),
        ({"group_by": ["user", "model"]}, "not together with model"),
        ({"user": "ana", "plan": "free"}, "not together with plan"),
        ({"since": "2026-05-01T10:00"}, "is not the beginning of a day in UTC"),
        ({"since": "2026-05-01T10:20", "interval": "hour"}, "is not the beginning of an hour in UTC"),
        ({"since": "2020-05-01", "interval": "hour"}, "Hours are kept since"),
        ({"since": "2999-05-01"}, "is not before"),
        ({"status": "late"}, "--status late is not known"),
        ({"key": "7"}, "--key 7 is no id"),
        ({"organization": "nobody"}, "There is no organization 'nobody'"),
    ],
)
def test_wrong_options_are_said_with_the_remedy(options: dict[str, Any], says: str, tmp_path: Path):
    with pytest.raises(CommandError, match=says) as refused:
        export(tmp_path / "usage.csv", **options)
    assert refused.value.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_the_export_is_entered(organizations: list[Organization], tmp_path: Path):
    export(tmp_path / "usage.csv", organization="Other", group_by=["key"])
    entry = Entry.objects.order_by("-id").first()
    assert (entry.action, entry.object_name, entry.organization_id) == ("exported", "usage", organizations[1].pk)
    assert entry.details == {
        "output": str(tmp_path / "usage.csv"),
        "format": "csv",
        "organization": "Other",
        "group-by": "key",
    }


def test_what_is_not_added_up_yet_is_said(
    organizations: list[Organization], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Change.objects.all().delete()
    since = timezone.now().replace(second=0, microsecond=0) - dt.timedelta(days=3)
    for hours in range(0, 48, 3):
        Change.objects.create(minute=since + dt.timedelta(hours=hours))
    monkeypatch.setattr("analytics.sources.UNROLLED_AT_MOST", dt.timedelta(hours=1))
    assert "are still being added up. Run manage.py roll_up, then export again." in export(tmp_path / "usage.csv")
