"""The admin's log-in, limited by address: passwords, unlike keys, can be guessed."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from accounts.addresses import client_address, network_of
from accounts.counters import count
from accounts.errors import LimitsUnavailable

ATTEMPTS = 10
RATE = f"{ATTEMPTS}/m"


def log_in(request: HttpRequest) -> HttpResponse:
    """The view for `admin/login/`. Every attempt counts, so that many at once cannot slip through."""
    if request.method == "POST":
        try:
            usage = count("log_in", value=network_of(client_address(request)), rate=RATE)
        except LimitsUnavailable:
            return _refusal(request, "The log-in is not available at the moment.", status=503, retry_after=5)
        if usage.count > usage.limit:
            return _refusal(
                request,
                f"Too many attempts to log in from this address. Try again in {max(usage.reset_seconds, 1)} seconds.",
                status=429,
                retry_after=usage.reset_seconds,
            )
    return admin.site.login(request)


def _refusal(request: HttpRequest, message: str, *, status: int, retry_after: int) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "Log in", "message": message}
    response = TemplateResponse(request, "admin/login_refused.html", context, status=status)
    response["Retry-After"] = str(max(retry_after, 1))
    return response
