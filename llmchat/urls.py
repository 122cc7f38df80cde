"""Where each path leads."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView

from accounts.login import log_in
from analytics.admin import facets
from analytics.admin import page as dashboard
from llmchat import pages
from llmchat.health import HealthViewSet
from llmchat.lib.envelope import ErrorPages
from llmchat.metrics import MetricsViewSet

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    path("v1/", include("chat.urls")),
    path("v1/", include("analytics.urls")),
    path("v1/health", HealthViewSet.as_view({"get": "list"}), name="health"),
    path("v1/health/live", HealthViewSet.as_view({"get": "live"}), name="health-live"),
    path("v1/health/ready", HealthViewSet.as_view({"get": "ready"}), name="health-ready"),
    path("metrics", MetricsViewSet.as_view({"get": "list"}), name="metrics"),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="openapi"),
    path("docs", pages.docs, name="docs"),
    path("redoc", pages.redoc, name="redoc"),
    path("favicon.ico", RedirectView.as_view(url=static("llmchat/icon.svg"))),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/login/", log_in),
    path("admin/figures/", admin.site.admin_view(dashboard.fragment), name="dashboard-figures"),
    path("admin/facets/", admin.site.admin_view(facets.fragment), name="interaction-facets"),
    path("admin/reports/", include("analytics.reports.urls")),
    path("admin/", admin.site.urls),
]

_pages = ErrorPages(browsed=("/admin/",))
handler400 = _pages.bad_request
handler403 = _pages.permission_denied
handler404 = _pages.not_found
handler500 = _pages.server_error
