"""The local model as a provider: requests in llama.cpp's words, its chunks as events, its refusals as our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from providers.adapters import classify
from providers.adapters.base import ProviderConfig
from providers.adapters.local.engine import Chunk, Engine, EngineOptions, engine, find_weights
from providers.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    ProviderError,
    ServerFault,
    TruncatedAnswer,
)
from providers.values import ChatRequest, Event, Finished, FinishReason, Json, Message, TextDelta, Usage

#: The model's upstream id: SmolLM2-135M-Instruct.
MODEL: Final = "smollm2-135m"
#: What is passed on of the parameters that a request has no field for. Everything else could reach into the engine.
_TUNING: Final = frozenset({"logit_bias", "logprobs", "min_p", "repeat_penalty", "top_k", "top_logprobs"})
_MOST_LOGPROBS: Final = 20
#: What the model is told, and how it chooses, unless the caller says otherwise. By its own template's words, or once
#: it may choose freely, it loses its way: asked for the capital of France it stammers French to the last token.
_SYSTEM_PROMPT: Final = "You are a helpful assistant."
_TEMPERATURE: Final = 0.0
_REASONS: Final = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class LocalAdapter:
    """The provider `local`.

    Options: `max_tokens` of an answer whose request says nothing (512); `max_waiting` requests before the slots (32);
    and those of `EngineOptions`.
    """

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._max_tokens: int = config.options.get("max_tokens", 512)
        self._max_waiting: int = config.options.get("max_waiting", 32)
        self._engine = _engine_for(config)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Yield the answer's events. Waits for a free slot, first come, first served.

        Raises ModelNotFound, InvalidRequest for what the model cannot read (images, tools), ContextLengthExceeded,
        Overloaded when too many wait, NotConfigured when the packages are missing.
        """
        generation = self._engine.submit(self._body(request), max_waiting=self._max_waiting)
        answer = _Answer()
        try:
            async for chunk in generation.chunks():
                if "error" in chunk:
                    raise _refusal(chunk)
                for delta in answer.read(chunk):
                    yield delta
            yield answer.finished()
        except ProviderError as error:
            error.provider = self.config.slug
            raise
        except (TypeError, ValueError) as error:  # as the library tells of values that it cannot take
            raise InvalidRequest(f"The local model cannot do this: {error}", provider=self.config.slug) from error
        except RuntimeError as error:
            raise ServerFault(f"The local model failed: {error}", provider=self.config.slug) from error
        finally:
            self._engine.withdraw(generation)

    async def probe(self) -> None:
        """Checks that the packages are there. Loading the model only to see that it lives would cost its memory."""
        await asyncio.to_thread(find_weights)

    async def aclose(self) -> None:
        """Nothing: the engine is the process's, and every stream gives up its slot by itself."""

    def _body(self, request: ChatRequest) -> dict[str, Json]:
        if request.model != MODEL:
            raise ModelNotFound(
                f"There is no local model {request.model!r}; it is called {MODEL!r}.", provider=self.config.slug
            )
        if request.tools and request.tool_choice != "none":
            raise self._cannot("call tools")
        said = {
            "temperature": _TEMPERATURE if request.temperature is None else request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "response_format": dict(request.response_format) if request.response_format else None,
            "stop": list(request.stop) or None,
            **{name: value for name, value in request.extra.items() if name in _TUNING},
        }
        if isinstance(most := said.get("top_logprobs"), int) and most > _MOST_LOGPROBS:
            raise InvalidRequest(f"top_logprobs is at most {_MOST_LOGPROBS}.", provider=self.config.slug)
        messages = [self._message(message) for message in request.messages]
        if not messages or messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": _SYSTEM_PROMPT})
        return {
            "messages": messages,
            "max_tokens": self._max_tokens if request.max_tokens is None else request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # a chunk after each batch of the prompt: a chance to stop before the first token
            **{name: value for name, value in said.items() if value is not None},
        }

    def _message(self, message: Message) -> dict[str, Json]:
        if message.tool_calls or message.role == "tool":
            raise self._cannot("read tool calls")
        if not isinstance(message.content, str | None) and any(part.get("type") != "text" for part in message.content):
            raise self._cannot("read anything but text")
        return {"role": "system" if message.role == "developer" else message.role, "content": message.text}

    def _cannot(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"The model {MODEL} cannot {what}.", provider=self.config.slug)


def warm_up(config: ProviderConfig) -> None:
    """Start loading the model of `config` in the background, so that the first answer need not wait for it.

    Returns at once. That it cannot be loaded is told to those who ask it something.
    """
    _engine_for(config).warm_up()


class _Answer:
    """What has been said so far besides the text."""

    def __init__(self) -> None:
        self._raw_reason: str | None = None
        self._usage: Usage | None = None
        self._id: str | None = None

    def read(self, chunk: Chunk) -> list[TextDelta]:
        self._id = chunk.get("id", self._id)
        if usage := chunk.get("usage"):
            self._usage = Usage(
                input_tokens=usage["prompt_tokens"],
                output_tokens=usage["completion_tokens"],
                cached_input_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            )
        deltas = []
        for choice in chunk.get("choices", ()):
            self._raw_reason = choice["finish_reason"] or self._raw_reason
            if text := choice["delta"].get("content"):
                deltas.append(TextDelta(text, logprobs=choice.get("logprobs")))
        return deltas

    def finished(self) -> Finished:
        if self._raw_reason is None:
            raise TruncatedAnswer("The local model was stopped before it came to an end.")
        return Finished(
            reason=_REASONS.get(self._raw_reason, FinishReason.UNKNOWN),
            raw_reason=self._raw_reason,
            usage=self._usage,
            model=MODEL,
            response_id=self._id,
        )


def _engine_for(config: ProviderConfig) -> Engine:
    known = {name: config.options[name] for name in EngineOptions.__slots__ if name in config.options}
    return engine(EngineOptions(**known))


def _refusal(chunk: Chunk) -> ProviderError:
    error = chunk["error"]
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(
            f"The prompt has {error.get('n_prompt_tokens')} tokens; {MODEL} reads at most {error.get('n_ctx')}."
        )
    return classify.from_object(chunk)
