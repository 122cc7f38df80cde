"""Who and what the requests came from and went to, the most used first, the rest together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from accounts.models import Organization
from analytics.admin.asking import ORGANIZATION
from analytics.admin.links import Links
from analytics.admin.tiles import money
from analytics.dashboard import Dashboard, Part, Ranking
from chat.admin import formats

_TITLES: Final[Mapping[str, str]] = {
    "model": "Models",
    "provider": "Providers",
    "organization": "Organizations",
    "user": "Users",
    "error_code": "Errors",
}
#: What nobody was named for, such as the model of a request that failed before one was chosen.
_NAMELESS: Final = "none"


def told(dashboard: Dashboard, links: Links, names: Mapping[UUID, str]) -> list[dict[str, Any]]:
    """Each ranking with its lines; those that cannot be told with these filters are left out. `names`: those of
    organizations that are known already."""
    names = _organization_names(dashboard.rankings, known=names)
    return [_told(key, dashboard.rankings[key], links, names) for key in _TITLES if key in dashboard.rankings]


def _told(key: str, ranking: Ranking, links: Links, names: Mapping[UUID, str]) -> dict[str, Any]:
    whole = sum(part.requests for _, part in ranking.groups) + ranking.rest.requests
    lines = [_line(key, value, part, whole, links, names) for value, part in ranking.groups]
    if ranking.rest.requests:
        lines.append({"name": "All others", "is_rest": True, **_figures(key, ranking.rest, whole)})
    return {
        "key": key,
        "title": _TITLES[key],
        "lines": lines,
        "has_errors": key not in {"error_code", "user"},
        "has_cost": key != "error_code",
    }


def _line(key: str, value: Any, part: Part, whole: int, links: Links, names: Mapping[UUID, str]) -> dict[str, Any]:
    line = {"name": value or _NAMELESS, "remark": "", "narrow": "", **_figures(key, part, whole)}
    match key:
        case "user":
            organization, user = value
            line |= {"name": user or _NAMELESS, "remark": names.get(organization, "") if len(names) > 1 else ""}
            if user:
                line["url"] = links.rows(organization=organization, user=user)
        case "organization":
            line |= {"name": names.get(value, str(value)), "url": links.rows(organization=value)}
            line["narrow"] = links.narrowed(**{ORGANIZATION: value})
        case _:
            field = "error" if key == "error_code" else key
            line |= {"url": links.rows(**{field: value}), "narrow": links.narrowed(**{field: value})}
    return line


def _figures(key: str, part: Part, whole: int) -> dict[str, Any]:
    return {
        "requests": formats.count(part.requests),
        "share": formats.share(part.requests, whole),
        "width": f"{100 * part.requests / whole:.1f}%" if whole else "0%",
        "errors": formats.share(part.failures, part.requests) if part.failures else formats.NOTHING,
        "cost": money(part.cost),
    }


def _organization_names(rankings: Mapping[str, Ranking], *, known: Mapping[UUID, str]) -> dict[UUID, str]:
    wanted: set[UUID] = {value for value, _ in _groups(rankings, "organization")}
    wanted |= {organization for (organization, _), _ in _groups(rankings, "user")}
    names = {organization: known[organization] for organization in wanted if organization in known}
    missing = wanted - set(names)
    return names | dict(Organization.objects.filter(pk__in=missing).values_list("pk", "name")) if missing else names


def _groups(rankings: Mapping[str, Ranking], key: str) -> Iterable[tuple[Any, Part]]:
    return rankings[key].groups if key in rankings else ()
