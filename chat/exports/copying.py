"""The way of an export: what it is to hold, said once and for all at its beginning, and the rows into the file.
`copy` knows no interactions: other exports take their rows the same way."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from django.utils import timezone

from chat import selection as selecting
from chat.exports import reading
from chat.exports.files import Checkpoint, Partial, Stream
from chat.exports.reading import Reader
from chat.models import Interaction
from chat.selection import Selection
from llmchat.lib.tables import Column, Format, Rows

#: What is written is on the disk, and counts, at least so often.
SAVE_SECONDS: Final = 1.0

#: What a checkpoint of this export says that it is.
EXPORT: Final = "export_interactions"


class Source(Protocol):
    """Rows in an order that their first values tell. A page with fewer than `full` rows is the last."""

    @property
    def full(self) -> int: ...

    def page(self, after: str | None) -> Iterator[Rows]:
        """The next rows after the one that begins with `after`, in pieces; None: from the beginning."""


def first_checkpoint(
    form: Format,
    selection: Selection,
    *,
    redact: bool,
    organizations: Iterable[UUID] | None = None,
    now: dt.datetime | None = None,
) -> Checkpoint:
    """The beginning of an export of what `selection` means now: what is accepted later is not in it, so that it has an
    end. `organizations`: whose rows alone; None: all. Raises SelectionError when it begins after now."""
    now = now or timezone.now()
    since, until = selection.bounds(now=now)
    fixed = selection.replace(period="", since=since, until=now if until is None else min(until, now))
    what: dict[str, Any] = {
        "export": EXPORT,
        "format": form.value,
        "redact": redact,
        "selection": fixed.values(),
        "organizations": None if organizations is None else sorted(str(each) for each in organizations),
        "columns": [column.name for column in reading.columns(redact=redact)],
    }
    selecting.parse(what["selection"])
    return Checkpoint(what=what, secret=secrets.token_hex(32) if redact else "")


def form_of(checkpoint: Checkpoint) -> Format:
    return Format(checkpoint.what["format"])


def columns_of(checkpoint: Checkpoint) -> tuple[Column, ...]:
    return reading.columns(redact=checkpoint.what["redact"])


def is_of_this_version(checkpoint: Checkpoint) -> bool:
    """Whether the rows still have the columns that the file began with."""
    return checkpoint.fits(columns_of(checkpoint))


def selection_of(checkpoint: Checkpoint) -> Selection:
    return selecting.parse(checkpoint.what["selection"])


def reader_of(checkpoint: Checkpoint) -> Reader:
    rows = Interaction.objects.all()
    whose = checkpoint.what["organizations"]
    if whose is not None:
        rows = rows.filter(organization_id__in=whose)
    return Reader(
        rows=selection_of(checkpoint).rows(rows),
        redact=checkpoint.what["redact"],
        secret=bytes.fromhex(checkpoint.secret),
    )


def copy(out: Partial | Stream, source: Source, *, go_on: Callable[[], bool]) -> bool:
    """Writes the rows after the checkpoint; whether they are all there. Between two pages it asks whether to `go_on`;
    that may use the database."""
    saved = time.monotonic()
    while True:
        before = out.checkpoint.rows
        for chunk in source.page(out.checkpoint.last):
            out.write(chunk)
        if out.checkpoint.rows - before < source.full:
            return True
        if time.monotonic() - saved > SAVE_SECONDS:
            out.save()
            saved = time.monotonic()
        if not go_on():
            out.save()
            return False


@dataclass(frozen=True, slots=True)
class Extent:
    """How far an export is, by the time that its rows are from: to count them first would read them twice."""

    since: dt.datetime | None
    until: dt.datetime | None

    def done(self, moment: dt.datetime | None) -> float:
        """From 0 to 1."""
        if moment is None or self.since is None or self.until is None or self.since >= self.until:
            return 0.0
        part: float = (moment - self.since) / (self.until - self.since)
        return min(max(part, 0.0), 1.0)


def extent_of(checkpoint: Checkpoint) -> Extent:
    since, until = selection_of(checkpoint).bounds()
    # The primary key's two ends.
    ends = [Interaction.objects.order_by(order).values_list("created_at", flat=True).first() for order in ("id", "-id")]
    return Extent(max(filter(None, (since, ends[0])), default=None), min(filter(None, (until, ends[1])), default=None))


def moment_of(identifier: str | None) -> dt.datetime | None:
    """When the row of this id came, whatever the id's version says: it stands where these bits put it."""
    if identifier is None:
        return None
    return dt.datetime.fromtimestamp((UUID(identifier).int >> 80) / 1000, tz=dt.UTC)


def summary(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the export holds, for people: by names of options."""
    return {"format": checkpoint.what["format"], "redact": checkpoint.what["redact"], **checkpoint.what["selection"]}
