"""Organizations that keep no texts: what stays of their exchanges, and what they can still do."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, RequestFactory
from rest_framework.request import Request

from accounts.authentication import APIKeyAuthentication
from accounts.key_cache import KEYS
from accounts.models import Organization
from accounts.tests.fixtures import Person
from chat import privacy
from chat.models import Attempt, Conversation, Interaction
from providers import errors

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = {
    "model": "simulated/echo",
    "prompt": "Secret question",
    "systemPrompt": "Secret rules",
    "temperature": 0.5,
    "stop": ["secret stop"],
    "metadata": {"app": "shop"},
}
PROMPTS = {
    "prompt": "Secret question",
    "system_prompt": "Secret rules",
    "parameters": {"temperature": 0.5, "stop": ["secret stop"]},
    "title": "Secret question",
}
NO_PROMPTS = {"prompt": "", "system_prompt": "", "parameters": {"temperature": 0.5}, "title": ""}


async def on_record() -> dict[str, Any]:
    row = await Interaction.objects.select_related("conversation").aget()
    columns = ("prompt", "system_prompt", "messages", "parameters", "response", "reasoning", "tool_calls", "metadata")
    return {name: getattr(row, name) for name in columns} | {"title": row.conversation.title}


@pytest.mark.parametrize(
    ("setting", "own", "kept"),
    [
        (True, None, True),
        (False, None, False),
        (True, False, False),
        (False, True, True),
    ],
)
@pytest.mark.parametrize("what", ["prompts", "responses"])
async def test_an_organizations_own_word_beats_the_setting(owner, caller, settings, what, setting, own, kept):
    setattr(settings, f"LOG_{what.upper()}", setting)
    await Organization.objects.filter(pk=owner.organization.pk).aupdate(**{f"log_{what}": own})
    response = await caller(owner.raw).chat(**ASKED)
    assert response.json()["response"] == "Secret question"
    assert await on_record() == {
        **(PROMPTS if kept or what == "responses" else NO_PROMPTS),
        "response": "Secret question" if kept or what == "prompts" else "",
        "messages": [],
        "reasoning": "",
        "tool_calls": [],
        "metadata": {"app": "shop"},
    }


async def test_the_public_organization_has_its_switches_too(caller, settings):
    settings.REQUIRE_API_KEY = False
    await caller(None).chat(**ASKED)
    await Interaction.objects.all().adelete()
    await Conversation.objects.all().adelete()
    organization = await Organization.objects.aget(name="public")
    organization.log_prompts = organization.log_responses = False
    await organization.asave()
    KEYS.forget()
    await caller(None).chat(**ASKED)
    assert await on_record() == {
        **NO_PROMPTS,
        "response": "",
        "messages": [],
        "reasoning": "",
        "tool_calls": [],
        "metadata": {"app": "shop"},
    }


async def test_tools_messages_and_tool_calls_leave_nothing(owner, caller, settings):
    settings.LOG_PROMPTS = settings.LOG_RESPONSES = False
    tool = {"type": "function", "function": {"name": "secret_tool", "parameters": {"type": "object"}}}
    body = {
        "model": "simulated/tool-call",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Secret question"}]}],
        "tools": [tool],
        "seed": 7,
    }
    response = await caller(owner.raw).post("/v1/chat/completions", body)
    assert response.json()["choices"][0]["message"]["tool_calls"]
    row = await Interaction.objects.aget()
    assert (row.messages, row.prompt, row.parameters, row.tool_calls) == ([], "", {"seed": 7}, [])
    assert row.input_tokens > 0


async def test_a_conversation_without_texts_goes_on_without_history(owner, caller, sent, settings):
    settings.LOG_PROMPTS = settings.LOG_RESPONSES = False
    person = caller(owner.raw)
    begun = (await person.chat("One")).json()
    response = await person.chat("Two", conversationId=begun["conversationId"])
    assert response.status_code == 200
    assert [message.text for message in sent[-1].messages] == ["Two"]
    rows = [row async for row in Interaction.objects.order_by("id")]
    assert [row.history_messages for row in rows] == [0, 0]
    assert {str(row.conversation_id) for row in rows} == {begun["conversationId"]}


@pytest.mark.parametrize("switch", ["LOG_PROMPTS", "LOG_RESPONSES"])
async def test_half_an_exchange_is_no_history(owner, caller, sent, settings, switch):
    setattr(settings, switch, False)
    person = caller(owner.raw)
    begun = (await person.chat("One")).json()
    await person.chat("Two", conversationId=begun["conversationId"])
    assert [message.text for message in sent[-1].messages] == ["Two"]


@pytest.mark.parametrize("switch", ["LOG_PROMPTS", "LOG_RESPONSES"])
async def test_a_providers_words_about_a_failure_reach_the_caller_and_not_the_record(
    owner, caller, settings, no_waiting, switch
):
    model = "simulated/content-policy"
    told = (await caller(owner.raw).chat(model=model)).json()["error"]
    kept = await Interaction.objects.aget()
    assert kept.error_message == told["message"]
    assert (await kept.attempts.aget()).error_message

    await Interaction.objects.all().adelete()
    setattr(settings, switch, False)
    KEYS.forget()
    again = (await caller(owner.raw).chat(model=model)).json()["error"]
    assert again["message"] == told["message"]
    row, attempt = await Interaction.objects.aget(), await Attempt.objects.aget()
    own_words = "The provider's content policy refused the request."
    assert (row.error_code, row.error_message) == ("content_policy_violation", own_words)
    assert (attempt.error_code, attempt.error_message) == ("content_policy_violation", own_words)


def test_every_code_of_a_providers_failure_has_words_of_ours() -> None:
    def codes(kind: type[errors.ProviderError]) -> set[str]:
        return {kind.code}.union(*(codes(narrower) for narrower in kind.__subclasses__()))

    assert codes(errors.ProviderError) == set(privacy._OWN_WORDS)


def test_an_owner_switches_in_the_admin_and_the_next_request_obeys(owner: Person, client: Client) -> None:
    page = f"/admin/accounts/organization/{owner.organization.pk}/change/"
    organization = owner.organization

    def keeps() -> tuple[bool, bool]:
        request = Request(RequestFactory().get("/", headers=owner.headers))
        authenticated = APIKeyAuthentication().authenticate(request)
        assert authenticated is not None
        return authenticated[1].keeps_prompts, authenticated[1].keeps_responses

    assert keeps() == (True, True)
    client.force_login(owner.user)
    none = {f"{prefix}-{count}_FORMS": 0 for prefix in ("memberships", "api_keys") for count in ("TOTAL", "INITIAL")}
    assert client.post(page, {"name": organization.name, "log_prompts": "false", **none}).status_code == 302
    assert keeps() == (False, True)
    assert client.post(page, {"name": organization.name, "log_responses": "false", **none}).status_code == 302
    organization.refresh_from_db()
    assert (organization.log_prompts, organization.log_responses) == (None, False)
    assert keeps() == (True, False)
