"""What a caller asked for, whatever dialect it was asked in. Views make a `Call`, the engine works it off.

A call knows nothing of HTTP beyond the id of its request, and nothing of vendors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from uuid import UUID

from accounts.principals import Principal
from llmchat.lib.frozen import dataclass
from providers.values import Json, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to be answered.

    `messages`: the caller's own, in order, without a conversation's history. `model`: as asked; empty or `auto` lets
    us choose. `parameters`: fields of `ChatRequest` other than model and messages, as asked. `keeps_conversation`:
    whether a conversation is begun when none is named. `trace_id`: the X-Request-Id; `request_id`: the caller's own.
    """

    principal: Principal
    endpoint: str
    user_id: str
    messages: Sequence[Message]
    trace_id: str
    model: str = ""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    conversation_id: UUID | None = None
    keeps_conversation: bool = False
    request_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False

    @property
    def prompt(self) -> str:
        """The text of the user's last message."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return ""

    @property
    def system_prompt(self) -> str:
        """The text of the system messages."""
        return "\n\n".join(message.text for message in self.messages if message.role in {"system", "developer"})

    @property
    def is_plain(self) -> bool:
        """Whether prompt and system prompt say all that the messages say."""
        return [message.role for message in self.messages] in (["user"], ["system", "user"]) and all(
            isinstance(message.content, str) for message in self.messages
        )
