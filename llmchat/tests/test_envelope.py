"""Every exception becomes the one error shape."""

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404
from rest_framework import exceptions

from llmchat.lib import request_id
from llmchat.lib.envelope import APIError, as_api_error, exception_handler


@pytest.mark.parametrize(
    ("error", "status", "type_", "code"),
    [
        (exceptions.ParseError("No.", code="invalid_json"), 400, "invalid_request_error", "invalid_json"),
        (exceptions.NotAuthenticated(), 401, "authentication_error", "not_authenticated"),
        (exceptions.PermissionDenied(), 403, "permission_error", "permission_denied"),
        (PermissionDenied(), 403, "permission_error", "permission_denied"),
        (exceptions.NotFound(), 404, "not_found_error", "not_found"),
        (Http404(), 404, "not_found_error", "not_found"),
        (exceptions.MethodNotAllowed("PUT"), 405, "invalid_request_error", "method_not_allowed"),
        (exceptions.NotAcceptable(), 406, "invalid_request_error", "not_acceptable"),
        (RequestDataTooBig(), 413, "invalid_request_error", "request_too_large"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "invalid_request_error", "unsupported_media_type"),
        (exceptions.Throttled(wait=3), 429, "rate_limit_error", "rate_limited"),
        (OperationalError("gone"), 503, "server_error", "database_unavailable"),
        (InternalError("read-only transaction"), 503, "server_error", "database_unavailable"),
        (InterfaceError("gone"), 503, "server_error", "database_unavailable"),
        (DataError("strange"), 500, "server_error", "internal_error"),
        (RuntimeError("secret inner thing"), 500, "server_error", "internal_error"),
    ],
)
def test_status_type_and_code(error, status, type_, code):
    problem = as_api_error(error)
    assert (problem.status, problem.type, problem.code) == (status, type_, code)
    assert "secret" not in problem.message


def test_the_body_is_the_contracts():
    identifier = request_id.begin("abc-1")
    problem = APIError("Wait a moment.", status=429, code="slow_down", param="model", retry_after=1.2)
    response = exception_handler(problem, {})
    assert response.data == {
        "error": {
            "message": "Wait a moment.",
            "type": "rate_limit_error",
            "code": "slow_down",
            "param": "model",
            "request_id": identifier,
        }
    }
    assert (response.status_code, response["Retry-After"]) == (429, "2")


def test_trouble_with_the_database_names_a_time_to_come_again():
    assert exception_handler(OperationalError("gone"), {})["Retry-After"] == "5"


def test_a_missing_key_is_told_how_to_authenticate():
    response = exception_handler(APIError("Who?", status=401, code="missing_api_key"), {})
    assert response["WWW-Authenticate"] == 'Bearer realm="llmchat"'


def test_nested_complaints_name_the_first_field_and_all_reasons():
    error = exceptions.ValidationError(
        {"messages": [{}, {"role": ["Not a role."]}], "top": ["Too big."], "non_field_errors": ["Both."]}
    )
    problem = as_api_error(error)
    assert problem.param == "messages.1.role"
    assert problem.message == "messages.1.role: Not a role. top: Too big. Both."
