"""Values of dimensions in words: ids of organizations and keys become their names, each kind with one query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from accounts.models import APIKey, Organization
from chat.models import Status

#: For what no name is known, such as the model of a request that failed before one was chosen.
UNKNOWN: Final = "unknown"
#: Ids that one query asks for: SQLite has a limit.
_AT_ONCE: Final = 500

Names = Mapping[Any, str]


def names_of(dimension: str, values: Iterable[Any]) -> Names:
    """By value, for people."""
    wanted = set(values)
    match dimension:
        case "organization_id":
            known = _looked_up(Organization.objects.all(), "name", wanted)
            return {value: known.get(value, f"{value} (deleted)") for value in wanted}
        case "api_key_id":
            known = {
                pk: f"{name} ({prefix}…)"
                for pk, (name, prefix) in _looked_up(APIKey.objects.all(), ("name", "prefix"), wanted - {None}).items()
            }
            return {value: "without a key" if value is None else known.get(value, f"{value}") for value in wanted}
        case "status":
            return {value: Status(value).label if value in Status.values else UNKNOWN for value in wanted}
        case "cached":
            return {True: "from the cache", False: "from a model"}
        case "error_code":
            return {value: value or "none" for value in wanted}
        case _:
            return {value: value or UNKNOWN for value in wanted}


def _looked_up(rows: Any, column: str | tuple[str, ...], wanted: set[Any]) -> dict[Any, Any]:
    columns = (column,) if isinstance(column, str) else column
    ids = sorted(wanted)
    found: dict[Any, Any] = {}
    for start in range(0, len(ids), _AT_ONCE):
        for pk, *values in rows.filter(pk__in=ids[start : start + _AT_ONCE]).values_list("pk", *columns):
            found[pk] = values[0] if isinstance(column, str) else tuple(values)
    return found
