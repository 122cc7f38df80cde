"""For the schema's fuzzer, which loads this in a process of its own: names of models that it invents become simulated
ones, so that calls are answered without a provider, and in every shape that an answer can have; what no schema can say
is left out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import schemathesis

MODELS = tuple(f"simulated/{name}" for name in ("ok", "echo", "reasoning", "tool-call", "no-usage", "content-filter"))


#: Values of the parameters of `/v1/usage` that are right by themselves and may be wrong together.
INTERVALS: Final = ("hour", "day", "month")
DIMENSIONS: Final = ("model", "provider", "key", "status", "plan", "error_code", "user")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    _agree(case.query)
    if not isinstance(case.body, dict):
        return
    # What is meant to be wrong about a name stays as it is.
    if isinstance(name := case.body.get("model"), str) and 0 < len(name.strip()) <= 256:
        case.body["model"] = name if name in MODELS else MODELS[len(name) % len(MODELS)]
    # No schema can say that a header and a field must be the same.
    if "Idempotency-Key" in case.headers and isinstance(case.body.get("requestId"), str):
        del case.body["requestId"]


def _agree(query: dict[str, Any]) -> None:
    """Makes right values agree with each other and with the present; wrong ones stay as they are."""
    today = dt.datetime.now(dt.UTC)
    _replace(query, "start_date", dt.date.fromisoformat, str(today.date() - dt.timedelta(days=2)))
    _replace(query, "end_date", dt.date.fromisoformat, str(today.date()))
    _replace(query, "since", dt.datetime.fromisoformat, (today - dt.timedelta(hours=2)).isoformat())
    if query.get("group_by") in INTERVALS and query.get("interval") in INTERVALS:
        del query["interval"]
    by_user = query.get("group_by") == "user" or "user" in query
    if by_user and query.get("group_by") in DIMENSIONS:
        query["group_by"] = "model"
    if isinstance(query.get("user"), str) and 0 < len(query["user"]) <= 128:
        del query["user"]


def _replace(query: dict[str, Any], name: str, read: Callable[[str], object], value: str) -> None:
    if isinstance(given := query.get(name), str):
        try:
            read(given)
        except ValueError:
            return
        query[name] = value
