"""`manage.py export_interactions`: the record, or a selection of it, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from audit import entries
from audit.models import Action
from chat.exports import copying
from chat.exports.files import Checkpoint, Partial, Stream
from chat.management import exporting, selecting
from chat.management.exporting import ExportCommand
from chat.selection import SelectionError
from llmchat.lib.tables import Column, Format
from llmchat.lib.wording import counted


class Command(ExportCommand):
    help = (
        "Writes interactions in the order of time, with their texts, in constant memory. What was accepted after the "
        f"beginning is not in it. {exporting.HELP}"
    )
    name = copying.EXPORT
    unit = ("interaction", "interactions")

    _unreadable = 0

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--redact",
            action="store_true",
            help="without texts, metadata and request ids; users by pseudonyms that hold within the file",
        )
        selecting.add_options(parser)

    def first_checkpoint(self, form: Format, options: dict[str, Any]) -> Checkpoint:
        try:
            return copying.first_checkpoint(form, selecting.selection_of(options), redact=options["redact"])
        except SelectionError as error:
            raise CommandError(str(error)) from error

    def columns(self, checkpoint: Checkpoint) -> Sequence[Column]:
        return copying.columns_of(checkpoint)

    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = selecting.selection_of(options).values()
        # It became moments when the file was begun.
        said.pop("period", None)
        return {**said, **({"redact": True} if options["redact"] else {})}

    def summary(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return copying.summary(checkpoint)

    def enter(self, checkpoint: Checkpoint, *, output: str) -> None:
        entries.record(
            Action.EXPORTED,
            object_type="chat.interaction",
            organization_id=copying.selection_of(checkpoint).organization,
            details={"output": output, **copying.summary(checkpoint)},
        )

    def copy(self, out: Partial | Stream, tell: Callable[[float], None]) -> None:
        reader = copying.reader_of(out.checkpoint)
        extent = copying.extent_of(out.checkpoint)

        def go_on() -> bool:
            tell(extent.done(copying.moment_of(out.checkpoint.last)))
            return True

        copying.copy(out, reader, go_on=go_on)
        self._unreadable = reader.unreadable

    def warnings(self) -> Sequence[str]:
        if not self._unreadable:
            return ()
        return (f"Encrypted with a key that is not in TEXT_ENCRYPTION_KEYS: {counted(self._unreadable, 'text')}.",)
