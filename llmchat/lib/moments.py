"""Moments that people type as options of commands."""

from __future__ import annotations

import datetime as dt

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime


def utc_moment(option: str, text: str | None) -> dt.datetime | None:
    """The moment that `text` says, in UTC unless it says otherwise; a date is its midnight. None stays None.

    Raises CommandError, naming `option`, for what is neither.
    """
    if text is None:
        return None
    try:
        day = parse_date(text)
        moment = dt.datetime.combine(day, dt.time()) if day else parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{option} {text!r} is not a moment. Give one such as 2026-05-31 or 2026-05-31T14:00Z.")
    return moment if timezone.is_aware(moment) else moment.replace(tzinfo=dt.UTC)
