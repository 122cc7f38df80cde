"""Two interactions side by side in the admin, and asking another model the same."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Membership
from accounts.tests.factories import MembershipFactory, UserFactory
from accounts.tests.fixtures import Person
from chat import rerun
from chat.admin import comparing
from chat.models import Interaction, Status
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import LIST, browser_of, text_of


def comparison(*rows: Interaction) -> str:
    return f"{LIST}compare/?" + "&".join(f"of={row.pk}" for row in rows)


def again(row: Interaction) -> str:
    return reverse("admin:chat_interaction_run_again", args=[row.pk])


def problem_of(response: Any) -> str:
    """What the page's messages say."""
    return " ".join(str(message) for message in response.context["messages"])


@pytest.fixture
def pair(owner: Person) -> tuple[Interaction, Interaction]:
    return (
        InteractionFactory.create(organization=owner.organization, response="Open the Settings page.", cost="0.0001"),
        InteractionFactory.create(
            organization=owner.organization,
            response="Open the Billing page!",
            parameters={"temperature": 0.7, "max_tokens": 9},
            cost="0.00015",
            latency_ms=406.2,
        ),
    )


def test_comparison_marks_what_differs(owner: Person, pair: tuple[Interaction, Interaction]) -> None:
    response = browser_of(owner.user).get(comparison(*pair))
    content = response.content.decode()
    assert "Open the <del>Settings</del> page<del>.</del>" in content
    assert "Open the <ins>Billing</ins> page<ins>!</ins>" in content
    words = text_of(response)
    for line in (
        "Prompt the same in both How do I cancel my subscription?",
        "Cost $0.000100 $0.000150 +50 %",
        "Latency 812 ms 406 ms -50 %",
        "temperature 0.7 0.7",
        "max_tokens – 9",
    ):
        assert line in words


def test_long_texts_are_compared_without_marks() -> None:
    left, right = (InteractionFactory.build(response=f"{end} " + "word " * 2_000) for end in ("one", "other"))
    found = next(text for text in comparing.texts(left, right) if text.label == "Response")
    assert (found.is_marked, found.is_same, len(found.left)) == (False, False, 1)


def test_markup_is_compared_as_text(owner: Person) -> None:
    rows = [InteractionFactory.create(organization=owner.organization, markup=True, response=end) for end in "ab"]
    assert "<script>document.title" not in browser_of(owner.user).get(comparison(*rows)).content.decode()


def test_two_of_the_list_are_compared(owner: Person, pair: tuple[Interaction, Interaction]) -> None:
    client = browser_of(owner.user)

    def choose(*rows: Interaction) -> Any:
        return client.post(LIST, {"action": "compare_selected", "_selected_action": [str(row.pk) for row in rows]})

    assert choose(*reversed(pair)).headers["Location"] == comparison(*pair)
    third = InteractionFactory.create(organization=owner.organization)
    for rows in (pair[:1], (*pair, third)):
        assert choose(*rows).status_code == 302
        assert "Select two interactions to compare" in client.get(LIST).content.decode()


@pytest.mark.parametrize("other", ["nonsense", str(uuid4()), "", "x" * 5_000])
def test_comparison_with_nothing_leads_back(owner: Person, pair: tuple[Interaction, Interaction], other: str) -> None:
    client = browser_of(owner.user)
    response = client.get(f"{LIST}compare/", {"of": str(pair[0].pk), "with": other}, follow=True)
    assert response.redirect_chain == [(f"{LIST}{pair[0].pk}/change/", 302)]
    assert "give the other&#x27;s id" in response.content.decode()


def test_nobody_compares_with_what_they_may_not_see(owner: Person, stranger: Person) -> None:
    mine = InteractionFactory.create(organization=owner.organization)
    theirs = InteractionFactory.create(organization=stranger.organization, prompt="A secret of Umbrella")
    for client in (browser_of(owner.user), browser_of(UserFactory.create())):
        response = client.get(comparison(mine, theirs), follow=True)
        assert "A secret of Umbrella" not in response.content.decode()
        assert response.redirect_chain
    operator = browser_of(UserFactory.create(is_superuser=True))
    assert "secret" in operator.get(comparison(mine, theirs)).content.decode()


# --- Asking again ---------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
class TestRunAgain:
    def ask(self, client: Client, row: Interaction, *, model: str = "simulated/ok", token: UUID | None = None) -> Any:
        return client.post(again(row), {"model": model, "token": str(token or uuid4())})

    def test_answer_is_on_record_and_beside_the_first(self, owner: Person, sent: list[Any]) -> None:
        row = InteractionFactory.create(
            organization=owner.organization, system_prompt="Be brief.", parameters={"temperature": 0.25}
        )
        client = browser_of(owner.user)
        assert row.prompt in client.get(again(row)).content.decode()
        response = self.ask(client, row)
        new = Interaction.objects.exclude(pk=row.pk).get()
        assert response.headers["Location"] == comparison(row, new)
        assert "The same question, asked again" in client.get(response.headers["Location"]).content.decode()
        assert (new.status, new.prompt, new.system_prompt, new.user_id, new.parameters, new.api_key_id) == (
            *(Status.SUCCEEDED, row.prompt, "Be brief.", row.user_id, {"temperature": 0.25}),
            None,
        )
        assert new.metadata == {rerun.OF: str(row.pk), rerun.BY: owner.user.username}
        assert [message.text for message in sent[0].messages] == ["Be brief.", row.prompt]
        assert "with the one that it repeats" in client.get(f"{LIST}{new.pk}/change/").content.decode()

    def test_sent_twice_it_is_asked_once(self, owner: Person, sent: list[Any]) -> None:
        row, token = InteractionFactory.create(organization=owner.organization), uuid4()
        client = browser_of(owner.user)
        first, second = (self.ask(client, row, token=token) for _ in range(2))
        assert first.headers["Location"] == second.headers["Location"]
        assert (len(sent), Interaction.objects.count()) == (1, 2)

    def test_messages_and_tools_go_along(self, owner: Person, sent: list[Any]) -> None:
        row = InteractionFactory.create(organization=owner.organization, tools=True)
        self.ask(browser_of(owner.user), row)
        assert [message.role for message in sent[0].messages] == ["system", "user"]
        assert sent[0].tools == row.parameters["tools"]

    def test_failure_is_told_and_on_record(self, owner: Person, no_waiting: list[float]) -> None:
        row = InteractionFactory.create(organization=owner.organization)
        client = browser_of(owner.user)
        response = client.get(self.ask(client, row, model="simulated/503-forever").headers["Location"])
        assert Interaction.objects.exclude(pk=row.pk).get().status == Status.FAILED
        assert problem_of(response) == "The server is overloaded."

    def test_refusal_is_told_in_words_and_leaves_no_row(self, owner: Person) -> None:
        row = InteractionFactory.create(organization=owner.organization)
        response = self.ask(browser_of(owner.user), row, model="no-such-model")
        assert response.status_code == 200
        assert "no-such-model" in problem_of(response)
        assert Interaction.objects.count() == 1

    def test_limits_of_the_plan_hold(self, owner: Person, sent: list[Any]) -> None:
        plan = owner.organization.plan
        plan.allowed_models = ["gemini-*"]
        plan.save()
        row = InteractionFactory.create(organization=owner.organization)
        response = self.ask(browser_of(owner.user), row)
        assert "simulated/ok" in problem_of(response)
        assert (sent, Interaction.objects.count()) == ([], 1)

    def test_erased_question_cannot_be_asked(self, owner: Person, sent: list[Any]) -> None:
        row = InteractionFactory.create(organization=owner.organization, prompt="")
        client = browser_of(owner.user)
        assert "cannot be asked again" in text_of(client.get(again(row)))
        assert "The question is not on record" in client.get(again(row)).content.decode()
        self.ask(client, row)
        assert sent == []

    def test_only_those_who_manage_the_organization_may(self, owner: Person, stranger: Person, sent: list[Any]) -> None:
        row = InteractionFactory.create(organization=owner.organization)
        member = MembershipFactory.create(organization=owner.organization, role=Membership.Role.MEMBER).user
        assert self.ask(browser_of(member), row).status_code == 403
        assert browser_of(member).get(again(row)).status_code == 403
        assert "Run again" not in browser_of(member).get(f"{LIST}{row.pk}/change/").content.decode()
        assert self.ask(browser_of(stranger.user), row).status_code == 404
        assert sent == []
        assert self.ask(browser_of(UserFactory.create(is_superuser=True)), row).status_code == 302
