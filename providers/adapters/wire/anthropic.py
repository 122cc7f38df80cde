"""Claude over our own connections."""

from __future__ import annotations

from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import anthropic as dialect
from providers.adapters.wire.adapter import Question, WireAdapter
from providers.values import ChatRequest


class AnthropicAdapter(WireAdapter):
    """Options: `max_tokens` (for calls that set none), `max_answer_bytes`."""

    base_url = "https://api.anthropic.com"
    probe_path = "/v1/models?limit=1"

    @staticmethod
    def credentials(config: ProviderConfig) -> dict[str, str]:
        return {"Authorization": f"Bearer {config.api_key}", "anthropic-version": dialect.NEWEST_VERSION}

    def question(self, request: ChatRequest, *, stream: bool) -> Question:
        body = dialect.body(request, options=self.config.options, stream=stream)
        headers: dict[str, str | None] = {**dialect.headers(body)}
        if headers:
            # One signs in to the newest version of the API as shown above, to the older one with this header
            headers |= {"x-api-key": self.config.api_key, "Authorization": None}
        return Question(path="/v1/messages", body=body, reader=dialect.EventReader(), headers=headers)
