"""Where each path leads."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

from llmchat.lib.envelope import ErrorPages

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]

_pages = ErrorPages(browsed=("/admin/",))
handler400 = _pages.bad_request
handler403 = _pages.permission_denied
handler404 = _pages.not_found
handler500 = _pages.server_error
