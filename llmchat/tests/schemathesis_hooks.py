"""For the schema's fuzzer, which loads this in a process of its own: names of models that it invents become simulated
ones, so that calls are answered without a provider, and in every shape that an answer can have; what no schema can say
is left out."""

from __future__ import annotations

from typing import Any

import schemathesis

MODELS = tuple(f"simulated/{name}" for name in ("ok", "echo", "reasoning", "tool-call", "no-usage", "content-filter"))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    if not isinstance(case.body, dict):
        return
    # What is meant to be wrong about a name stays as it is.
    if isinstance(name := case.body.get("model"), str) and 0 < len(name.strip()) <= 256:
        case.body["model"] = name if name in MODELS else MODELS[len(name) % len(MODELS)]
    # No schema can say that a header and a field must be the same.
    if "Idempotency-Key" in case.headers and isinstance(case.body.get("requestId"), str):
        del case.body["requestId"]
