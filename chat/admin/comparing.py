"""Two interactions side by side: what differs in what was asked, what came of it, what it took and what it cost.

From rows to plain values; templates make markup of them and escape everything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from chat.admin import exchange, formats
from chat.models import Interaction

#: Words of a text that are compared one by one; two longer ones are shown without marks.
_WORDS: Final = 3_000

_PIECES: Final = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text. `kind`: same, only here."""

    text: str
    is_other: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """One kind of text of both, in pieces. `is_marked`: whether differences are."""

    label: str
    left: list[Piece]
    right: list[Piece]
    is_same: bool
    is_marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One figure or setting of both. `change`: of the second against the first, in words."""

    label: str
    left: str
    right: str
    change: str = ""

    @property
    def differs(self) -> bool:
        return self.left != self.right


def texts(left: Interaction, right: Interaction) -> list[Texts]:
    """What was said in both, without what neither has."""
    kinds = (
        ("System prompt", left.system_prompt, right.system_prompt),
        ("Prompt", _asked(left), _asked(right)),
        ("Response", left.response, right.response),
        ("Reasoning", left.reasoning, right.reasoning),
        ("Tool calls", _calls(left), _calls(right)),
        ("Error", left.error_message, right.error_message),
    )
    return [_texts(label, one, other) for label, one, other in kinds if one or other]


def _asked(row: Interaction) -> str:
    if not row.messages:
        return str(row.prompt)
    turns = [turn for turn in exchange.turns(row) if turn.origin == "sent" and turn.role != "system"]
    return "\n\n".join(f"{turn.label}: {turn.text.shown}" if len(turns) > 1 else turn.text.shown for turn in turns)


def _calls(row: Interaction) -> str:
    return formats.pretty(row.tool_calls) if row.tool_calls else ""


def _texts(label: str, left: str, right: str) -> Texts:
    one, other = (_PIECES.findall(formats.text(text).shown) for text in (left, right))
    is_marked = max(len(one), len(other)) <= _WORDS
    pieces = _pieces(one, other) if is_marked else ([Piece("".join(one), False)], [Piece("".join(other), False)])
    return Texts(label=label, left=pieces[0], right=pieces[1], is_same=left == right, is_marked=is_marked)


def _pieces(one: list[str], other: list[str]) -> tuple[list[Piece], list[Piece]]:
    left, right = [], []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        left.append(Piece("".join(one[a:b]), kind != "equal"))
        right.append(Piece("".join(other[c:d]), kind != "equal"))
    return [piece for piece in left if piece.text], [piece for piece in right if piece.text]


def figures(left: Interaction, right: Interaction) -> list[Fact]:
    """What it took and what it cost."""
    times = (
        ("Latency", left.latency_ms, right.latency_ms),
        ("First token", left.time_to_first_token_ms, right.time_to_first_token_ms),
    )
    counts = (
        ("Input tokens", left.input_tokens, right.input_tokens),
        ("Output tokens", left.output_tokens, right.output_tokens),
        ("Retries", left.retries, right.retries),
    )
    return [
        Fact(label="Status", left=left.get_status_display(), right=right.get_status_display()),
        Fact(
            label="Cost",
            left=formats.money(left.cost),
            right=formats.money(right.cost),
            change=_change(left.cost, right.cost),
        ),
        *(
            Fact(label=label, left=formats.milliseconds(a), right=formats.milliseconds(b), change=_change(a, b))
            for label, a, b in times
        ),
        *(
            Fact(label=label, left=formats.count(a), right=formats.count(b), change=_change(a, b))
            for label, a, b in counts
        ),
        Fact(label="Finish reason", left=left.finish_reason, right=right.finish_reason),
    ]


def settings(left: Interaction, right: Interaction) -> list[Fact]:
    """Who was asked, how, and the parameters of either."""
    rows = (
        ("Model asked", "model_requested"),
        ("Model answered", "model"),
        ("Provider", "provider"),
        ("Route", "route_reason"),
        ("Organization", "organization"),
        ("User", "user_id"),
        ("Plan then", "plan"),
        ("Endpoint", "get_endpoint_display"),
    )
    facts = [Fact(label=label, left=_value(left, name), right=_value(right, name)) for label, name in rows]
    names = sorted({*left.parameters, *right.parameters})
    return [
        *facts,
        *(Fact(label=name, left=_given(left.parameters, name), right=_given(right.parameters, name)) for name in names),
    ]


def _value(row: Interaction, name: str) -> str:
    value = getattr(row, name)
    return str(value() if callable(value) else value)


def _given(parameters: dict[str, Any], name: str) -> str:
    return formats.excerpt(formats.pretty(parameters[name]), limit=300) if name in parameters else ""


def _change(left: Any, right: Any) -> str:
    """How much more or less the second is, in percent of the first."""
    if not left or right is None or left == right:
        return ""
    percent = 100 * (float(right) - float(left)) / float(left)
    return f"×{float(right) / float(left):.1f}" if percent >= 1_000 else f"{percent:+.0f} %"


def pair(identifiers: Iterable[str]) -> tuple[str, str] | None:
    """The two that are named, once each, or None."""
    named = list(dict.fromkeys(identifiers))
    return (named[0], named[1]) if len(named) == 2 else None
