"""Which reports there are: the one list for the side bar, the pages and the schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from analytics.reports import comparison, errors, forecast, keys, slow, top_users, usage
from analytics.reports.asking import Asked, ReportForm
from analytics.reports.tables import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`about`: a sentence for people. `icon`: a name of Material Symbols."""

    slug: str
    title: str
    about: str
    icon: str
    form_class: type[ReportForm]
    make: Callable[[Asked], Outcome]


_ALL: Final = (
    Report(
        slug="usage",
        title="Usage and cost",
        about="Requests, failures, tokens, cost and times, by whatever you choose, over any range.",
        icon="bar_chart",
        form_class=usage.Form,
        make=usage.make,
    ),
    Report(
        slug="errors",
        title="Errors",
        about="What failed, how often, since when and until when, with requests to look at.",
        icon="error",
        form_class=errors.Form,
        make=errors.make,
    ),
    Report(
        slug="slow",
        title="Slow calls",
        about="Percentiles of each model and provider, and the slowest calls.",
        icon="hourglass_top",
        form_class=slow.Form,
        make=slow.make,
    ),
    Report(
        slug="comparison",
        title="A/B comparison",
        about="Two models, providers, plans or routes beside each other, and whether they differ by more than chance.",
        icon="balance",
        form_class=comparison.Form,
        make=comparison.make,
    ),
    Report(
        slug="keys",
        title="Unused keys",
        about="API keys that were never used, or not for long: candidates for revoking.",
        icon="key_off",
        form_class=keys.Form,
        make=keys.make,
    ),
    Report(
        slug="users",
        title="Top users",
        about="Who costs, asks or fails most.",
        icon="leaderboard",
        form_class=top_users.Form,
        make=top_users.make,
    ),
    Report(
        slug="forecast",
        title="Forecast",
        about="What this month will cost, with its interval, for each organization and in all.",
        icon="trending_up",
        form_class=forecast.Form,
        make=forecast.make,
    ),
)
REPORTS: Final = {report.slug: report for report in _ALL}
