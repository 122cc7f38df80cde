"""The filters of interactions as options of a command: those of the admin's list, by the same names."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from chat import selection
from chat.selection import Selection, SelectionError

_HELP: Final = {
    "period": "a stretch that ends now: hour, day, week or month",
    "since": "from this moment on, such as 2026-05-31 or 2026-05-31T14:00Z",
    "until": "before this moment",
    "organization": "of this organization: its name or its id",
    "user": "of this user",
    "conversation": "of the conversation with this id",
    "key": "asked with the API key of this id",
    "status": "that ended so: succeeded, failed, cancelled, interrupted; several with commas",
    "error": "with this error code; * stands for anything",
    "model": "answered by this model; * stands for anything",
    "asked": "that asked for this model; * stands for anything",
    "provider": "answered by this provider",
    "route": "routed for this reason",
    "plan": "on this plan",
    "endpoint": "of this endpoint: chat or completions",
    "streamed": "streamed: yes or no",
    "cached": "answered from the cache: yes or no",
    "fallback": "answered by another than was asked: yes or no",
    "retried": "that took more than one call: yes or no",
    "price": "priced or unpriced",
    "trace": "with this X-Request-Id",
    "request": "with this request id of the caller",
    "metadata": "with this key, or key=value, in the metadata; several times for several",
    "q": "with these words in prompt or response",
}
_LISTS: Final = {"status", "metadata"}


def add_options(parser: CommandParser) -> None:
    """Adds an option for each filter."""
    group = parser.add_argument_group("filters", "All that are given must fit.")
    for name in selection.NAMES:
        action = "append" if name in _LISTS else "store"
        group.add_argument(f"--{name}", action=action, metavar=name.upper(), help=_HELP.get(name))


def selection_of(options: dict[str, Any]) -> Selection:
    """What the options say. Raises CommandError, which names the option."""
    values = {name: options[name] for name in selection.NAMES if options.get(name)}
    if "status" in values:
        values["status"] = [word for text in values["status"] for word in text.split(",")]
    try:
        return selection.parse(values)
    except SelectionError as error:
        raise CommandError(f"--{error.name}: {error}", returncode=2) from error
