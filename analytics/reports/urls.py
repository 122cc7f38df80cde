"""Paths of the reports' pages, below the admin's; each for the staff alone."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from analytics.reports import pages

app_name = "reports"
urlpatterns = [
    path("", admin.site.admin_view(pages.index), name="index"),
    path("<slug:slug>/", admin.site.admin_view(pages.report), name="report"),
]
