"""The OpenAPI schema: whole, true, and readable in a browser that reaches nobody else.

The fuzzer asks a real server everything that the schema allows and much that it forbids, and compares every answer with
what the schema promises.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from jsonschema_rs import Draft202012Validator
from playwright.async_api import Browser, Page

from conftest import Serve
from llmchat.tests.servers import PROJECT, LiveServer

#: The contract's paths, as far as they exist.
PATHS = {
    ("get", "/metrics"),
    ("post", "/v1/chat"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/chat/stream"),
    ("get", "/v1/conversations"),
    ("delete", "/v1/conversations/{id}"),
    ("get", "/v1/conversations/{id}"),
    ("get", "/v1/health"),
    ("get", "/v1/health/live"),
    ("get", "/v1/health/ready"),
    ("get", "/v1/interactions"),
    ("get", "/v1/interactions/{id}"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/v1/models/{model}/status"),
    ("get", "/v1/stats"),
    ("get", "/v1/usage"),
}
PUBLIC = {"/v1/health", "/v1/health/live", "/v1/health/ready"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> Json:
    return SchemaGenerator().get_schema(request=None, public=True)


def operations(schema: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def complaints(schema: Json, part: Json, value: Any) -> list[str]:
    """What speaks against `value` being what `part` of the schema describes."""
    validator = Draft202012Validator({**part, "components": schema["components"]})
    return [error.message for error in validator.iter_errors(value)]


def test_it_is_generated_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "openapi.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))
    assert file.read_text().startswith("openapi: 3.1.0\n")


def test_every_path_of_the_contract_is_in_it(schema: Json) -> None:
    assert {(method, path) for method, path, _ in operations(schema)} >= PATHS


def test_every_operation_says_what_it_is(schema: Json) -> None:
    for method, path, operation in operations(schema):
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)
    ids = [operation["operationId"] for _, _, operation in operations(schema)]
    assert len(ids) == len(set(ids))


def test_a_key_may_come_in_either_header(schema: Json) -> None:
    schemes = schema["components"]["securitySchemes"]
    assert {name: (each["type"], each.get("scheme"), each.get("name")) for name, each in schemes.items()} == {
        "bearer": ("http", "bearer", None),
        "apiKey": ("apiKey", None, "X-API-Key"),
    }
    either: list[Json] = [{"bearer": []}, {"apiKey": []}]
    for method, path, operation in operations(schema):
        match path:
            case "/metrics":
                assert operation["security"] == [{}, *either]
            case _ if path in PUBLIC:
                assert "security" not in operation, (method, path)
            case _:
                assert operation["security"] == either, (method, path)


def test_every_operation_documents_its_errors(schema: Json) -> None:
    for method, path, operation in operations(schema):
        expected = {"405", "406", "500"} if path in PUBLIC else {"400", "401", "403", "405", "406", "429", "500", "503"}
        if "requestBody" in operation:
            expected |= {"404", "408", "413", "415", "502", "504"}
        if "{" in path:
            expected |= {"404"}
        assert set(operation["responses"]) >= expected, (method, path)
        for status, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"], (method, path, status)
            assert ("Retry-After" in response["headers"]) == (status in {"429", "503"}), (method, path, status)
            if status >= "400":
                content = response["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}, (method, path, status)
                assert content["examples"], (method, path, status)


def test_every_request_body_has_an_example(schema: Json) -> None:
    bodies = [operation["requestBody"] for _, _, operation in operations(schema) if "requestBody" in operation]
    assert bodies
    for body in bodies:
        assert list(body["content"]) == ["application/json"]
        assert body["content"]["application/json"]["examples"]


def test_every_example_is_what_the_schema_describes(schema: Json) -> None:
    checked = 0
    for method, path, operation in operations(schema):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            content = part.get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                assert complaints(schema, content["schema"], example["value"]) == [], (method, path, name)
                checked += 1
    assert checked > len(PATHS)


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"userId": "u", "prompt": "x"}, True),
        ({"userId": "u", "messages": [{"role": "user", "content": "x"}]}, True),
        ({"userId": "u"}, False),
        ({"userId": "u", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}, False),
        ({"userId": "u", "prompt": " "}, False),
        ({"userId": "a\nb", "prompt": "x"}, False),
        ({"userId": "u", "prompt": "x", "metadata": {"a": "b"}}, True),
        ({"userId": "u", "prompt": "x", "metadata": {"a": 1}}, False),
        ({"userId": "u", "prompt": "x", "stop": ["a"] * 5}, False),
        ({"userId": "u", "prompt": "x", "tempreature": 1}, False),
        ({"userId": "u", "messages": [{"role": "system", "content": "x"}]}, False),
        ({"userId": "u", "messages": [{"role": "tool", "content": "x"}]}, False),
        ({"userId": "u", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, True),
        ({"userId": "u", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, False),
    ],
)
def test_it_tells_a_good_request_from_a_bad_one(schema: Json, body: Json, good: bool) -> None:
    reference = {"$ref": "#/components/schemas/ChatRequest"}
    assert (complaints(schema, reference, body) == []) is good


# --- With a real server -----------------------------------------------------------------------------------------------


@pytest.fixture
def server(serve: Serve) -> LiveServer:
    # Half of what a fuzzer sends has no good key, and none of it may reach the model in the process.
    return serve(
        "--no-background",
        environment={
            "DEFAULT_MODEL": "simulated/ok",
            "FAILED_AUTHENTICATIONS_PER_MINUTE": "1000000",
            "LOG_LEVEL": "ERROR",
        },
    )


@pytest.mark.timeout(300)
def test_a_fuzzer_finds_nothing(server: LiveServer, acme_key: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.base_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {acme_key}", "--checks", "all", "--max-examples", "25"),
        *("--generation-deterministic", "--continue-on-failure", "--no-color", "--output-sanitize", "false"),
        # PostgreSQL stores no NUL: refused everywhere, which a schema would have to say of every string.
        *("--generation-allow-x00", "false"),
        # The key above; a second one that is made up is a 400.
        *("--generation-with-security-parameters", "false"),
        # Most strings do not survive a path; that is the fuzzer's own filter.
        *("--suppress-health-check", "filter_too_much"),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "SCHEMATHESIS_HOOKS": "llmchat.tests.schemathesis_hooks",
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-5000:]}"
    assert "No issues found" in done.stdout
    assert server.alive


async def loaded(browser: Browser, address: str, *, until: str) -> tuple[Page, set[str], list[str]]:
    """The page at `address` once `until` is visible, the hosts that sent anything, and what went wrong."""
    page = await browser.new_page()
    hosts: set[str] = set()
    troubles: list[str] = []
    page.on("response", lambda response: hosts.add(urlsplit(response.url).netloc))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("response", lambda response: troubles.append(response.url) if response.status >= 400 else None)
    await page.goto(address)
    await page.get_by_text(until).locator("visible=true").first.wait_for()
    await page.wait_for_load_state("networkidle")
    return page, hosts - {""}, troubles


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_loads_nothing_from_elsewhere(server: LiveServer, chromium: Browser, path: str) -> None:
    page, hosts, troubles = await loaded(chromium, server.base_url + path, until="Ask a model and get the answer")
    assert (hosts, troubles) == ({urlsplit(server.base_url).netloc}, [])
    await page.close()


@pytest.mark.browser
async def test_a_call_can_be_tried_in_the_browser(server: LiveServer, acme_key: str, chromium: Browser) -> None:
    page, _, _ = await loaded(chromium, f"{server.base_url}/docs", until="Ask a model and get the answer")
    await page.get_by_role("button", name="Authorize").first.click()
    bearer = page.locator(".auth-container").filter(has=page.get_by_label("auth-bearer-value"))
    await bearer.get_by_label("auth-bearer-value").fill(acme_key)
    await bearer.get_by_role("button", name="Apply credentials").click()
    await page.get_by_role("button", name="Close").first.click()
    call = page.locator("#operations-Chat-chat")
    await call.locator(".opblock-summary-control").click()
    await call.get_by_role("button", name="Try it out").click()
    await call.get_by_role("button", name="Execute").click()
    answer = call.locator(".live-responses-table")
    await answer.get_by_text("The harbour wakes").first.wait_for()
    await page.close()


def test_the_schema_needs_no_key(client: Any) -> None:
    response = client.get("/openapi.json")
    assert (response.status_code, response.json()["openapi"]) == (200, "3.1.0")
