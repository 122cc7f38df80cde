"""The end of a program whose settings are wrong: one line that names the setting and the remedy, and no traceback."""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

EXIT_CODE = 2


def settings_or_exit() -> None:
    """Reads the settings now. Ends the program with code 2 if they are wrong."""
    try:
        settings.INSTALLED_APPS  # noqa: B018 - the first access reads all
    except ImproperlyConfigured as error:
        sys.stderr.write(f"llmchat: {error}\n")
        raise SystemExit(EXIT_CODE) from None
