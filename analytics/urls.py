"""The analytics app's paths below `/v1/`."""

from __future__ import annotations

from django.urls import path

from analytics.views import StatisticsViewSet, UsageViewSet

urlpatterns = [
    path("usage", UsageViewSet.as_view({"get": "list"}), name="usage"),
    path("stats", StatisticsViewSet.as_view({"get": "list"}), name="stats"),
]
