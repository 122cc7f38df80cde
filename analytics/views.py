"""`/v1/usage` and `/v1/stats`: an organization's own figures."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import principal_of
from analytics import schema, usage
from analytics.serializers import StatisticsQuerySerializer, UsageQuerySerializer
from llmchat.lib.fields import KnownFieldsSerializer
from llmchat.lib.views import ViewSet

#: Statistics are of this time when nobody says since when.
_USUAL = dt.timedelta(hours=24)


class UsageViewSet(ViewSet):
    required_scope = "read"

    @schema.USAGE
    def list(self, request: Request) -> Response:
        asked = _query(UsageQuerySerializer, request)
        interval = asked.get("interval")
        return Response(
            usage.usage(
                principal_of(request).organization_id,
                start=asked["start_date"],
                end=asked["end_date"],
                group_by=asked.get("group_by"),
                interval=usage.INTERVALS[interval] if interval else None,
                only={name: asked[word] for word, name in usage.DIMENSIONS.items() if word in asked},
                limit=asked["limit"],
            )
        )


class StatisticsViewSet(ViewSet):
    required_scope = "read"

    @schema.STATISTICS
    def list(self, request: Request) -> Response:
        # Rows' ids have milliseconds; what has just been written is to be within.
        until = timezone.now() + dt.timedelta(milliseconds=1)
        since = _query(StatisticsQuerySerializer, request).get("since", until - _USUAL)
        return Response(usage.statistics(principal_of(request).organization_id, since=since, until=until))


def _query(serializer_class: type[KnownFieldsSerializer], request: Request) -> dict[str, Any]:
    serializer = serializer_class(data=request.query_params.dict())
    serializer.is_valid(raise_exception=True)
    validated: dict[str, Any] = serializer.validated_data
    return validated
