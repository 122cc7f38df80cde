"""The numbers beside the list of interactions: a fragment that the list asks for once it is there itself, so that it
never waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from accounts.models import Organization
from accounts.scoping import scope_of
from analytics import facets
from analytics.admin.links import rows
from analytics.facets import Counts
from chat import walking
from chat.admin import formats
from chat.models import Status
from chat.selection import NONE, PERIODS, Selection, SelectionError, parse
from llmchat.lib.uuid7 import moment_of

_TITLES: Final[Mapping[str, str]] = {
    "status": "Status",
    "provider": "Provider",
    "model": "Model",
    "error": "Error",
    "organization": "Organization",
}
#: What roll-ups do not know, in the words of the list's filters.
_BEYOND: Final[Mapping[str, str]] = {
    "q": "search",
    "asked": "model asked for",
    "route": "route with *",
    "price": "priced or not",
    "trace": "request id",
    "request": "caller's request id",
}
#: Values that are told one by one.
_TOP: Final = 8
_NAMELESS: Final = "none"


def fragment(request: HttpRequest) -> HttpResponse:
    """For the query string of the list; goes within `AdminSite.admin_view`."""
    try:
        chosen = parse(dict(request.GET.lists()))
        counts = facets.count(chosen, organizations=scope_of(request), now=timezone.now())
    except SelectionError as error:
        return render(request, "admin/dashboard/facets.html", {"problem": str(error)}, status=400)
    except walking.TooSlow:
        return render(request, "admin/dashboard/facets.html", {"problem": "Counting took too long. Choose less time."})
    names = _names(counts)
    told = [_told(name, counts.by[name], counts.selection, names) for name in _TITLES if name in counts.by]
    context = {
        "facets": [facet for facet in told if facet["values"]],
        "counts": counts,
        "beyond": [_BEYOND.get(name, name) for name in counts.beyond],
        "counted": formats.count(counts.counted),
        "looked_to": moment_of(counts.looked_to) if counts.looked_to else None,
        "period": PERIODS[counts.selection.period][0] if counts.selection.period and not chosen.period else "",
        "without_organizations": "organization" not in counts.by and scope_of(request) is None,
    }
    return render(request, "admin/dashboard/facets.html", context)


def _told(name: str, numbers: Counter[Any], chosen: Selection, names: Mapping[UUID, str]) -> dict[str, Any]:
    found = {value: number for value, number in numbers.items() if number and (name != "error" or value)}
    ordered = sorted(found, key=lambda value: (-found[value], str(value)))
    shown = ordered[:_TOP]
    # What is chosen stays to be taken off, however few there are.
    shown += [value for value in ordered[_TOP:] if _is_chosen(name, value, chosen)]
    rest = sum(found.values()) - sum(found[value] for value in shown)
    return {
        "title": _TITLES[name],
        "values": [
            {
                "label": _label(name, value, names),
                "number": formats.count(found[value]),
                "is_chosen": _is_chosen(name, value, chosen),
                "url": rows(_toggled(name, value, chosen)),
            }
            for value in shown
        ],
        "rest": formats.count(rest) if rest else "",
    }


def _label(name: str, value: Any, names: Mapping[UUID, str]) -> str:
    if name == "organization":
        return names.get(value, str(value))
    if name == "status":
        return str(dict(Status.choices).get(value, value))
    return str(value) or _NAMELESS


def _is_chosen(name: str, value: Any, chosen: Selection) -> bool:
    given = getattr(chosen, name)
    return value in given if name == "status" else bool(given) and given == (value or NONE)


def _toggled(name: str, value: Any, chosen: Selection) -> Selection:
    """The list with this value, or without it when it is chosen."""
    if name == "status":
        given = tuple(each for each in chosen.status if each != value) if value in chosen.status else (value,)
        return chosen.replace(status=given)
    nothing = None if name == "organization" else ""
    return chosen.replace(**{name: nothing if _is_chosen(name, value, chosen) else value or NONE})


def _names(counts: Counts) -> dict[UUID, str]:
    wanted = [pk for pk, _ in counts.by.get("organization", Counter()).most_common(_TOP)]
    if counts.selection.organization:
        wanted.append(counts.selection.organization)
    return dict(Organization.objects.filter(pk__in=wanted).values_list("pk", "name"))
