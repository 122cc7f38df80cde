"""What commands that export have in common: their options, how a file that was not finished is gone on with, the
progress, and what they say and exit with when something is in the way. Knows no rows."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseTrouble
from django.db import transaction

from chat.exports import files
from chat.exports.files import Checkpoint, Partial, Stream, Unusable
from chat.management.meter import Meter
from llmchat.lib.tables import Column, Format
from llmchat.lib.wording import counted

#: What is said of every one of them.
HELP: Final = (
    "An export that was ended on the way goes on with --resume. Exits with 0 when the file is whole, 1 when it is not "
    "finished, 2 when options or files do not fit, 130 after Ctrl-C. That it was exported is on the audit trail."
)


class ExportCommand(BaseCommand, ABC):
    """A command that writes one file of rows, or to standard output.

    `unit`: what one of its rows and what several are called. `name`: the command's own.
    """

    name: ClassVar[str]
    unit: ClassVar[tuple[str, str]]

    # --- What each of them says -------------------------------------------------------------------------------------
    @abstractmethod
    def first_checkpoint(self, form: Format, options: dict[str, Any]) -> Checkpoint:
        """The beginning; its `what` has "format" and "columns". Raises CommandError or Unusable."""

    @abstractmethod
    def columns(self, checkpoint: Checkpoint) -> Sequence[Column]:
        """What each row has, in order."""

    @abstractmethod
    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        """What was said on the command line, to be compared with `summary`."""

    @abstractmethod
    def summary(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the file was begun for, by names of options."""

    @abstractmethod
    def enter(self, checkpoint: Checkpoint, *, output: str) -> None:
        """Writes the entry of the audit trail."""

    @abstractmethod
    def copy(self, out: Partial | Stream, tell: Callable[[float], None]) -> None:
        """Writes the rows. `tell`: to be called now and then with how far it is, from 0 to 1."""

    def warnings(self) -> Sequence[str]:
        """What else there is to say at the end."""
        return ()

    # --- What they have in common -----------------------------------------------------------------------------------
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=[form.value for form in Format], help="the file's format")
        parser.add_argument("--output", required=True, metavar="FILE", help="the file; - for standard output")
        parser.add_argument("--resume", action="store_true", help="go on with an export to FILE that was not finished")
        parser.add_argument(
            "--force", action="store_true", help="overwrite FILE, and what is left of an earlier export"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            out = self._out(options)
        except CommandError as error:
            error.returncode = 2
            raise
        except (Unusable, OSError) as error:
            raise CommandError(_reason(error), returncode=2) from error
        before = out.checkpoint.rows
        try:
            self._copy(out)
        except (KeyboardInterrupt, DatabaseTrouble, OSError) as error:
            if isinstance(out, Stream) and isinstance(error, OSError):
                # Python would try once more to write out what is left.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 130 if isinstance(error, KeyboardInterrupt) else 1
            raise CommandError(f"Not finished: {_reason(error)}. {self._remedy(out)}", returncode=code) from error
        seconds = time.monotonic() - began
        written = out.checkpoint.rows - before
        self.stderr.write(
            counted(out.checkpoint.rows, *self.unit)
            + (f" to {out.path}" if isinstance(out, Partial) else "")
            + f", {written:,} of them in {seconds:.1f} s ({written / max(seconds, 0.001):,.0f} a second).",
            style_func=str,
        )
        for warning in self.warnings():
            self.stderr.write(warning)

    def _copy(self, out: Partial | Stream) -> None:
        meter = Meter(self.stderr, self.unit, done=out.checkpoint.rows)
        try:
            with out if isinstance(out, Partial) else contextlib.nullcontext():
                self.copy(out, lambda part: meter.tell(out.checkpoint.rows, part))
                out.finish()
        finally:
            meter.end()

    def _out(self, options: dict[str, Any]) -> Partial | Stream:
        to_stdout = options["output"] == "-"
        if to_stdout and options["resume"]:
            raise Unusable("Standard output cannot be gone on with. Name a file with --output.")
        path = Path(options["output"])
        if not to_stdout and not path.parent.is_dir():
            raise Unusable(f"There is no directory {path.parent}. Make it first.")
        if not to_stdout and path.is_dir():
            raise Unusable(f"{path} is a directory. Name a file in it.")
        if options["resume"]:
            return self._resumed(path, options)
        if options["format"] is None:
            raise Unusable("Say which --format: csv, jsonl or parquet.")
        form = Format(options["format"])
        checkpoint = self.first_checkpoint(form, options)
        columns = self.columns(checkpoint)
        # Before anything is written: nobody takes anything away unseen.
        with transaction.atomic():
            self.enter(checkpoint, output=options["output"])
        if to_stdout:
            return Stream(sys.stdout.buffer, form, columns, checkpoint)
        return Partial.begin(path, form, columns, checkpoint, force=options["force"])

    def _resumed(self, path: Path, options: dict[str, Any]) -> Partial:
        """Goes on with what the file was begun for; options may repeat it, and must not say otherwise."""
        checkpoint = files.read_checkpoint(path)
        if checkpoint.what.get("export") != self.name or not checkpoint.fits(self.columns(checkpoint)):
            raise Unusable(f"{path} was begun by another command or version. Begin anew with --force.")
        held = self.summary(checkpoint)
        said = self.asked(options)
        if options["format"] is not None:
            said["format"] = options["format"]
        if any(held.get(name) != value for name, value in said.items()):
            begun = ", ".join(f"--{name} {value}" for name, value in held.items())
            raise Unusable(f"{path} was begun with {begun}. Leave these options out, or begin anew with --force.")
        return Partial.resume(path, Format(checkpoint.what["format"]), self.columns(checkpoint), checkpoint)

    def _remedy(self, out: Partial | Stream) -> str:
        if isinstance(out, Stream):
            return "Name a file with --output, so that it can be gone on with."
        return f"Go on with: {shlex.join(['manage.py', self.name, f'--output={out.path}', '--resume'])}"


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, BrokenPipeError):
        return "whoever read standard output has gone"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk is full; make room"
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be written by this user"
    return " ".join(str(error).split()) or type(error).__name__
