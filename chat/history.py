"""`/v1/interactions` and `/v1/conversations`: an organization's own record, read and deleted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import principal_of
from chat import payloads, queries, schema, services, walking
from chat.models import Conversation, Interaction
from chat.queries import Row
from chat.serializers import InteractionFilterSerializer, PageSerializer
from llmchat.lib.envelope import APIError
from llmchat.lib.fields import KnownFieldsSerializer
from llmchat.lib.uuid7 import moment_of
from llmchat.lib.views import ViewSet


class InteractionViewSet(ViewSet):
    required_scope = "read"

    @schema.LIST_INTERACTIONS
    def list(self, request: Request) -> Response:
        filters = _query(InteractionFilterSerializer, request)
        try:
            found = queries.interactions(principal_of(request).organization_id, filters=filters)
        except walking.TooSlow:
            raise _too_slow() from None
        following = found.rows[-1].pk if found.has_more else found.looked_to
        return Response(
            {
                "data": [payloads.stored_interaction(row) for row in found.rows],
                "nextCursor": str(following) if following else None,
                "lookedBackTo": payloads.timestamp(moment_of(found.looked_to)) if found.looked_to else None,
            }
        )

    @schema.RETRIEVE_INTERACTION
    def retrieve(self, request: Request, id: UUID) -> Response:
        row = Interaction.objects.filter(organization_id=principal_of(request).organization_id, id=id).first()
        if row is None:
            raise _not_found("interaction")
        attempts = [payloads.stored_attempt(attempt) for attempt in row.attempts.order_by("number")]
        return Response({**payloads.stored_interaction(row), "attempts": attempts})


class ConversationViewSet(ViewSet):
    required_scope = "read"

    @schema.LIST_CONVERSATIONS
    def list(self, request: Request) -> Response:
        filters = _query(PageSerializer, request)
        rows = queries.conversations(principal_of(request).organization_id, filters=filters)
        return _page(rows, filters, payloads.stored_conversation)

    @schema.RETRIEVE_CONVERSATION
    def retrieve(self, request: Request, id: UUID) -> Response:
        conversation = self._own(request, id)
        thread = [payloads.stored_interaction(row) for row in queries.thread(conversation)]
        return Response({**payloads.stored_conversation(conversation), "interactions": thread})

    @schema.DELETE_CONVERSATION
    def destroy(self, request: Request, id: UUID) -> Response:
        services.delete_conversation(self._own(request, id))
        return Response(status=204)

    def _own(self, request: Request, id: UUID) -> Conversation:
        conversation = Conversation.objects.filter(organization_id=principal_of(request).organization_id, id=id).first()
        if conversation is None:
            raise _not_found("conversation")
        return conversation


def _query(serializer_class: type[KnownFieldsSerializer], request: Request) -> dict[str, Any]:
    serializer = serializer_class(data=request.query_params.dict())
    serializer.is_valid(raise_exception=True)
    validated: dict[str, Any] = serializer.validated_data
    return validated


def _page(rows: QuerySet[Row], filters: dict[str, Any], payload: Any) -> Response:
    found, following = queries.page(rows, cursor=filters.get("cursor"), limit=filters["limit"])
    return Response({"data": [payload(row) for row in found], "nextCursor": str(following) if following else None})


def _too_slow() -> APIError:
    return APIError(
        f"This was stopped after {walking.STATEMENT_SECONDS} seconds. Ask for a shorter time with since and until.",
        status=503,
        code="query_too_slow",
        retry_after=walking.STATEMENT_SECONDS,
    )


def _not_found(kind: str) -> APIError:
    return APIError(f"There is no such {kind}.", status=404, code=f"{kind}_not_found")
