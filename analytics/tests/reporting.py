"""What tests of reports have in common: asking one without a page, and its table as plain values."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils import timezone

from accounts.models import User
from accounts.tests.factories import UserFactory
from analytics.reports.asking import Scope
from analytics.reports.registry import REPORTS
from analytics.reports.tables import Outcome


def operator() -> User:
    return UserFactory.create(is_superuser=True)


def outcome_of(slug: str, person: User, *, now: dt.datetime | None = None, **said: Any) -> Outcome:
    """The answer to what is said; the form's errors as an AssertionError."""
    report = REPORTS[slug]
    form = report.form_class(
        {name: str(value) for name, value in said.items()}, scope=Scope.of(person), now=now or timezone.now()
    )
    assert form.is_valid(), dict(form.errors)
    return report.make(form.asked())


def faults_of(slug: str, person: User, **said: Any) -> dict[str, list[str]]:
    """What the form says is wrong."""
    form = REPORTS[slug].form_class(said, scope=Scope.of(person), now=timezone.now())
    form.is_valid()
    return {name: [str(error) for error in errors] for name, errors in form.errors.items()}


def lines_of(outcome: Outcome, *names: str, table: int = 0) -> list[tuple[Any, ...]]:
    return [tuple(line.values.get(name) for name in names) for line in outcome.tables[table].lines]
