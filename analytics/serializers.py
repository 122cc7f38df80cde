"""Query parameters of usage and statistics, and the shapes of their answers for the OpenAPI description."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from analytics import rolling, usage
from chat.models import Status
from llmchat.lib import fields

EARLIEST: Final = dt.date(1970, 1, 1)
LATEST: Final = dt.date(2099, 12, 31)
#: Days that a question may span at most, by its interval.
LONGEST: Final = {"hour": 31, "day": 366, "month": 3660, None: 3660}
#: Days that are told of when no dates are given.
USUAL: Final = 30


def _text(help_text: str, *, max_length: int) -> fields.Text:
    return fields.Text(required=False, max_length=max_length, single_line=True, help_text=help_text)


def _is_told(value: dt.date) -> None:
    if not EARLIEST <= value <= LATEST:
        raise serializers.ValidationError(f"Give a day from {EARLIEST} to {LATEST}.")


class UsageQuerySerializer(fields.KnownFieldsSerializer):
    start_date = serializers.DateField(
        required=False, validators=[_is_told], help_text="The first day, in UTC (30 days up to the last day)."
    )
    end_date = serializers.DateField(required=False, validators=[_is_told], help_text="The last day, included (today).")
    group_by = serializers.ChoiceField(
        required=False,
        choices=[*usage.DIMENSIONS, *usage.INTERVALS],
        help_text="Tells `groups` by this dimension; hour, day and month are the same as `interval`.",
    )
    interval = serializers.ChoiceField(
        required=False, choices=list(usage.INTERVALS), help_text="Tells a `series` by this interval as well."
    )
    limit = serializers.IntegerField(
        required=False, default=100, min_value=1, max_value=1000, help_text="Groups told one by one; then their rest."
    )
    model = _text("Only those answered by this model.", max_length=256)
    provider = _text("Only those of this provider.", max_length=64)
    user = _text("Only this user's; goes with no other filter.", max_length=128)
    key = serializers.UUIDField(required=False, help_text="Only those with the API key of this id.")
    status = serializers.ChoiceField(required=False, choices=Status.choices, help_text="Only those that ended so.")
    plan = _text("Only those on this plan.", max_length=32)
    error_code = _text("Only those with this error.", max_length=64)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("group_by") in usage.INTERVALS:
            if "interval" in attrs:
                raise serializers.ValidationError(
                    {"group_by": "Give a dimension here, such as model, when there is an interval."}
                )
            attrs["interval"] = attrs.pop("group_by")
        self._check_dates(attrs)
        self._check_users(attrs)
        return attrs

    def _check_dates(self, attrs: dict[str, Any]) -> None:
        end = attrs.setdefault("end_date", max(timezone.now().date(), attrs.get("start_date", EARLIEST)))
        start = attrs.setdefault("start_date", max(EARLIEST, end - dt.timedelta(days=USUAL - 1)))
        if start > end:
            raise serializers.ValidationError({"start_date": f"It is after end_date, {end}. Exchange them."})
        interval = attrs.get("interval")
        days = (end - start).days + 1
        if days > LONGEST[interval]:
            by = f" by the {interval}" if interval else ""
            raise serializers.ValidationError(
                {"start_date": f"These are {days} days; at most {LONGEST[interval]} can be told{by}. Ask for fewer."}
            )
        kept = timezone.now().date() - rolling.HOURS_KEPT
        if interval == "hour" and start < kept:
            raise serializers.ValidationError(
                {"start_date": f"Hours are kept since {kept}. Begin then or later, or ask by the day."}
            )

    def _check_users(self, attrs: dict[str, Any]) -> None:
        others = {"model", "provider", "key", "status", "plan", "error_code"} & set(attrs)
        is_by_user = attrs.get("group_by") == "user"
        if not is_by_user and "user" not in attrs:
            return
        param = "user" if "user" in attrs else "group_by"
        if others or (attrs.get("group_by") not in {None, "user"}):
            what = ", ".join(sorted(others)) or f"group_by={attrs['group_by']}"
            raise serializers.ValidationError(
                {param: f"Users are added up by time alone, not together with {what}. Leave one of them out."}
            )
        if attrs.get("interval") == "hour":
            raise serializers.ValidationError({param: "Users are added up by the day. Ask for interval=day or month."})


class StatisticsQuerySerializer(fields.KnownFieldsSerializer):
    since = serializers.DateTimeField(
        required=False, help_text="The first moment, such as 2026-06-15T14:00:00Z (24 hours ago)."
    )

    def validate_since(self, value: dt.datetime) -> dt.datetime:
        now = timezone.now()
        if value > now:
            raise serializers.ValidationError("This is in the future. Give a moment that has passed.")
        if value < now - dt.timedelta(days=LONGEST[None]):
            raise serializers.ValidationError(f"This is more than {LONGEST[None]} days ago. Give a later moment.")
        return value


# --- Answers ---------------------------------------------------------------------------------------------------------


class FreshnessSerializer(serializers.Serializer[Any]):
    as_of = serializers.DateTimeField()
    is_complete = serializers.BooleanField(help_text="Whether all that was on record then is counted.")
    pending_since = serializers.DateTimeField(
        allow_null=True, help_text="If not: the earliest minute of which something is still to be added up."
    )


class TokensSerializer(serializers.Serializer[Any]):
    input = serializers.IntegerField(help_text="Cached ones included.")
    cached_input = serializers.IntegerField()
    output = serializers.IntegerField(help_text="Reasoning included.")
    reasoning = serializers.IntegerField()
    total = serializers.IntegerField()


class TimesSerializer(serializers.Serializer[Any]):
    """Milliseconds. Percentiles are within 2 % of the exact ones; null when no time is known."""

    count = serializers.IntegerField(help_text="Requests whose time is known.")
    average = serializers.FloatField(allow_null=True)
    p50 = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class BriefSerializer(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    tokens = serializers.IntegerField()
    cost = serializers.FloatField(allow_null=True, help_text="US dollars; null when no price is known.")
    unpriced_requests = serializers.IntegerField(help_text="Requests that spent tokens at an unknown price.")


class SummarySerializer(serializers.Serializer[Any]):
    total_cost = serializers.FloatField(
        allow_null=True, help_text="US dollars of the requests whose price is known; null when none is."
    )
    currency = serializers.ChoiceField(choices=["USD"])
    total_tokens = serializers.IntegerField()
    total_requests = serializers.IntegerField()
    unpriced_requests = serializers.IntegerField(help_text="Requests that spent tokens at an unknown price.")
    tokens = TokensSerializer()
    attempts = serializers.IntegerField(help_text="Calls of providers; not told by user.")
    retries = serializers.IntegerField()
    fallbacks = serializers.IntegerField(help_text="Requests that another model or provider took over.")
    latency_ms = TimesSerializer()
    time_to_first_token_ms = TimesSerializer()


class GroupSerializer(SummarySerializer):
    """Also has the dimension's value under the name given as `group_by`."""

    is_rest = serializers.BooleanField(required=False, help_text="All groups beyond `limit` together.")


class PointSerializer(BriefSerializer):
    """Also has the dimension's value under the name given as `group_by`."""

    start = serializers.DateTimeField()


@extend_schema_serializer(many=False)
class UsageAnswerSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField()
    start_date = serializers.DateField()
    end_date = serializers.DateField()
    summary = SummarySerializer()
    by_model = serializers.DictField(child=BriefSerializer(), allow_null=True, help_text="Null with `user`.")
    groups = GroupSerializer(many=True, required=False)
    series = PointSerializer(many=True, required=False)
    freshness = FreshnessSerializer()


class RequestCountsSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    interrupted = serializers.IntegerField()


class CacheSerializer(serializers.Serializer[Any]):
    hits = serializers.IntegerField(help_text="Requests answered without a provider.")
    hit_rate = serializers.FloatField(allow_null=True, help_text="0 to 1.")


class CostsSerializer(serializers.Serializer[Any]):
    total = serializers.FloatField(allow_null=True)
    currency = serializers.ChoiceField(choices=["USD"])
    unpriced_requests = serializers.IntegerField()


class ErrorCountsSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField(help_text="Failed and interrupted requests.")
    rate = serializers.FloatField(allow_null=True, help_text="0 to 1.")
    by_code = serializers.DictField(child=serializers.IntegerField())


class RetriesSerializer(serializers.Serializer[Any]):
    attempts = serializers.IntegerField(help_text="Calls of providers.")
    retries = serializers.IntegerField()
    fallbacks = serializers.IntegerField(help_text="Requests that another model or provider took over.")


@extend_schema_serializer(many=False)
class StatisticsAnswerSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    requests = RequestCountsSerializer()
    latency_ms = TimesSerializer()
    time_to_first_token_ms = TimesSerializer()
    cache = CacheSerializer()
    tokens = TokensSerializer()
    cost = CostsSerializer()
    errors = ErrorCountsSerializer()  # type: ignore[assignment]
    retries = RetriesSerializer()
    freshness = FreshnessSerializer()
