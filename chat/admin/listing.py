"""What every list of the record has in common: nothing can be changed, and no page counts or skips its way through the
whole table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin import ShowFacets
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.text import capfirst
from unfold.views import ChangeList

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Admin = ModelAdmin[Any]
else:
    _Admin = object

#: As far as a list counts and pages by number; from there on it goes by id.
COUNT_LIMIT = 10_000

_BEFORE = "id__lt"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """Counts up to `COUNT_LIMIT`. `count` is how many rows can be reached by page number."""

    template_name = "admin/chat/pagination.html"

    @cached_property
    def _found(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()

    @cached_property
    def count(self) -> int:
        return min(self._found, COUNT_LIMIT)

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than were counted."""
        return self._found > COUNT_LIMIT


class QuietChangeList(ChangeList):
    """A list whose heading does not repeat what its foot says, nor speaks of results where there are none. It is named
    for its rows, or by its admin's `list_title`."""

    result_count: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = getattr(self.model_admin, "list_title", "") or capfirst(self.opts.verbose_name_plural)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count


class RecordChangeList(QuietChangeList):
    """A list in falling order of id, which is the order of time. Behind the last counted page it goes on from the last
    id shown (`?id__lt=`), at the same cost however far back that is."""

    multi_page: bool
    page_num: int
    paginator: BoundedPaginator

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.multi_page:
            self.page_num = 1  # whatever was asked for: Django shows the only page there is

    @property
    def title_of_rows(self) -> str:
        return str(self.opts.verbose_name if self.result_count == 1 else self.opts.verbose_name_plural)

    @property
    def span(self) -> str:
        """Which rows the page shows, such as `51 - 100`; counted from where the list begins."""
        first = (self.page_num - 1) * self.list_per_page + 1
        return f"{first:,} – {first + len(self.result_list) - 1:,}"

    @property
    def total(self) -> str:
        return f"{self.result_count:,}{'+' if self.paginator.is_cut else ''}"

    @property
    def newest_url(self) -> str | None:
        """Back to the beginning, when the list begins further down."""
        return self._url({_BEFORE: None}) if _BEFORE in self.params else None

    @property
    def newer_url(self) -> str | None:
        return self._url({"p": self.page_num - 1}) if self.page_num > 1 else None

    @property
    def older_url(self) -> str | None:
        if self.page_num < self.paginator.num_pages:
            return self._url({"p": self.page_num + 1})
        rows = list(self.result_list)
        return self._url({_BEFORE: rows[-1].pk}) if self.paginator.is_cut and rows else None

    def _url(self, changes: dict[str, Any]) -> str:
        url: str = self.get_query_string(changes)
        return url


class ReadOnly(_Admin):
    """For a `ModelAdmin` of facts: whoever may see its rows may do nothing else with them. Goes before the class that
    says who may see."""

    actions = None
    show_facets = ShowFacets.NEVER
    list_max_show_all = 0
    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()
    fieldsets = ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RecordChangeList]:
        return RecordChangeList

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the template of a row's page is given beside the usual."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= self.page_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)
