"""The hostile caller: each gets the right status in the one error shape, and nothing is stored."""

import orjson
import pytest
from asgiref.sync import sync_to_async

from chat.models import Conversation, Interaction
from providers.adapters.simulated import SimulatedAdapter

pytestmark = pytest.mark.django_db(transaction=True)

GOOD = {"userId": "u1", "prompt": "Hello.", "model": "simulated/ok"}
ASK = {"model": "simulated/ok", "messages": [{"role": "user", "content": "Hello."}]}


@sync_to_async
def nothing_happened() -> bool:
    return not Interaction.objects.exists() and not Conversation.objects.exists() and not SimulatedAdapter.log


def the_error(response) -> dict:
    body = orjson.loads(response.content)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "param", "request_id"}
    assert body["error"]["request_id"] == response["X-Request-Id"]
    assert response["Content-Type"] == "application/json"
    return body["error"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"userId": None}, "userId"),
        ({"userId": ""}, "userId"),
        ({"userId": 12345}, "userId"),
        ({"userId": "x" * 129}, "userId"),
        ({"userId": "a\nb"}, "userId"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["Hello."]}, "prompt"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"prompt": ..., "messages": []}, "messages"),
        ({"prompt": ..., "messages": "Hello."}, "messages"),
        ({"prompt": ..., "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"prompt": ..., "messages": [{"role": "user"}]}, "messages.0.content"),
        ({"prompt": ..., "messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"prompt": ..., "messages": [{"role": "user", "content": [{"type": "magic"}]}]}, "messages.0.content"),
        ({"prompt": ..., "messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"prompt": ..., "messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"prompt": ...}, "prompt"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"maxTokens": 0}, "maxTokens"),
        ({"maxTokens": 1.5}, "maxTokens"),
        ({"maxTokens": 10**30}, "maxTokens"),
        ({"topP": 1.1}, "topP"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"conversationId": "not-an-id"}, "conversationId"),
        ({"requestId": "x" * 129}, "requestId"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": ["a"]}, "metadata"),
        ({"stream": "true"}, "stream"),
        ({"model": 5}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"tempreature": 0.5}, "tempreature"),
        ({"__proto__": {}}, "__proto__"),
    ],
)
async def test_a_wrong_field_is_named(owner, caller, change, param):
    body = {name: value for name, value in {**GOOD, **change}.items() if value is not ...}
    response = await caller(owner.raw).post("/v1/chat", body)
    error = the_error(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert await nothing_happened()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"n": 2}, "n"),
        ({"stream": 1}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": ["weather"]}, "tools.0"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"stream_options": True}, "stream_options"),
        ({"user": "x" * 129}, "user"),
    ],
)
async def test_a_wrong_field_of_a_completion_is_named(owner, caller, change, param):
    response = await caller(owner.raw).post("/v1/chat/completions", {**ASK, **change})
    error = the_error(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert await nothing_happened()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"userId": "u1", "prompt": "\xff\xfe"}',
        b'{"userId": "u1", "prompt": "a\\u0000b"}',
        b'{"userId": "u1", "prompt": "\\ud800"}',
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"userId": "u1", "prompt": "x", "maxTokens": 1e999}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/stream", "/v1/chat/completions"])
async def test_a_body_that_is_no_good_json_is_refused(owner, caller, raw, path):
    response = await caller(owner.raw).post(path, raw)
    assert response.status_code == 400
    assert the_error(response)["code"] in {"invalid_json", "invalid_request"}
    assert await nothing_happened()


async def test_another_content_type_is_415(owner, caller):
    person = caller(owner.raw)
    response = await person.client.post("/v1/chat", b"a=b", content_type="text/plain", headers=person.headers)
    assert response.status_code == 415
    assert the_error(response)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
async def test_another_method_is_405(owner, caller, method):
    person = caller(owner.raw)
    response = await getattr(person.client, method)("/v1/chat", headers=person.headers)
    assert response.status_code == 405
    assert the_error(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/models", "/v1/models/simulated/ok/status", "/v1/interactions"])
async def test_options_is_a_method_like_any_other(owner, caller, path):
    person = caller(owner.raw)
    response = await person.client.options(path, headers=person.headers)
    assert response.status_code == 405
    assert the_error(response)["code"] == "method_not_allowed"


async def test_an_unknown_path_is_404_in_the_same_shape(owner, caller):
    response = await caller(owner.raw).get("/v1/chatt")
    assert response.status_code == 404
    assert the_error(response)["code"] == "not_found"


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/stream", "/v1/chat/completions"])
async def test_no_key_and_a_wrong_key_are_401(caller, path):
    for key, code in ((None, "missing_api_key"), ("llmc_" + "x" * 43, "invalid_api_key")):
        response = await caller(key).post(path, GOOD)
        assert (response.status_code, the_error(response)["code"]) == (401, code)
        assert response["WWW-Authenticate"].startswith("Bearer")
    assert await nothing_happened()


async def test_an_unknown_model_is_404_and_near_ones_are_named(owner, caller):
    response = await caller(owner.raw).post("/v1/chat", {**GOOD, "model": "simulated/okk"})
    error = the_error(response)
    assert (response.status_code, error["code"], error["type"]) == (404, "model_not_found", "not_found_error")
    assert "simulated/ok" in error["message"]
    assert await nothing_happened()


async def test_a_provider_without_a_key_names_the_setting(owner, caller):
    response = await caller(owner.raw).post("/v1/chat", {**GOOD, "model": "openai/gpt-4o"})
    error = the_error(response)
    assert (response.status_code, error["code"]) == (503, "provider_not_configured")
    assert "OPENAI_API_KEY" in error["message"]
    assert await nothing_happened()


async def test_too_long_a_prompt_is_refused_with_the_limit(owner, caller, settings):
    settings.MAX_PROMPT_CHARACTERS = 10
    response = await caller(owner.raw).post("/v1/chat", {**GOOD, "prompt": "x" * 11})
    assert response.status_code == 400
    assert "10 are allowed" in the_error(response)["message"]
    assert await nothing_happened()


@pytest.mark.parametrize("key", ["x" * 129, "", "two\tparts"])
async def test_a_wrong_idempotency_key_is_refused(owner, caller, key):
    response = await caller(owner.raw).post("/v1/chat", GOOD, Idempotency_Key=key)
    assert (response.status_code, the_error(response)["param"]) == (400, "Idempotency-Key")


async def test_two_different_request_ids_are_refused(owner, caller):
    response = await caller(owner.raw).post("/v1/chat", {**GOOD, "requestId": "a"}, Idempotency_Key="b")
    assert (response.status_code, the_error(response)["param"]) == (400, "requestId")


@pytest.mark.parametrize(
    "nasty",
    [
        "'; DROP TABLE chat_interaction; --",
        "{{ 7 * 7 }}",
        "{% debug %}",
        "<script>alert(1)</script>",
        "${jndi:ldap://x}",
    ],
)
async def test_fragments_of_code_are_text(owner, caller, nasty):
    body = {**GOOD, "userId": nasty, "prompt": nasty, "model": "simulated/echo", "metadata": {nasty: nasty}}
    response = await caller(owner.raw).post("/v1/chat", body)
    row = await Interaction.objects.aget()
    assert response.json()["response"] == nasty
    assert (row.user_id, row.prompt, row.response, row.metadata) == (nasty, nasty, nasty, {nasty: nasty})


async def test_a_request_id_from_outside_cannot_break_headers_or_logs(owner, caller):
    response = await caller(owner.raw).post("/v1/chat", GOOD, X_Request_Id="a b<c>")
    assert response.status_code == 200
    assert response["X-Request-Id"] != "a b<c>"
