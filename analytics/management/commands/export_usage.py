"""`manage.py export_usage`: usage and cost from roll-ups, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from accounts.management.naming import organization_named
from analytics import exporting as usage_rows
from analytics import rolling, usage
from analytics.models import Cell, Grain
from analytics.periods import start_of
from audit import entries
from audit.models import Action
from chat.exports import copying
from chat.exports.files import Checkpoint, Partial, Stream
from chat.management import exporting
from chat.management.exporting import ExportCommand
from chat.models import Status
from llmchat.lib.moments import utc_moment
from llmchat.lib.tables import Column, Format

#: Days that are told of when nobody says since when; as `/v1/usage` does.
_USUAL: Final = 30
#: Filters, as `/v1/usage` calls them.
_FILTERS: Final = {
    "model": "answered by this model",
    "provider": "of this provider",
    "user": "of this user",
    "key": "with the API key of this id",
    "status": "that ended so: succeeded, failed, cancelled, interrupted",
    "plan": "on this plan",
    "error_code": "with this error",
}


class Command(ExportCommand):
    help = (
        "Writes what was used: requests, tokens, cost, latency and first token with their percentiles, a row for each "
        "interval and group, the oldest first. Figures come from roll-ups, exact to the beginning of the export. "
        f"{exporting.HELP}"
    )
    name = "export_usage"
    unit = ("row of usage", "rows of usage")

    _pending_since: dt.datetime | None = None

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--since", metavar="MOMENT", help=f"2026-05-31, in UTC; {_USUAL} days up to the end, if not given"
        )
        parser.add_argument("--until", metavar="MOMENT", help="before this moment; now, if not given")
        parser.add_argument("--organization", metavar="NAME", help="only of this organization")
        parser.add_argument("--interval", choices=list(usage.INTERVALS), help="rows for each of these; none: one range")
        parser.add_argument(
            "--group-by",
            action="append",
            metavar="WHAT",
            help=f"rows for each of these: {', '.join(usage_rows.DIMENSIONS)}; several with commas",
        )
        group = parser.add_argument_group("filters", "All that are given must fit.")
        for name, words in _FILTERS.items():
            group.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), help=f"only {words}")

    def first_checkpoint(self, form: Format, options: dict[str, Any]) -> Checkpoint:
        wanted = self.asked(options)
        organization = organization_named(wanted["organization"]) if "organization" in wanted else None
        by = tuple(usage_rows.DIMENSIONS[name] for name in wanted.get("group-by", "").split(",") if name)
        if "user_id" in by and organization is None and "organization_id" not in by:
            # A user's name means somebody within an organization only.
            by = ("organization_id", *by)
        _check_users(by, wanted)
        since, until = _range(wanted)
        what: dict[str, Any] = {
            "export": self.name,
            "format": form.value,
            "wanted": wanted,
            "organization_id": str(organization.pk) if organization else None,
            "since": since.isoformat(),
            "until": until.isoformat(),
            "by": by,
            "columns": [column.name for column in usage_rows.columns(by)],
        }
        return Checkpoint(what=what)

    def columns(self, checkpoint: Checkpoint) -> Sequence[Column]:
        return usage_rows.columns(checkpoint.what["by"])

    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        said = {name: utc_moment(f"--{name}", options[name]) for name in ("since", "until")}
        found: dict[str, Any] = {name: moment.isoformat() for name, moment in said.items() if moment}
        for name in ("organization", "interval", *_FILTERS):
            if options[name]:
                found[name.replace("_", "-")] = options[name]
        if by := _group_by(options["group_by"] or []):
            found["group-by"] = ",".join(by)
        _check_filters(found)
        return found

    def summary(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"format": checkpoint.what["format"], **checkpoint.what["wanted"]}

    def enter(self, checkpoint: Checkpoint, *, output: str) -> None:
        identifier = checkpoint.what["organization_id"]
        entries.record(
            Action.EXPORTED,
            object_type=Cell._meta.label_lower,
            object_name="usage",
            organization_id=UUID(identifier) if identifier else None,
            details={"output": output, **self.summary(checkpoint)},
        )

    def copy(self, out: Partial | Stream, tell: Callable[[float], None]) -> None:
        reader = _reader_of(out.checkpoint)
        extent = copying.Extent(reader.since, reader.until)

        def go_on() -> bool:
            last = out.checkpoint.last
            tell(extent.done(dt.datetime.fromisoformat(last) if last else None))
            return True

        copying.copy(out, reader, go_on=go_on)
        self._pending_since = reader.pending_since

    def warnings(self) -> Sequence[str]:
        if self._pending_since is None:
            return ()
        since = f"{self._pending_since:%Y-%m-%dT%H:%MZ}"
        return (f"Changes since {since} are still being added up. Run manage.py roll_up, then export again.",)


def _reader_of(checkpoint: Checkpoint) -> usage_rows.Reader:
    what = checkpoint.what
    wanted = what["wanted"]
    return usage_rows.Reader(
        organization_id=UUID(what["organization_id"]) if what["organization_id"] else None,
        since=dt.datetime.fromisoformat(what["since"]),
        until=dt.datetime.fromisoformat(what["until"]),
        by=tuple(what["by"]),
        interval=usage.INTERVALS.get(wanted.get("interval")),
        only={usage.DIMENSIONS[name]: value for name in _FILTERS if (value := wanted.get(name.replace("_", "-")))},
    )


def _range(wanted: dict[str, Any]) -> tuple[dt.datetime, dt.datetime]:
    """From when until when; what roll-ups can tell. Raises CommandError."""
    # Rows' ids have milliseconds; what has just been written is to be within.
    now = timezone.now() + dt.timedelta(milliseconds=1)
    grain = Grain.HOUR if wanted.get("interval") == "hour" else Grain.DAY
    given = {name: dt.datetime.fromisoformat(wanted[name]) for name in ("since", "until") if name in wanted}
    for name, moment in given.items():
        if moment != start_of(grain, moment):
            what = "an hour" if grain is Grain.HOUR else "a day"
            raise CommandError(f"--{name} {moment.isoformat()} is not the beginning of {what} in UTC.")
    until = min(given.get("until", now), now)
    usual = start_of(Grain.DAY, until) - dt.timedelta(days=_USUAL - (until != start_of(Grain.DAY, until)))
    since = given.get("since", usual)
    if since >= until:
        raise CommandError(f"--since {since.isoformat()} is not before {until.isoformat()}.")
    kept = start_of(Grain.DAY, now - rolling.HOURS_KEPT)
    if grain is Grain.HOUR and since < kept:
        raise CommandError(f"Hours are kept since {kept:%Y-%m-%d}. Give that as --since, or export by the day.")
    return since, until


def _group_by(given: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(word for text in given for word in text.split(",") if word))
    for word in found:
        if word not in usage_rows.DIMENSIONS:
            raise CommandError(f"--group-by {word} is not known. Give some of {', '.join(usage_rows.DIMENSIONS)}.")
    return found


def _check_filters(found: dict[str, Any]) -> None:
    if (status := found.get("status")) and status not in Status.values:
        raise CommandError(f"--status {status} is not known. Give one of {', '.join(Status.values)}.")
    if key := found.get("key"):
        try:
            UUID(key)
        except ValueError:
            raise CommandError(f"--key {key} is no id of an API key. The admin lists them.") from None


def _check_users(by: Sequence[str], wanted: dict[str, Any]) -> None:
    """Users are added up by themselves."""
    if "user_id" not in by and "user" not in wanted:
        return
    others = [name for name, dimension in usage_rows.DIMENSIONS.items() if dimension in by]
    others += [name for name in _FILTERS if name.replace("_", "-") in wanted]
    others = [name for name in others if name not in {"user", "organization"}]
    if others:
        raise CommandError(
            f"Users are added up by time and organization alone, not together with {', '.join(others)}. "
            "Leave one of them out."
        )
    if wanted.get("interval") == "hour":
        raise CommandError("Users are added up by the day. Give --interval day or month.")
