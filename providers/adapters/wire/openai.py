"""OpenAI, and every vendor that speaks its dialect, over our own connections."""

from __future__ import annotations

from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import openai as dialect
from providers.adapters.wire.adapter import Question, WireAdapter
from providers.values import ChatRequest


class OpenAIAdapter(WireAdapter):
    """Options, besides those of the dialect: `probe_path` (default `/models`), `max_answer_bytes`."""

    base_url = "https://api.openai.com/v1"
    probe_path = "/models"

    @staticmethod
    def credentials(config: ProviderConfig) -> dict[str, str]:
        return {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}

    def question(self, request: ChatRequest, *, stream: bool) -> Question:
        options = self.config.options
        return Question(
            path="/chat/completions",
            body=dialect.body(request, options=options, stream=stream),
            reader=dialect.ChunkReader(options=options),
        )
