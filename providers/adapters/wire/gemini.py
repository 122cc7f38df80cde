"""Gemini over our own connections, its developer API with a key."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import gemini as dialect
from providers.adapters.wire.adapter import Question, WireAdapter
from providers.values import ChatRequest

#: Collections that a model's id may name; without one it is Google's own.
_COLLECTIONS: Final = ("models", "tunedModels")


class GeminiAdapter(WireAdapter):
    """Options: `api_version` (default `v1beta`: `v1` lacks the newest models), `max_answer_bytes`."""

    base_url = "https://generativelanguage.googleapis.com"

    def __init__(self, config: ProviderConfig) -> None:
        self._version = config.options.get("api_version", "v1beta")
        self.probe_path = f"/{self._version}/models?pageSize=1"
        super().__init__(config)

    @staticmethod
    def credentials(config: ProviderConfig) -> dict[str, str]:
        return {"x-goog-api-key": config.api_key} if config.api_key else {}

    def question(self, request: ChatRequest, *, stream: bool) -> Question:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return Question(
            path=f"/{self._version}/{_place(request.model)}:{method}",
            body=dialect.body(request),
            reader=dialect.ChunkReader(),
        )


def _place(model: str) -> str:
    """Where the model is. Its id may come from a caller, who shall not choose the path."""
    collection, slash, name = model.partition("/")
    if not slash or collection not in _COLLECTIONS:
        collection, name = "models", model
    return f"{collection}/{quote(name, safe='')}"
