"""The list of interactions at any size: what was asked for as a `Selection`, and pages by id at a bounded cost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict
from unfold.views import ChangeList

from accounts.scoping import roles_of
from chat import encryption, selection, walking
from chat.admin.listing import BoundedPaginator
from chat.models import Interaction
from chat.selection import Selection, SelectionError
from llmchat.lib.uuid7 import moment_of

BEFORE, AFTER = "before", "after"
#: Parameters that are no part of a selection.
_OTHERS = frozenset({BEFORE, AFTER, "all", "o", "p", "e", "_facets", "_popup", "_to_field"})
_NAMES = frozenset({*selection.NAMES, selection.SPAN, "created_at_from", "created_at_to"})

_CHOSEN = "_chat_chosen"


def chosen_by(request: HttpRequest) -> Selection:
    """What the list is asked for. Raises `SelectionError`."""
    chosen: Selection | None = getattr(request, _CHOSEN, None)
    if chosen is None:
        chosen = selection.parse(dict(request.GET.lists()))
        setattr(request, _CHOSEN, chosen)
    return chosen


def without(query: QueryDict, name: str) -> str:
    """The query string without a selection's value."""
    kept = query.copy()
    for given in query:
        if given.removesuffix("__exact").removesuffix("__id") == name or (
            name in {"since", "until"} and given == "span"
        ):
            del kept[given]
    for cursor in (BEFORE, AFTER):
        kept.pop(cursor, None)
    return kept.urlencode()


def cursor_of(request: HttpRequest, name: str) -> UUID | None:
    """Raises `SelectionError`."""
    try:
        return UUID(request.GET[name]) if request.GET.get(name) else None
    except ValueError:
        raise SelectionError(name, "That page is not there. Here is the newest one.") from None


class KeysetPaginator(BoundedPaginator):
    template_name = "admin/chat/interaction/pagination.html"


class BrowsingChangeList(ChangeList):
    """Pages of interactions; `problem` says in words why there may be more than is shown."""

    chosen: Selection
    page: walking.Page
    problem = ""

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        given = {name.removesuffix("__exact").removesuffix("__id"): value for name, value in self.filter_params.items()}
        if unknown := given.keys() - _NAMES - _OTHERS:
            raise IncorrectLookupParameters(f"There is no filter {', '.join(sorted(unknown))}")
        shown = {getattr(entry, "parameter_name", None) or entry[0] for entry in self.list_filter}
        shown |= {"created_at_from", "created_at_to"}
        return {name: value for name, value in given.items() if name in shown}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Interaction]:
        self.chosen, self.query_dict = chosen_by(request), request.GET
        self.filter_specs, self.has_filters, _, _, self.has_active_filters = self.get_filters(request)
        self.clear_all_filters_qs = self.get_query_string(remove=list({*self.filter_params} - {"q"}))
        rows: QuerySet[Interaction] = self.root_queryset
        return rows.select_related(*self.list_select_related)

    def get_results(self, request: HttpRequest) -> None:
        self.before, self.after = cursor_of(request, BEFORE), cursor_of(request, AFTER)
        organizations = None if request.user.is_superuser else list(roles_of(request))
        rows, chosen = walking.by_identifier(self.queryset, self.chosen)
        try:
            self.page = walking.page(
                rows,
                chosen,
                organizations=organizations,
                before=self.before,
                after=self.after,
                limit=self.list_per_page,
                are_all=rows is self.queryset,
            )
        except walking.TooSlow:
            self.page = walking.Page(rows=[], has_more=False)
            self.problem = (
                f"This was stopped after {walking.STATEMENT_SECONDS} seconds. Choose a shorter time, or another filter."
            )
        self.result_list = self.page.rows
        self.result_count = self.full_result_count = len(self.page.rows)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(self.page.rows)
        self.paginator = KeysetPaginator(self.page.rows, self.list_per_page)
        if chosen.q and encryption.is_on():
            self.problem = "Texts are encrypted: words in them cannot be found. Users and request ids can."

    # --- For the templates ---------------------------------------------------------------------------------------
    @property
    def only(self) -> list[tuple[str, str, str]]:
        """Conditions that have no field of their own among the filters: name, value, and the list without them."""
        fields = {
            "key": "API key",
            "conversation": "conversation",
            "route": "route",
            "since": "since",
            "until": "until",
        }
        if {"span", "created_at_from", "created_at_to"} & self.filter_params.keys():
            del fields["since"], fields["until"]
        said = self.chosen.values()
        return [
            (label, str(said[name]), f"?{without(self.query_dict, name)}")
            for name, label in fields.items()
            if name in said
        ]

    @property
    def span(self) -> str:
        """From when to when the page's rows are."""
        moments = [f"{moment_of(row.pk):%Y-%m-%d %H:%M:%S}" for row in (self.result_list[0], self.result_list[-1])]
        return moments[0] if moments[0] == moments[1] else " – ".join(moments)

    @property
    def looked_to(self) -> str:
        """How far was looked when it is not known whether there is more."""
        return f"{moment_of(self.page.looked_to):%Y-%m-%d %H:%M:%S}" if self.page.looked_to else ""

    @property
    def newest_url(self) -> str | None:
        return self._url() if self.before or self.after else None

    @property
    def newer_url(self) -> str | None:
        rows = self.page.rows
        if self.after is not None:
            edge = rows[0].pk if self.page.has_more else self.page.looked_to
            return self._url(after=edge) if edge else None
        return self._url(after=rows[0].pk) if self.before is not None and rows else None

    @property
    def older_url(self) -> str | None:
        rows = self.page.rows
        if self.after is not None:
            return self._url(before=rows[-1].pk) if rows and self.after != walking.FIRST else None
        edge = rows[-1].pk if self.page.has_more else self.page.looked_to
        return self._url(before=edge) if edge else None

    @property
    def oldest_url(self) -> str | None:
        return self._url(after=walking.FIRST) if self.older_url else None

    def _url(self, **cursor: UUID) -> str:
        query = {BEFORE: None, AFTER: None, **{name: str(value) for name, value in cursor.items()}}
        url: str = self.get_query_string(query)
        return url
