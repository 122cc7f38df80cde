"""Finds what a command's argument names, or says in one line what there is instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.core.management import CommandError

from accounts.models import Organization, Plan

_MOST_SHOWN = 10


def organization_named(name: str) -> Organization:
    organization = Organization.objects.select_related("plan").filter(name=name).first()
    if organization is None:
        names = Organization.objects.values_list("name", flat=True)
        raise CommandError(
            f"There is no organization {name!r}. {_instead(name, names)} "
            f"Create it with: manage.py create_organization {name!r}"
        )
    return organization


def plan_named(slug: str) -> Plan:
    plan = Plan.objects.filter(slug=slug).first()
    if plan is None:
        raise CommandError(
            f"There is no plan {slug!r}. {_instead(slug, Plan.objects.values_list('slug', flat=True))} "
            "Plans are made in the admin."
        )
    return plan


def one_line(error: ValidationError) -> str:
    """All complaints of a validation in one line."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items())


def _instead(name: str, existing: Iterable[str]) -> str:
    names = list(existing)
    if near := difflib.get_close_matches(name, names, n=3):
        return f"Did you mean {' or '.join(repr(other) for other in near)}?"
    if not names:
        return "There is none yet."
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"There are: {', '.join(names[:_MOST_SHOWN])}{more}."
