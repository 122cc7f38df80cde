"""The one shape of an error, for every way in which a request can fail.

    {"error": {"message": ..., "type": ..., "code": ..., "param": ..., "request_id": ...}}

`type` is OpenAI's vocabulary, `code` the stable contract, `message` is for people and names the remedy. Trouble with
our own infrastructure is 503, never 401: applications throw their keys away on a 401.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.module_loading import import_string
from rest_framework import exceptions
from rest_framework.response import Response

from llmchat.lib import request_id

logger = logging.getLogger(__name__)

#: The `type` of an error that has only a status.
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class APIError(Exception):
    """A refusal with everything that its response needs.

    `status`: HTTP status. `type`, `code`: see the module. `param`: the field at fault. `retry_after`: seconds after
    which trying again may help. `headers`: further response headers.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        type: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type or _type_of(status)
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if status == 401:
            self.headers.setdefault("WWW-Authenticate", 'Bearer realm="llmchat"')
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "code": self.code,
                "param": self.param,
                "request_id": request_id.current() or None,
            }
        }


class DatabaseUnavailable(APIError):
    """The database cannot be reached or answers no more."""

    def __init__(self) -> None:
        super().__init__(
            "The service cannot reach its database at the moment. Nothing is wrong with your request: try it again.",
            status=503,
            code="database_unavailable",
            retry_after=5,
        )


def as_api_error(error: Exception) -> APIError:
    """What a caller is told about any exception. What nobody expected is logged and becomes a plain 500."""
    match error:
        case APIError():
            return error
        case exceptions.ValidationError():
            param, message = _first_complaint(error.detail)
            return APIError(message, status=400, code="invalid_request", param=param)
        case exceptions.Throttled():
            return APIError(
                str(error.detail), status=429, code="rate_limited", retry_after=getattr(error, "wait", None)
            )
        case exceptions.MethodNotAllowed():
            return APIError(
                f"{error.detail} See /docs for the methods of this path.", status=405, code="method_not_allowed"
            )
        case exceptions.APIException():
            code = error.get_codes()
            return APIError(
                str(error.detail), status=error.status_code, code=code if isinstance(code, str) else "error"
            )
        case Http404():
            return APIError(
                "There is nothing at this address. See /docs for what there is.", status=404, code="not_found"
            )
        case PermissionDenied():
            return APIError("You may not do this.", status=403, code="permission_denied")
        case RequestDataTooBig():
            return APIError("The request's body is too large. Send less.", status=413, code="request_too_large")
        # The last one is a standby's, which reads and does not write, or a damaged database's.
        case OperationalError() | InterfaceError() | InternalError():
            logger.error("The database failed: %s", type(error).__name__, exc_info=error)
            return DatabaseUnavailable()
        case DatabaseError():
            logger.error("The database refused: %s", type(error).__name__, exc_info=error)
        case _:
            logger.error("Unexpected error: %s", type(error).__name__, exc_info=error)
    return APIError(
        "Something went wrong on our side. Try again, and report the request_id if it stays.",
        status=500,
        code="internal_error",
    )


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's `EXCEPTION_HANDLER`: every exception of a view in the one shape."""
    problem = as_api_error(error)
    headers = dict(problem.headers)
    if isinstance(error, exceptions.APIException) and (header := getattr(error, "auth_header", None)):
        headers["WWW-Authenticate"] = header
    return Response(problem.body(), status=problem.status, headers=headers)


def as_http_response(problem: APIError) -> HttpResponse:
    """The same outside of DRF's views."""
    body = orjson.dumps(problem.body())
    # Its length is said here: of a refusal by one of Django's middlewares, none further out would.
    headers = {**problem.headers, "Content-Length": str(len(body))}
    return HttpResponse(body, status=problem.status, content_type="application/json", headers=headers)


class ErrorPages:
    """Django's `handler400` to `handler500`: JSON for the API, Django's own pages for the parts that people browse."""

    def __init__(self, *, browsed: tuple[str, ...]) -> None:
        self.browsed = browsed

    def _page(self, request: HttpRequest, default: str, *args: Any, problem: APIError) -> HttpResponse:
        if request.path.startswith(self.browsed):
            page: HttpResponse = import_string(f"django.views.defaults.{default}")(request, *args)
            return page
        return as_http_response(problem)

    def bad_request(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        status = 413 if isinstance(exception, RequestDataTooBig) else 400
        problem = (
            as_api_error(exception)
            if status == 413
            else APIError(
                "The request cannot be understood. Check its Host header, its path and its encoding.",
                status=400,
                code="bad_request",
            )
        )
        return self._page(request, "bad_request", exception, problem=problem)

    def permission_denied(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        return self._page(request, "permission_denied", exception, problem=as_api_error(PermissionDenied()))

    def not_found(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        return self._page(request, "page_not_found", exception, problem=as_api_error(Http404()))

    def server_error(self, request: HttpRequest) -> HttpResponse:
        # Django has logged the exception already, and is still handling it.
        if request.path.startswith(self.browsed) and isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
            return HttpResponse(render_to_string("503.html"), status=503)
        problem = APIError(
            "Something went wrong on our side. Try again, and report the request_id if it stays.",
            status=500,
            code="internal_error",
        )
        return self._page(request, "server_error", problem=problem)


def _type_of(status: int) -> str:
    return TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def _first_complaint(detail: Any, path: str = "") -> tuple[str | None, str]:
    """DRF's nested complaints as (param, message): the first field at fault, and all complaints in words."""
    complaints = list(_complaints(detail, path))
    param = next((where for where, _ in complaints if where), None)
    return param, " ".join(f"{where}: {what}" if where else what for where, what in complaints[:10])


def _complaints(detail: Any, path: str) -> Any:
    match detail:
        case dict():
            for key, inner in detail.items():
                name = "" if key == "non_field_errors" else str(key)
                yield from _complaints(inner, f"{path}.{name}" if path and name else path or name)
        case list():
            for index, inner in enumerate(detail):
                nested = isinstance(inner, dict | list)
                if not nested or inner:
                    yield from _complaints(inner, f"{path}.{index}" if nested else path)
        case _:
            yield path, str(detail)
