"""Logging set-up: one JSON object a line, or a readable form on a terminal; facts of the request in hand on every line;
secrets taken out of everything, tracebacks included.

Every library's logger speaks through this. What is logged must not hold prompts or answers: no one here can tell them
from other text. The line that every request gets takes a short way to the same form.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any

import orjson
import structlog

from llmchat.lib import request_id
from llmchat.lib.redaction import Redactor

#: One dictionary a request, shared by reference with the tasks and threads that work for it.
_facts: ContextVar[dict[str, Any] | None] = ContextVar("log_facts", default=None)

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z

#: What libraries attach to their records and no line should show: whole requests, arguments of tasks, coloured twins.
_UNWANTED = ("request", "server_time", "data", "color_message")


def begin() -> None:
    """Forgets the facts of whatever ran here before: the start of a request or a task."""
    _facts.set({})


def bind(**facts: Any) -> None:
    """Puts these facts, such as `organization`, on every later line of the request or task in hand."""
    bound = _facts.get()
    if bound is None:
        _facts.set(dict(facts))
    else:
        bound.update(facts)


def bound() -> Mapping[str, Any]:
    """The facts bound so far."""
    return _facts.get() or {}


class Lines(logging.StreamHandler[Any]):
    """Writes lines. With a `redactor` it takes the facts of one too, for JSON without a record of the logging module:
    that would cost five times as much as all else about the line."""

    def __init__(self, stream: Any = None, *, redactor: Redactor | None = None) -> None:
        super().__init__(stream)
        self._redactor = redactor

    @property
    def takes_facts(self) -> bool:
        return self._redactor is not None and not self.filters

    def say(self, event: str, *, level: int, logger: str, facts: Mapping[str, Any]) -> None:
        if self._redactor is None or level < self.level:
            return
        told: dict[str, Any] = {"event": event, "level": _name_of(level), "logger": logger, **facts}
        told["timestamp"] = None
        if identifier := request_id.current():
            told.setdefault("request_id", identifier)
        for name, value in bound().items():
            told.setdefault(name, value)
        if not self._redactor.leaves(told):
            told = self._redactor.value(told)
        told["timestamp"] = dt.datetime.now(dt.UTC)
        line = _dumps(told)
        self.acquire()
        try:
            self.stream.write(line + self.terminator)
            self.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": event}))
        finally:
            self.release()


@cache
def _name_of(level: int) -> str:
    return logging.getLevelName(level).lower()


def say(logger: logging.Logger, level: int, event: str, facts: Mapping[str, Any]) -> None:
    """One line at `level` about what happened, with `facts` and those of the request in hand. As `logger.log` with
    `extra`, only sooner where nobody but our own handler listens."""
    if not logger.isEnabledFor(level):
        return
    listening = logging.root.handlers
    if len(listening) == 1 and isinstance(lines := listening[0], Lines) and lines.takes_facts and not logger.filters:
        lines.say(event, level=level, logger=logger.name, facts=facts)
    else:
        logger.log(level, event, extra=dict(facts))


def dict_config(*, level: str, as_json: bool, secrets: Collection[str] = ()) -> dict[str, Any]:
    """A value for Django's `LOGGING`; also makes structlog's own loggers speak through it.

    `secrets`: values that must never be shown, beyond what is recognised by its name or form.
    """
    redactor = Redactor(secrets)

    def redact(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        redacted: structlog.typing.EventDict = redactor.value(event)
        return redacted

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_facts,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    # As text, and before redaction: the plain format shows no local variables.
                    structlog.processors.format_exc_info,
                    redact,
                    render,
                ],
            }
        },
        "handlers": {
            "stdout": {
                "class": "llmchat.lib.logs.Lines",
                "stream": "ext://sys.stdout",
                "formatter": "line",
                "redactor": redactor if as_json else None,
            }
        },
        "root": {"handlers": ["stdout"], "level": level},
        "loggers": {
            # Ours alone: Django's own handlers would print every line a second time, and mail tracebacks.
            "django": {"handlers": [], "level": level},
            # "Not Found" and the like: the line of the request says it already.
            "django.request": {"level": "ERROR"},
            # The same, for a Host header that is not ours: scanners send them all day.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            # A success of each periodic task, some of them every few seconds, would bury the requests.
            "celery.app.trace": {"level": "WARNING"},
            **{
                name: {"level": "WARNING"}
                for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore", "asyncio", "kombu")
            },
            # At DEBUG they log requests with their bodies, which are prompts.
            **{
                name: {"level": "WARNING"}
                for name in ("openai", "anthropic", "google_genai", "google.genai", "httpx2", "httpcore2")
            },
        },
    }


def route_warnings() -> None:
    """Python's warnings become lines like all others."""
    logging.captureWarnings(capture=True)


def _add_facts(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in _UNWANTED:
        event.pop(name, None)
    if identifier := request_id.current():
        event.setdefault("request_id", identifier)
    for name, value in bound().items():
        event.setdefault(name, value)
    return event


def _dumps(value: Any, **_: Any) -> str:
    # Lone surrogates come from undecodable paths and the like; a line is never lost for them.
    try:
        return orjson.dumps(value, default=str, option=_OPTIONS).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(value), default=str, option=_OPTIONS).decode()


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(inner) for key, inner in value.items()}
        case list():
            return [_encodable(inner) for inner in value]
        case _:
            return value
