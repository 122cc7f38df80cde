"""How much of a conversation's history goes along."""

from chat.conversations import estimated_tokens, within_window
from providers.values import Message

HISTORY = [
    message
    for number in range(10)
    for message in (
        Message(role="user", content=f"question {number} " + "x" * 290),
        Message(role="assistant", content=f"answer {number} " + "y" * 290),
    )
]
OWN = [Message(role="user", content="And now?")]


def test_an_unknown_window_keeps_everything() -> None:
    assert within_window(history=HISTORY, own=OWN, context_window=None, max_tokens=None) == HISTORY


def test_a_wide_window_keeps_everything() -> None:
    assert within_window(history=HISTORY, own=OWN, context_window=100_000, max_tokens=None) == HISTORY


def test_a_narrow_window_keeps_the_newest_whole_exchanges() -> None:
    kept = within_window(history=HISTORY, own=OWN, context_window=1000, max_tokens=100)
    assert kept == HISTORY[-len(kept) :]
    assert kept[0].role == "user"
    assert 0 < len(kept) < len(HISTORY)
    assert sum(map(estimated_tokens, [*kept, *OWN])) + 100 <= 1000


def test_a_window_that_the_question_fills_keeps_nothing() -> None:
    assert within_window(history=HISTORY, own=OWN, context_window=60, max_tokens=30) == []


def test_a_long_answer_asked_for_leaves_less_history() -> None:
    short = within_window(history=HISTORY, own=OWN, context_window=2000, max_tokens=10)
    long = within_window(history=HISTORY, own=OWN, context_window=2000, max_tokens=1200)
    assert len(long) < len(short)


def test_bytes_count_not_characters() -> None:
    latin = Message(role="user", content="a" * 300)
    chinese = Message(role="user", content="语" * 300)
    assert estimated_tokens(chinese) > 2 * estimated_tokens(latin)
