"""A client leaves before its answer is whole: a real server is told by its socket, the vendor by his own log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat import engine
from chat.models import Attempt, Interaction, Status
from conftest import Serve
from llmchat.tests import ledger
from llmchat.tests.load import Load
from llmchat.tests.mock_upstream import MockUpstream, UpstreamCall
from llmchat.tests.servers import LiveServer
from llmchat.tests.waiting import eventually
from providers.adapters.simulated import SimulatedAdapter

#: Longer than the ten pieces after which a client has left at the latest.
CHUNKS = 60
WHOLE = "".join(f"word{number} " for number in range(CHUNKS))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


def left_streams(server: LiveServer, upstream: MockUpstream, *, key: str, count: int) -> list[UpstreamCall]:
    """What the vendor says of that many streams, once each has ended."""
    model = f"openai/mock-{CHUNKS}?delay=0.02"
    with Load(server.base_url, key=key, model=model, streamed=1.0, abandoned=1.0, count=count) as load:
        load.finish()
    assert {call.ending for call in load.calls} == {"abandoned"}
    eventually(
        lambda: len(ledger.interactions(server)) == count and all(call.ended for call in upstream.calls()),
        wanted="all on record",
    )
    return upstream.calls()


def test_a_left_stream_is_closed_at_once_and_its_usage_is_estimated(
    serve: Serve, acme_key: str, upstream: MockUpstream
) -> None:
    server = serve("--no-background", environment=upstream.environment)
    calls = left_streams(server, upstream, key=acme_key, count=4)
    assert {call.ended for call in calls} == {"gone"}
    rows = ledger.interactions(server)
    assert {(row.status, row.usage_estimated) for row in rows} == {("cancelled", True)}
    assert all(WHOLE.startswith(row.response) and 0 < len(row.response) < len(WHOLE) for row in rows)
    assert all(row.output_tokens for row in rows)
    server.manage("verify_record")


def test_a_left_stream_is_heard_out_for_its_usage_when_that_is_the_setting(
    serve: Serve, acme_key: str, upstream: MockUpstream
) -> None:
    server = serve("--no-background", environment={**upstream.environment, "ON_DISCONNECT": "drain"})
    calls = left_streams(server, upstream, key=acme_key, count=4)
    assert {(call.ended, call.chunks) for call in calls} == {("finished", CHUNKS)}
    rows = [(row.status, row.usage_estimated, row.output_tokens, row.response) for row in ledger.interactions(server)]
    assert rows == [("cancelled", False, CHUNKS, WHOLE)] * 4
    server.manage("verify_record")


@pytest.fixture
def draining(settings: object) -> None:
    settings.ON_DISCONNECT = "drain"  # type: ignore[attr-defined]


async def left(person, model: str, *, has_begun: Callable[[], bool]) -> None:
    """Somebody who wants a whole answer leaves as soon as `has_begun`."""
    asking = asyncio.ensure_future(person.chat(model=model))
    while not has_begun():  # noqa: ASYNC110 - nobody else waits for this
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(engine.drain(), 30)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("draining")
class TestDraining:
    async def test_a_whole_answer_is_heard_out_too(self, owner, caller):
        await left(
            caller(owner.raw), "simulated/slow?delay=0.02&tokens=5", has_begun=lambda: bool(SimulatedAdapter.running)
        )
        row, attempt = await Interaction.objects.aget(), await Attempt.objects.aget()
        assert (row.status, attempt.status, row.finish_reason) == (Status.CANCELLED, Status.SUCCEEDED, "")
        assert (row.usage_estimated, row.output_tokens) == (False, attempt.output_tokens)
        assert row.response

    async def test_nobody_asks_another_provider_for_somebody_who_left(self, owner, caller, settings):
        settings.FALLBACK_ORDER = ["simulated/echo"]
        await left(caller(owner.raw), "simulated/cut?delay=0.05", has_begun=lambda: bool(SimulatedAdapter.running))
        row, attempt = await Interaction.objects.aget(), await Attempt.objects.aget()
        assert (row.status, attempt.status) == (Status.CANCELLED, Status.FAILED)
        assert len(SimulatedAdapter.log) == 1

    async def test_between_two_calls_there_is_nothing_to_hear_out(self, owner, caller):
        def waits_for_the_second() -> bool:
            return len(SimulatedAdapter.log) == 1 and not SimulatedAdapter.running

        await left(caller(owner.raw), "simulated/429-once?retry_after=3", has_begun=waits_for_the_second)
        assert (await Interaction.objects.aget()).status == Status.CANCELLED
        assert len(SimulatedAdapter.log) == 1

    async def test_the_end_of_the_process_waits_for_no_provider(self, owner, caller):
        parts = aiter(
            await caller(owner.raw).post(
                "/v1/chat/stream", {"userId": "u1", "prompt": "Go on.", "model": "simulated/slow?delay=5&tokens=50"}
            )
        )
        await anext(parts)
        await parts.aclose()
        await asyncio.wait_for(engine.stop(), 5)
        row = await Interaction.objects.aget()
        assert (row.status, row.usage_estimated) == (Status.CANCELLED, True)
