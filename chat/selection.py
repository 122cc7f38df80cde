"""Which interactions are meant: one value for the list in the admin, its links and saved filters, exports and reports.

A `Selection` is made by `parse` from names and texts, wherever they come from: a query string, a command's options or
stored JSON. `values` and `parameters` are the way back. It says nothing of who may see the rows: narrow the queryset
first, by `accounts.scoping`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from accounts.models import Organization
from chat import search
from chat.fields import JSONMember
from chat.models import Interaction, Status
from llmchat.lib.uuid7 import floor_at, moment_of

#: Stands for a name that a row does not have, such as the model of a request that nobody answered.
NONE: Final = "-"
#: Stretches of time that end now, with how people call them.
PERIODS: Final = {
    "hour": ("last hour", dt.timedelta(hours=1)),
    "day": ("last 24 hours", dt.timedelta(days=1)),
    "week": ("last 7 days", dt.timedelta(days=7)),
    "month": ("last 30 days", dt.timedelta(days=30)),
}
PRICES: Final = ("priced", "unpriced")
#: Characters of one value; longer ones are refused, whoever sends them.
LONGEST: Final = 1_000
#: Between the id that we gave a request and its interaction's.
_AROUND: Final = dt.timedelta(hours=1)
#: Years that an id can hold and that have a next one.
_YEARS: Final = range(1970, 9999)

#: The name of an ISO 8601 interval, which says `since` and `until` in one.
SPAN: Final = "span"

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class SelectionError(ValueError):
    """A value that selects nothing because it makes no sense. `name`: whose it is; the message says what would."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Interactions that fit everything said here; what is not said fits all.

    `since`: from this moment on; `until`: before it; `period`: a name of `PERIODS`, a stretch that ends now. Names
    (`model` is who answered, `asked` who was asked for, `provider`, `error` an error's code, `route` a route's reason)
    are whole; with `*` they are patterns, and `-` means that there is none. `trace`: the X-Request-Id; `request`: the
    caller's own id. `metadata`: keys, or `key=value`. `q`: words of prompt and response, see `chat.search`.
    """

    period: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    organization: UUID | None = None
    user: str = ""
    conversation: UUID | None = None
    key: UUID | None = None
    status: tuple[str, ...] = ()
    error: str = ""
    model: str = ""
    asked: str = ""
    provider: str = ""
    route: str = ""
    plan: str = ""
    endpoint: str = ""
    streamed: bool | None = None
    cached: bool | None = None
    fallback: bool | None = None
    retried: bool | None = None
    price: str = ""
    trace: str = ""
    request: str = ""
    metadata: tuple[str, ...] = ()
    q: str = ""

    def rows(self, queryset: QuerySet[Interaction] | None = None, *, now: dt.datetime | None = None) -> Any:
        """Those of `queryset` (all) that fit, in its order."""
        rows = Interaction.objects.all() if queryset is None else queryset
        return rows.filter(self.by_index(now=now) & self.by_row())

    def bounds(self, *, now: dt.datetime | None = None) -> tuple[dt.datetime | None, dt.datetime | None]:
        """The moments from which on and before which, with `period` reckoned from `now`."""
        since = self.since
        if self.period:
            begun = (now or timezone.now()) - PERIODS[self.period][1]
            since = begun if since is None else max(since, begun)
        return since, self.until

    def by_index(self, *, now: dt.datetime | None = None) -> Q:
        """The part of the conditions that an index serves together with the order of time."""
        since, until = self.bounds(now=now)
        found = Q()
        if since is not None:
            found &= Q(id__gte=floor_at(since))
        if until is not None:
            found &= Q(id__lt=floor_at(until))
        if self.organization is not None:
            found &= Q(organization_id=self.organization)
        if self.user and self.organization is not None:
            found &= Q(user_id=self.user)
        if self.conversation is not None:
            found &= Q(conversation_id=self.conversation)
        if self.request:
            found &= Q(request_id=self.request)
        if is_ours(self.trace):
            # Made when the request came in, about as its interaction's.
            moment = moment_of(UUID(self.trace))
            found &= Q(id__gte=floor_at(moment - _AROUND), id__lt=floor_at(moment + _AROUND))
        return found

    def by_row(self) -> Q:
        """The other conditions, each to be asked of a row; nothing when there are none."""
        wholes = {"api_key_id": self.key, "plan": self.plan, "endpoint": self.endpoint, "trace_id": self.trace}
        if self.user and self.organization is None:
            wholes["user_id"] = self.user
        flags = {"streamed": self.streamed, "cached": self.cached, "fallback": self.fallback}
        found = Q(**{column: value for column, value in wholes.items() if value})
        found &= Q(**{column: value for column, value in flags.items() if value is not None})
        if self.retried is not None:
            found &= Q(retries__gt=0) if self.retried else Q(retries=0)
        if self.status:
            found &= Q(status__in=self.status)
        names = {
            "error_code": self.error,
            "model": self.model,
            "model_requested": self.asked,
            "provider": self.provider,
            "route_reason": self.route,
        }
        for column, name in names.items():
            if name:
                found &= _named(column, name)
        if self.price:
            found &= Q(cost__isnull=False) if self.price == "priced" else Q(cost=None, input_tokens__isnull=False)
        for entry in self.metadata:
            key, is_pair, value = entry.partition("=")
            found &= Q(JSONMember("metadata", key, value if is_pair else None))
        if self.q:
            found &= search.matching(self.q)
        return found

    def values(self) -> dict[str, Any]:
        """What was said, as `parse` takes it and JSON keeps it."""
        return {
            field.name: _written(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) not in (None, "", ())
        }

    def parameters(self) -> str:
        """The query string of the admin's list of interactions that shows them."""
        return urlencode(self.values(), doseq=True)

    def replace(self, **changes: Any) -> Selection:
        """The same with other values, of the fields' own types."""
        return dataclasses.replace(self, **changes)


def is_ours(trace: str) -> bool:
    """Whether this X-Request-Id looks like one that we made: then it says when."""
    try:
        return str(UUID(trace)) == trace and UUID(trace).version == 7
    except ValueError:
        return False


NAMES: Final = tuple(field.name for field in dataclasses.fields(Selection))


def parse(values: Mapping[str, Any], *, names: Iterable[str] = NAMES) -> Selection:
    """The selection that `values` say: texts, or lists of them, by the names of `Selection`'s fields; other names are
    passed over, as are those not in `names`. Moments are ISO 8601, in UTC unless they say otherwise, and a date is its
    midnight; an organization is an id or a name; `created_at_from` and `created_at_to` are days, both included;
    `span` is two moments with a stroke between them.

    Raises `SelectionError` for the first value that makes no sense.
    """
    wanted = set(names)
    values = {_plain(name): given for name, given in values.items()}
    said = {name: texts for name in (*NAMES, *_DAYS) if (texts := _texts(name, values.get(name)))}
    for end, text in zip(("since", "until"), _ends(values.get(SPAN)), strict=False):
        said.setdefault(end, [text])
    found: dict[str, Any] = {}
    for name, texts in said.items():
        field, read = _READERS[name]
        if field not in wanted:
            continue
        if field not in _MANY and len(texts) > 1:
            raise SelectionError(name, f"{name} was given {len(texts)} times. Give it once.")
        if field in found:
            raise SelectionError(name, f"{name} and {field} both say where to begin or end. Give one of them.")
        found[field] = (
            tuple(dict.fromkeys(read(name, text) for text in texts)) if field in _MANY else read(name, texts[0])
        )
    selection = Selection(**found)
    if selection.q and not search.terms(selection.q):
        raise SelectionError("q", f"There is no word in “{selection.q[:60]}” to look for. Give words, or a “phrase”.")
    if selection.since and selection.until and selection.since >= selection.until:
        raise SelectionError("until", f"since {selection.since:%Y-%m-%d %H:%M} is not before until. Swap them.")
    return selection


def _plain(name: str) -> str:
    """The name without what the admin's own links put behind it."""
    return name.removesuffix("__exact").removesuffix("__id")


# --- From texts to values ---------------------------------------------------------------------------------------------
def _texts(name: str, given: Any) -> list[str]:
    texts = [given] if isinstance(given, str | bool | int) else given
    if texts is None:
        return []
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str | bool | int) for text in texts):
        raise SelectionError(name, f"{name} must be a text or a list of texts.")
    found = [str(text).strip() for text in texts]
    if any(len(text) > LONGEST for text in found):
        raise SelectionError(name, f"{name} is too long: {LONGEST:,} characters at most.")
    if any("\x00" in text for text in found):
        raise SelectionError(name, f"{name} has a NUL character in it. No text on record has one.")
    return [text for text in found if text]


def _ends(given: Any) -> list[str]:
    if not (texts := _texts(SPAN, given)):
        return []
    ends = texts[0].split("/")
    if len(texts) > 1 or len(ends) != 2 or not all(ends):
        raise SelectionError(
            SPAN, f"{SPAN} “{texts[0]}” is no interval. Give one such as 2026-05-31T14:00Z/2026-06-01."
        )
    return ends


def _text(name: str, text: str) -> str:
    return text


def _choice(name: str, text: str, *, of: Iterable[str]) -> str:
    if text not in (choices := tuple(of)):
        raise SelectionError(name, f"{name} cannot be “{text}”. It is one of {', '.join(choices)}.")
    return text


def _flag(name: str, text: str) -> bool:
    if (word := text.lower()) not in _TRUE | _FALSE:
        raise SelectionError(name, f"{name} cannot be “{text}”. It is yes or no.")
    return word in _TRUE


def _identifier(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise SelectionError(name, f"{name} “{text}” is no id. An id looks like {UUID(int=0)}.") from None


def _organization(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        found = Organization.objects.filter(name=text).values_list("pk", flat=True).first()
    if found is None:
        raise SelectionError(name, f"There is no organization “{text}”. Give its name or its id.")
    return found


def _moment(name: str, text: str) -> dt.datetime:
    try:
        day = parse_date(text)
        # An address in which nobody wrote %2B says a blank for a plus.
        moment = dt.datetime.combine(day, dt.time()) if day else parse_datetime(_with_plus(text))
    except ValueError:
        moment = None
    if moment is None or moment.year not in _YEARS:
        raise SelectionError(name, f"{name} “{text}” is no moment. Give one such as 2026-05-31 or 2026-05-31T14:00Z.")
    return (moment if timezone.is_aware(moment) else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


def _with_plus(text: str) -> str:
    return text.replace(" ", "+") if "T" in text else text


def _day(name: str, text: str, *, plus: int = 0) -> dt.datetime:
    return _moment(name, text).replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=plus)


def _member(name: str, text: str) -> str:
    if not text.partition("=")[0]:
        raise SelectionError(name, f"{name} “{text}” names no key. Give a key, or key=value.")
    return text


_DAYS: Final = ("created_at_from", "created_at_to")
_MANY: Final = frozenset({"status", "metadata"})
_READERS: Final[Mapping[str, tuple[str, Any]]] = {
    **{name: (name, _text) for name in NAMES},
    "period": ("period", functools.partial(_choice, of=PERIODS)),
    "since": ("since", _moment),
    "until": ("until", _moment),
    "created_at_from": ("since", _day),
    "created_at_to": ("until", functools.partial(_day, plus=1)),
    "organization": ("organization", _organization),
    "conversation": ("conversation", _identifier),
    "key": ("key", _identifier),
    "status": ("status", functools.partial(_choice, of=Status.values)),
    "endpoint": ("endpoint", functools.partial(_choice, of=Interaction.Endpoint.values)),
    "price": ("price", functools.partial(_choice, of=PRICES)),
    **{name: (name, _flag) for name in ("streamed", "cached", "fallback", "retried")},
    "metadata": ("metadata", _member),
}


# --- From values to texts and conditions ------------------------------------------------------------------------------
def _written(value: Any) -> Any:
    match value:
        case bool():
            return "1" if value else "0"
        case dt.datetime():
            return value.astimezone(dt.UTC).replace(tzinfo=None).isoformat() + "Z"
        case UUID():
            return str(value)
        case tuple():
            return list(value)
    return value


def fits(name: str, value: str) -> bool:
    """Whether a row's value has this name: what `_named` asks the database."""
    if name == NONE:
        return not value
    if "*" not in name:
        return value == name
    first, *middle, last = name.lower().split("*")
    value = value.lower()
    return bool(value) and value.startswith(first) and value.endswith(last) and all(part in value for part in middle)


def _named(column: str, name: str) -> Q:
    if name == NONE:
        return Q(**{column: ""})
    if "*" not in name:
        return Q(**{column: name})
    first, *middle, last = name.split("*")
    found = [Q(**{f"{column}__istartswith": first})] if first else []
    found += [Q(**{f"{column}__icontains": part}) for part in middle if part]
    found += [Q(**{f"{column}__iendswith": last})] if last else []
    return functools.reduce(operator.and_, found, ~Q(**{column: ""}))
