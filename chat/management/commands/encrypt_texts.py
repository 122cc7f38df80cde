"""`manage.py encrypt_texts`: encrypts what is plain or under an older key with the newest of `TEXT_ENCRYPTION_KEYS`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from chat import rotation
from chat.encryption import is_on
from llmchat.lib.encryption import KeyRing, keys_from
from llmchat.lib.uuid7 import moment_of
from llmchat.lib.wording import counted


class Command(BaseCommand):
    help = (
        "Brings the record's texts to the newest key of TEXT_ENCRYPTION_KEYS; with the setting empty and "
        "--decrypt-with, decrypts them. Can be stopped and started again; the server may go on meanwhile."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--decrypt-with",
            metavar="FILE",
            help="a file with further keys to read with, in base64, one a line; - for standard input",
        )
        parser.add_argument("--dry-run", action="store_true", help="only count what would change")

    def handle(self, *args: Any, **options: Any) -> None:
        further = _keys_in(options["decrypt_with"]) if options["decrypt_with"] else ()
        if not is_on() and not further:
            raise CommandError(
                "TEXT_ENCRYPTION_KEYS is empty: there is nothing to encrypt with. Set it, or name the keys to decrypt "
                "with by --decrypt-with FILE."
            )
        opening = KeyRing((*settings.TEXT_ENCRYPTION_KEYS, *further))
        verb = f"{'would be ' if options['dry_run'] else ''}{'encrypted' if is_on() else 'decrypted'}"
        unreadable = 0
        for model in rotation.models_with_texts():
            changed = 0
            name = model._meta.verbose_name_plural
            for step in rotation.rekey(model, opening=opening, dry_run=options["dry_run"]):
                changed += step.changed
                unreadable += step.unreadable
                self.stderr.write(f"{name}: {changed:,} {verb}, up to {moment_of(step.last_id):%Y-%m-%d %H:%M:%S}")
            self.stderr.write(f"{name}: {changed:,} {verb}.")
        if unreadable:
            raise CommandError(
                f"No key opens texts of {counted(unreadable, 'row')}; they stay as they are. Add their key at the end "
                "of TEXT_ENCRYPTION_KEYS, or by --decrypt-with FILE, and run this again."
            )


def _keys_in(name: str) -> tuple[bytes, ...]:
    try:
        return keys_from(sys.stdin.read() if name == "-" else Path(name).read_text(encoding="ascii"))
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from None
