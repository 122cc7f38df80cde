"""The ledger finds what it is there to find."""

from __future__ import annotations

from uuid import UUID

import pytest

from llmchat.tests.calls import Call
from llmchat.tests.ledger import AttemptRow, InteractionRow, compare
from llmchat.tests.mock_upstream import UpstreamCall

FIRST, SECOND = UUID(int=1), UUID(int=2)
ATTEMPT, OTHER = UUID(int=11), UUID(int=12)


def heard(prompt: str = "a") -> UpstreamCall:
    return UpstreamCall(number=1, prompt=prompt, streamed=True, ended="finished", chunks=3)


def told(*, id_: UUID = FIRST, prompt: str = "a", text: str = "yes") -> Call:
    return Call(0, prompt, False, 0.0, status=200, ending="done", id=str(id_), text=text)


def interaction(id_: UUID = FIRST, *, prompt: str = "a", status: str = "succeeded") -> InteractionRow:
    return InteractionRow(id_, prompt, status, "yes", False, 3)


def attempt(
    id_: UUID = ATTEMPT, *, of: UUID = FIRST, number: int = 1, status: str = "succeeded", code: str = ""
) -> AttemptRow:
    return AttemptRow(id_, of, number, status, code)


def test_books_that_agree_have_no_differences() -> None:
    report = compare([heard()], [told()], [interaction()], [attempt()])
    assert (report.missing, report.twice, report.unsent, report.differences) == (0, 0, 0, [])


def test_upstream_call_without_an_attempt_is_missing() -> None:
    report = compare([heard(), heard("b")], [told()], [interaction()], [attempt()])
    assert (report.missing, report.twice) == (1, 0)
    assert report.differences == ["b: 1 upstream calls, 0 attempts"]


def test_attempt_that_succeeded_without_an_upstream_call_is_twice() -> None:
    rows = [attempt(), attempt(OTHER, number=2)]
    report = compare([heard()], [told()], [interaction()], rows)
    assert (report.missing, report.twice) == (0, 1)
    assert report.differences == [
        "a: 1 upstream calls, attempts: 2 succeeded",
        f"{FIRST} (a) succeeded by 2 attempts",
    ]


@pytest.mark.parametrize(
    ("status", "code", "unsent"),
    [
        ("interrupted", "", 1),
        ("failed", "provider_connection_failed", 1),
        ("failed", "provider_overloaded", 0),
        ("cancelled", "", 0),
    ],
)
def test_only_an_interrupted_or_unconnected_attempt_may_be_unsent(status: str, code: str, unsent: int) -> None:
    report = compare([], [], [interaction(status=status)], [attempt(status=status, code=code)])
    assert (report.unsent, report.twice) == (unsent, 1 - unsent)


def test_answer_that_is_not_on_record_is_a_difference() -> None:
    report = compare([heard()], [told(id_=SECOND)], [interaction()], [attempt()])
    assert report.differences == [f"a: answered as {SECOND}, which is not on record"]


def test_answer_on_record_as_anything_but_a_success_is_a_difference() -> None:
    report = compare([heard()], [told()], [interaction(status="cancelled")], [attempt(status="cancelled")])
    assert report.differences == [f"a: answered as {FIRST}, on record as cancelled"]


def test_answer_with_another_text_than_the_one_on_record_is_a_difference() -> None:
    report = compare([heard()], [told(text="no")], [interaction()], [attempt()])
    assert report.differences == [f"a: answered as {FIRST}, whose texts are others"]


def test_call_that_was_told_nothing_or_an_error_promises_nothing() -> None:
    calls = [Call(0, "a", False, 0.0, status=None, ending="cut"), Call(0, "b", False, 0.0, status=503, ending="error")]
    assert compare([], calls, [], []).differences == []


def test_two_interactions_for_one_request_are_a_difference() -> None:
    rows = [interaction(), interaction(SECOND)]
    report = compare([heard(), heard()], [told()], rows, [attempt(), attempt(OTHER, of=SECOND)])
    assert report.differences == ["a: 2 interactions"]


def test_success_without_an_attempt_is_a_difference() -> None:
    report = compare([], [], [interaction()], [])
    assert report.differences == [f"{FIRST} (a) succeeded by 0 attempts"]


def test_attempt_without_an_interaction_is_a_difference() -> None:
    report = compare([], [], [], [attempt()])
    assert report.differences == [f"attempts of {FIRST}, of which there is no interaction"]


def test_gap_in_the_numbers_of_attempts_is_a_difference() -> None:
    report = compare([heard()], [told()], [interaction()], [attempt(number=2)])
    assert report.differences == [f"{FIRST} (a) has attempts out of order"]


def test_call_that_was_told_200_and_then_cut_is_to_be_on_record() -> None:
    cut = Call(0, "a", True, 0.0, status=200, ending="cut")
    assert compare([], [cut], [], []).differences == ["a: was told 200, is not on record"]
    row = interaction(status="interrupted")
    assert compare([heard()], [cut], [row], [attempt(status="interrupted")]).differences == []


def test_call_that_was_sent_again_may_have_failed_before_but_succeeds_once() -> None:
    again = told(id_=SECOND)
    again.is_keyed, again.tries = True, 2
    calls = [heard(), heard()]
    attempts = [attempt(status="interrupted"), attempt(OTHER, of=SECOND)]
    rows = [interaction(status="interrupted"), interaction(SECOND)]
    assert compare(calls, [again], rows, attempts).differences == []
    rows = [interaction(), interaction(SECOND)]
    attempts = [attempt(), attempt(OTHER, of=SECOND)]
    assert compare(calls, [again], rows, attempts).differences == ["a: 2 successes of one idempotency key"]
