"""The ways to an answer: the model asked for and then the fallbacks, each with the request that fits its window.

Knows who may use which model, and how quick each has been; calls nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from accounts.permissions import check_model_allowed
from chat import conversations
from chat.calls import Call
from chat.conversations import Thread
from llmchat.lib.envelope import APIError
from providers import registry
from providers.catalogue import ResolvedModel, Snapshot
from providers.errors import NotConfigured
from providers.failover import Candidate
from providers.pace import Pace
from providers.values import ChatRequest, Message


def own_messages(call: Call, thread: Thread | None) -> Sequence[Message]:
    """The caller's messages, led by the conversation's system prompt if the caller gives none."""
    if thread is None or not thread.system_prompt or call.system_prompt:
        return call.messages
    return [Message(role="system", content=thread.system_prompt), *call.messages]


#: How long answers of a model have lately taken, for each organization: its calls are like each other.
_pace = Pace()


def note_pace(call: Call, candidate: Candidate, *, seconds: float) -> None:
    """An answer took so long, or was waited for so long in vain: what the next one like it is asked for by."""
    _pace.note((call.principal.organization_id, candidate.provider, candidate.model), seconds)


async def in_order(
    call: Call, snapshot: Snapshot, resolved: ResolvedModel, thread: Thread | None, own: Sequence[Message]
) -> tuple[list[Candidate], int]:
    """The model asked for and then the fallbacks, each with the request that fits its window; and how many messages of
    history the first one gets. A fallback that is not configured is left out; a first choice that is not, is an error.
    """
    history = thread.history if thread else ()
    leading = [message for message in own if message.role in {"system", "developer"}]
    following = [message for message in own if message.role not in {"system", "developer"}]
    candidates: list[Candidate] = []
    carried = 0
    routes = {(model.provider, model.upstream_id): model for model in (*reversed(snapshot.fallbacks()), resolved)}
    for place, model in enumerate(reversed(routes.values())):
        if place and not _may_fall_back(call, model):
            continue
        try:
            adapter = await registry.aadapter(model.provider)
        except NotConfigured:
            if place:
                continue
            raise
        kept = conversations.within_window(
            history=history,
            own=own,
            context_window=model.context_window,
            max_tokens=call.parameters.get("max_tokens"),
        )
        if not place:
            carried = len(kept)
        messages = [*leading, *kept, *following] if kept else own
        quick = _pace.is_quick(
            (call.principal.organization_id, model.provider, model.upstream_id),
            first_byte=adapter.config.timeouts.first_byte,
        )
        request = ChatRequest(
            model=model.upstream_id, messages=messages, whole=not call.stream, quick=quick, **call.parameters
        )
        candidates.append(
            Candidate(
                provider=model.provider,
                model=model.upstream_id,
                adapter=adapter,
                request=request,
                timeouts=adapter.config.timeouts,
                context_window=model.context_window,
            )
        )
    return candidates, carried


def _may_fall_back(call: Call, model: ResolvedModel) -> bool:
    try:
        check_model_allowed(call.principal, *model.names)
    except APIError:
        return False
    return True
