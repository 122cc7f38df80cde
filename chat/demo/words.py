"""Prompts and answers for demo data: a few subjects with sentences of their own, common words in most of them, and rare
ones that only a search finds. Knows nothing of who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final


def listed(text: str) -> tuple[str, ...]:
    """The words of `text`."""
    return tuple(text.split())


_SUBJECTS: Final[dict[str, tuple[str, Sequence[str], Sequence[str]]]] = {
    "support": (
        "You are the support assistant of an online shop. Be brief and friendly.",
        (
            "How do I cancel my {noun} before the next {period}?",
            "My {noun} from {city} arrived damaged. What can I do now?",
            "Where is my {noun}? It was promised for {day}.",
            "Can I change the address of a {noun} that has been sent already?",
            "Write a polite answer to a customer from {city} who waits for a refund since {day}.",
            "Why was I charged twice for the {adjective} {noun} this {period}?",
        ),
        (
            "Open Settings, choose Billing, then Cancel; it ends with the current {period}.",
            "Please send us a photo of the damaged {noun}, and we will replace it by {day}.",
            "The carrier has scanned the parcel in {city}; it should be there on {day}.",
            "Refunds take three to five working days, depending on your bank.",
            "You can change the address until the {noun} has left our warehouse in {city}.",
            "If anything is unclear, simply answer this message and we will look into it at once.",
        ),
    ),
    "code": (
        "You are a senior engineer. Answer with code first, then a short explanation.",
        (
            "Write a SQL query for the ten {adjective} customers by {noun} of last {period}.",
            "Why does this loop read the {noun} file twice, and how do I avoid it?",
            "Explain the difference between a {adjective} index and a partial one.",
            "Refactor this function so that the {noun} is validated before it is stored.",
            "What is a good test for a {noun} parser that must survive malformed input?",
            "How do I page through a large table without an offset?",
        ),
        (
            "SELECT customer, SUM(total) AS spent FROM {noun}s GROUP BY customer ORDER BY spent DESC LIMIT 10;",
            "Read the file once into a list, then iterate over the list as often as needed.",
            "A partial index holds only rows that match its condition, so that it is smaller and cheaper to maintain.",
            "Validate at the boundary, raise a narrow error, and keep the core free of checks.",
            "Use the last key of the page as the start of the next; the cost then does not grow with its depth.",
            "Property-based tests find the {adjective} cases that nobody thinks of.",
        ),
    ),
    "writing": (
        "",
        (
            "Summarise the attached minutes about the {adjective} {noun} in three points.",
            "Write a friendly reminder about the {noun} due on {day}.",
            "Make this paragraph about {city} shorter and more {adjective}.",
            "Suggest five titles for an article about the {noun} market in {city}.",
            "Translate to German: the {noun} will be delivered on {day}.",
            "Rewrite this announcement so that nobody in {city} feels left out.",
        ),
        (
            "1. The launch moves to {day}. 2. The {noun} budget stays. 3. Somebody in {city} takes over.",
            "Just a short reminder: the {noun} is due on {day}. Let me know if you need anything.",
            "Die Lieferung kommt am {day}; bitte prüfen Sie die Rechnung für das Büro in München.",
            "Here is a shorter version that keeps the facts and drops the repetitions.",
            "A {adjective} title names the subject, not the feeling about it.",
            "Le résumé tient en une phrase : le {noun} arrive à {city} avant {day}.",
        ),
    ),
    "analysis": (
        "You are a careful analyst. Say what you do not know.",
        (
            "Which {noun} grew most in {city} over the last {period}, and why?",
            "Compare the {adjective} and the {noun} plan for a team of {number} people.",
            "What are the risks of moving our {noun} to {city} within a {period}?",
            "Estimate how many {noun}s a shop in {city} sells in a {period}.",
            "Find the outliers in these {number} measurements and explain them.",
            "Draft a forecast of the {noun} costs for the next {period}.",
        ),
        (
            "Over the last {period} the {noun} segment grew by about {number} percent, most of it in {city}.",
            "For {number} people the {adjective} plan is cheaper as long as fewer than half of them use it daily.",
            "The main risk is the handover: two suppliers in {city} have no replacement yet.",
            "Assuming {number} visitors a day and one sale in twenty, that makes a few hundred a {period}.",
            "Three values lie more than four deviations from the mean; all were taken on {day}.",
            "The forecast is uncertain, because the {noun} prices of this {period} are not final.",
        ),
    ),
    "learning": (
        "Explain things step by step, to somebody who is new to them.",
        (
            "What is the capital of the country in which {city} lies?",
            "Explain a {adjective} {noun} to a ten-year-old.",
            "What is the weather like in {city} in spring?",
            "Give me {number} exercises about fractions with a {noun}.",
            "Why is the sky blue, and why was it {adjective} on {day}?",
            "Who invented the {noun}, and what came before it?",
        ),
        (
            "Imagine a {noun} that you share with {number} friends: everybody gets the same part.",
            "Spring in {city} is mild, with some rain and a good deal of sun.",
            "Short waves of light are scattered more than long ones, so that the sky looks blue.",
            "Before the {noun} people used simpler tools, which were slower and broke more often.",
            "Let us go step by step, and check each result before the next one.",
            "A {adjective} answer is one that you can explain in your own words.",
        ),
    ),
}

_NOUNS: Final = listed(
    "order subscription invoice report ticket contract parcel account budget schedule server dataset camera "
    "bicycle keyboard sensor licence voucher meeting turbine greenhouse telescope mattress violin"
)
_ADJECTIVES: Final = listed(
    "monthly cheap reliable unusual quarterly narrow modern quiet generous careful annual remote fragile seasonal"
)
_CITIES: Final = listed(
    "Lisbon Berlin Toronto Nairobi Osaka Lima Oslo Dublin Austin Pune Kraków Lyon Sevilla Zürich Tallinn "
    "Hobart Izmir Porto Gdańsk Bergen"
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "1 March", "15 June", "30 September")
_PERIODS: Final = ("week", "month", "quarter", "year")
_ONSETS: Final = ("b", "br", "d", "dr", "f", "g", "gl", "k", "l", "m", "n", "p", "qu", "r", "s", "st", "t", "v", "z")
_NUCLEI: Final = ("a", "e", "i", "o", "u", "ai", "ou", "y")
_CODAS: Final = ("", "l", "n", "r", "x", "sk", "mb", "th")
#: Sentences of each kind and subject, and rare words in all.
_POOL: Final = 500
_RARE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What an organization's people talk about. `system_prompt` may be empty."""

    system_prompt: str
    questions: Sequence[str]
    answers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Words:
    """`rare`: the later in the list, the rarer it should be used."""

    subjects: Sequence[Subject]
    rare: Sequence[str]


def make(random: Random) -> Words:
    """All sentences that demo data are made of."""
    subjects = [
        Subject(
            system_prompt=system_prompt,
            questions=[_fill(random.choice(questions), random) for _ in range(_POOL)],
            answers=[_fill(random.choice(answers), random) for _ in range(_POOL)],
        )
        for system_prompt, questions, answers in _SUBJECTS.values()
    ]
    return Words(subjects=subjects, rare=[_name(random) for _ in range(_RARE)])


def _fill(sentence: str, random: Random) -> str:
    return sentence.format(
        noun=random.choice(_NOUNS),
        adjective=random.choice(_ADJECTIVES),
        city=random.choice(_CITIES),
        day=random.choice(_DAYS),
        period=random.choice(_PERIODS),
        number=random.randrange(2, 90),
    )


def _name(random: Random) -> str:
    syllables = [
        random.choice(_ONSETS) + random.choice(_NUCLEI) + random.choice(_CODAS) for _ in range(random.randrange(2, 4))
    ]
    return "".join(syllables).capitalize()
