"""What a log line of the chat path tells, and what it never tells."""

import logging

import pytest

from chat.models import Interaction
from llmchat.lib import logs

pytestmark = pytest.mark.django_db(transaction=True)


async def test_lines_carry_organization_and_interaction_and_no_texts(owner, caller, caplog, no_waiting):
    logs.begin()
    with caplog.at_level(logging.DEBUG):
        await caller(owner.raw).chat("A prompt nobody may log.", model="simulated/echo")
        facts = dict(logs.bound())
    row = await Interaction.objects.aget()
    assert facts == {"organization": "Acme", "interaction_id": str(row.id)}
    said = "\n".join(str(vars(record)) for record in caplog.records)
    assert "nobody may log" not in said
    assert owner.raw not in said
