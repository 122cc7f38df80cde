"""Both families give the same events for every recorded answer, and however the network cuts it they stay the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from django.utils.module_loading import import_string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.adapters import reading
from providers.adapters.dialects import anthropic, gemini, openai
from providers.adapters.sse import JsonEvents
from providers.errors import ProviderError
from providers.tests.subjects import ANTHROPIC, GEMINI, OPENAI, OPENROUTER, Subject, over, sse
from providers.tests.upstream import RECORDED, Ending, Reply, Upstream, recorded
from providers.values import Event, Finished

pytestmark = pytest.mark.once

NAMES = sorted(file.stem for file in RECORDED.glob("*.txt"))
VENDORS = {"anthropic": ANTHROPIC, "gemini": GEMINI, "openrouter": OPENROUTER}
READERS: dict[str, Callable[[], Any]] = {
    "anthropic": anthropic.EventReader,
    "gemini": gemini.ChunkReader,
    "openai": lambda: openai.ChunkReader(options={}),
    "openrouter": lambda: openai.ChunkReader(options={}),
}
#: On a busy machine drawing takes long, which says nothing about what is tested.
SLOWLY = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
#: What a call came to: its events, and how it failed.
Outcome = tuple[list[Event], tuple[object, ...] | None]


def vendor_of(name: str) -> Subject:
    return VENDORS.get(name.partition("_")[0], OPENAI)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    for subject in (OPENAI, GEMINI, ANTHROPIC):
        import_string(subject.adapter)


async def outcome(subject: Subject, upstream: Upstream) -> Outcome:
    adapter = subject.make(upstream)
    events: list[Event] = []
    problem: tuple[object, ...] | None = None
    try:
        async for event in adapter.stream(subject.request()):
            events.append(event)  # noqa: PERF401
    except ProviderError as error:
        problem = (
            type(error),
            error.message,
            error.provider,
            error.retry_after,
            error.upstream_status,
            error.upstream_code,
            error.upstream_request_id,
        )
    await adapter.aclose()
    return events, problem


async def assert_same(subject: Subject, upstream: Upstream) -> Outcome:
    found = {family: await outcome(over(family, subject), upstream) for family in ("sdk", "wire")}
    assert found["wire"] == found["sdk"]
    return found["wire"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", list(Ending), ids=lambda ending: ending.name.lower())
async def test_recorded_answer_means_the_same_to_both(name: str, ending: Ending, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded(name), ending=ending)
    events, problem = await assert_same(vendor_of(name), upstream)
    assert events or problem


@pytest.mark.parametrize("name", NAMES)
async def test_answer_that_ends_after_any_of_its_events_means_the_same_to_both(name: str, upstream: Upstream) -> None:
    events = recorded(name).split(b"\n\n")
    for count in range(len(events)):
        upstream.reply = Reply(body=b"".join(event + b"\n\n" for event in events[:count]))
        await assert_same(vendor_of(name), upstream)


REPLIES = [
    Reply(
        status=401, body=b'{"error": {"message": "who", "code": "invalid_api_key"}}', content_type="application/json"
    ),
    Reply(status=429, body=b'{"error": {"message": "slow"}}', headers={"Retry-After": "7", "x-request-id": "r"}),
    Reply(status=404, body=b"not found", content_type="text/plain"),
    Reply(status=500, body=b"<html>", content_type="text/html"),
    Reply(status=503, body=b""),
    Reply(status=302, headers={"Location": "/elsewhere"}),
    Reply(body=b"", content_type=None),
    Reply(body=b"<html>Sign in</html>", content_type="text/html"),
    Reply(body=b'{"error": {"code": 429, "message": "slow"}}', content_type="application/json"),
    Reply(body=sse({"error": {"code": 502, "message": "behind"}})),
    Reply(body=sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
    Reply(body=b"data: nonsense\n\n"),
    Reply(body=b""),
    Reply(mute=True, ending=Ending.CUT),
]


@pytest.mark.parametrize("subject", [OPENAI, GEMINI, ANTHROPIC], ids=lambda subject: subject.name)
@pytest.mark.parametrize("reply", REPLIES, ids=range(len(REPLIES)))
async def test_refusal_means_the_same_to_both(subject: Subject, reply: Reply, upstream: Upstream) -> None:
    upstream.reply = reply
    events, problem = await outcome(over("sdk", subject), upstream)
    found, other = await outcome(over("wire", subject), upstream)
    assert (found, events) == ([], [])
    assert problem is not None
    assert other is not None
    if reply.mute:  # each library has words of its own for a broken connection
        problem, other = problem[:1], other[:1]
    assert other == problem


# However the network cuts


async def read(name: str, pieces: Iterable[bytes]) -> Outcome:
    """As an adapter reads, without a socket."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    left = chunks()

    async def chunk() -> bytes | None:
        return await anext(left, None)

    reader = READERS[vendor_of(name).name]()
    events: list[Event] = []
    try:
        async for event in reading.events(JsonEvents(chunk), reader):
            events.append(event)  # noqa: PERF401
    except ProviderError as error:
        return events, (type(error), error.message)
    return events, None


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    return [body[begin:end] for begin, end in pairwise([0, *sorted(places), len(body)])]


@pytest.mark.parametrize("name", NAMES)
def test_cut_at_any_one_place_changes_nothing(name: str) -> None:
    body = recorded(name)

    async def everywhere() -> None:
        whole = await read(name, [body])
        for place in range(len(body) + 1):
            assert await read(name, cut(body, [place])) == whole

    asyncio.run(everywhere())


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@SLOWLY
@given(name=st.sampled_from(NAMES), data=st.data())
def test_cuts_at_any_places_change_nothing(line_end: bytes, name: str, data: st.DataObject) -> None:
    body = recorded(name).replace(b"\n", line_end)
    places = data.draw(st.sets(st.integers(min_value=0, max_value=len(body))))
    whole = asyncio.run(read(name, [recorded(name)]))
    assert asyncio.run(read(name, cut(body, places))) == whole


@SLOWLY
@given(name=st.sampled_from(NAMES), data=st.data())
def test_noise_in_an_answer_never_breaks_the_reading(name: str, data: st.DataObject) -> None:
    body = bytearray(recorded(name))
    for place, value in data.draw(
        st.dictionaries(st.integers(min_value=0, max_value=len(body) - 1), st.integers(0, 255), max_size=20)
    ).items():
        body[place] = value
    events, problem = asyncio.run(read(name, [bytes(body)]))
    assert problem is not None or isinstance(events[-1], Finished)
