"""`manage.py export_audit`: writes the audit trail to a file, for auditors and for archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson
from django.core.management.base import CommandParser
from django.db.models import QuerySet

from accounts.management.naming import organization_named
from audit import entries
from audit.models import Action, Entry
from chat.exports import copying
from chat.exports.files import Checkpoint, Partial, Stream
from chat.management import exporting
from chat.management.exporting import ExportCommand
from llmchat.lib.moments import utc_moment
from llmchat.lib.tables import Column, Format, Kind, Rows
from llmchat.lib.uuid7 import floor_at

COLUMNS: Final = (
    Column("id", Kind.UUID),
    Column("created_at", Kind.MOMENT),
    Column("organization_id", Kind.UUID),
    Column("actor_kind"),
    Column("actor"),
    Column("address"),
    Column("request_id"),
    Column("action"),
    Column("object_type"),
    Column("object_id"),
    Column("object_name"),
    Column("changes", Kind.JSON),
    Column("details", Kind.JSON),
)
_PAGE: Final = 2000


class Command(ExportCommand):
    help = (
        "Writes entries of the audit trail, the oldest first, in bounded memory: those that were there at the "
        f"beginning. {exporting.HELP}"
    )
    name = "export_audit"
    unit = ("entry", "entries")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--since", metavar="MOMENT", help="2026-05-31 or 2026-05-31T14:00, UTC")
        parser.add_argument("--until", metavar="MOMENT", help="only entries from before then")
        parser.add_argument("--organization", metavar="NAME", help="only what belongs to this organization")
        parser.add_argument("--user", metavar="NAME", help="only what this person, command or task did")

    def first_checkpoint(self, form: Format, options: dict[str, Any]) -> Checkpoint:
        wanted = self.asked(options)
        organization = organization_named(wanted["organization"]) if "organization" in wanted else None
        what: dict[str, Any] = {
            "export": self.name,
            "format": form.value,
            "wanted": wanted,
            "organization_id": str(organization.pk) if organization else None,
            "last": str(Entry.objects.order_by("-id").values_list("id", flat=True).first() or ""),
            "columns": [column.name for column in COLUMNS],
        }
        return Checkpoint(what=what)

    def columns(self, checkpoint: Checkpoint) -> Sequence[Column]:
        return COLUMNS

    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        said = {name: utc_moment(f"--{name}", options[name]) for name in ("since", "until")}
        found = {name: moment.isoformat() for name, moment in said.items() if moment}
        return {**found, **{name: options[name] for name in ("organization", "user") if options[name]}}

    def summary(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"format": checkpoint.what["format"], **checkpoint.what["wanted"]}

    def enter(self, checkpoint: Checkpoint, *, output: str) -> None:
        entries.record(
            Action.EXPORTED,
            object_type=Entry._meta.label_lower,
            details={"output": output, **self.summary(checkpoint)},
        )

    def copy(self, out: Partial | Stream, tell: Callable[[float], None]) -> None:
        found = _chosen(out.checkpoint)
        first = found.values_list("id", flat=True).first()
        extent = copying.Extent(
            copying.moment_of(str(first) if first else None), copying.moment_of(out.checkpoint.what["last"] or None)
        )

        def go_on() -> bool:
            tell(extent.done(copying.moment_of(out.checkpoint.last)))
            return True

        copying.copy(out, _Trail(found), go_on=go_on)


class _Trail:
    """Entries by keyset, so that each page is a short query."""

    full = _PAGE

    def __init__(self, found: QuerySet[Entry]) -> None:
        self._found = found

    def page(self, after: str | None) -> Iterator[Rows]:
        rest = self._found if after is None else self._found.filter(id__gt=after)
        rows = list(rest.values_list(*(column.name for column in COLUMNS))[: self.full])
        if rows:
            yield [(*row[:-2], orjson.dumps(row[-2]).decode(), orjson.dumps(row[-1]).decode()) for row in rows]


def _chosen(checkpoint: Checkpoint) -> QuerySet[Entry]:
    what = checkpoint.what
    found = Entry.objects.order_by("id")
    # Who exports is entered before the first row is read: the end is fixed, or it would never be the same file twice.
    found = found.filter(id__lte=what["last"]) if what["last"] else found.none()
    if since := utc_moment("--since", what["wanted"].get("since")):
        found = found.filter(id__gte=floor_at(since))
    if until := utc_moment("--until", what["wanted"].get("until")):
        found = found.filter(id__lt=floor_at(until))
    if what["organization_id"]:
        found = found.filter(organization_id=what["organization_id"])
    if user := what["wanted"].get("user"):
        found = found.filter(actor=user)
    return found
