"""Who is asking: from `Authorization: Bearer` or `X-API-Key` to a `Principal`.

A known key costs one hash and one look-up in memory; the database is asked about it once in a while (see
`accounts.key_cache`), off the event loop. When it cannot be asked, keys known from before stay good and others get 503:
never a 401 for a fault of ours.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.addresses import client_address, network_of
from accounts.counters import count
from accounts.errors import (
    CHALLENGE,
    ConflictingAPIKeys,
    ExpiredAPIKey,
    InvalidAPIKey,
    LimitsUnavailable,
    MalformedAPIKey,
    MissingAPIKey,
    OrganizationInactive,
    RevokedAPIKey,
    TooManyFailedAuthentications,
)
from accounts.key_cache import KEYS, Finding
from accounts.models import APIKey
from accounts.principals import Caller, PlanLimits, Principal
from accounts.services import PUBLIC_SCOPES, RAW_KEY, public_organization
from llmchat.lib.envelope import DatabaseUnavailable
from llmchat.lib.threads import in_background, in_thread

__all__ = ["APIKeyAuthentication", "Principal"]

logger = logging.getLogger(__name__)

LAST_USED_EVERY = timedelta(minutes=1)

_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request shows: the digest of its key, or `_PUBLIC`. `plausible`: it has the form of a key."""

    digest: str
    plausible: bool


_PUBLIC = Presented(digest="public", plausible=True)


class APIKeyAuthentication(BaseAuthentication):
    """`request.user` becomes a `Caller`, `request.auth` a `Principal`. A request without a key is not authenticated,
    unless `REQUIRE_API_KEY` is off: then it speaks for the public organization."""

    def authenticate(self, request: Request) -> tuple[Any, Principal] | None:
        presented = presented_key(request)
        if presented is None:
            return None
        finding = KEYS.usable(presented.digest)
        if finding is None or KEYS.claims_refresh(finding):
            finding = _look_up(presented, _address(request), seen=finding)
            _note_use(finding)
        return _admit(finding)

    async def aauthenticate(self, request: Request) -> tuple[Any, Principal] | None:
        """The same on the event loop: waits on a thread for keys not known, refreshes known ones behind the request."""
        presented = presented_key(request)
        if presented is None:
            return None
        finding = KEYS.usable(presented.digest)
        if finding is None:
            finding = await in_thread(_look_up, presented, _address(request), seen=None)
            if _unnoted_use(finding) is not None:
                in_background(_note_use, finding)
        elif KEYS.claims_refresh(finding):
            in_background(_refresh, presented, _address(request), finding)
        return _admit(finding)

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


def presented_key(request: Request) -> Presented | None:
    """The key in the request's headers; None without one. Raises `NotAuthenticated` or `ConflictingAPIKeys`."""
    authorization = request.META.get("HTTP_AUTHORIZATION")
    x_api_key = request.META.get("HTTP_X_API_KEY")
    if authorization is None and x_api_key is None:
        return None if settings.REQUIRE_API_KEY else _PUBLIC
    keys = []
    if authorization is not None:
        if (match := _BEARER.fullmatch(authorization.strip())) is None:
            raise MalformedAPIKey("Authorization")
        keys.append(match[1])
    if x_api_key is not None:
        if not x_api_key.strip() or len(x_api_key.split()) > 1:
            raise MalformedAPIKey("X-API-Key")
        keys.append(x_api_key.strip())
    raw = keys[0].encode("utf-8", "surrogateescape")
    if any(not hmac.compare_digest(raw, key.encode("utf-8", "surrogateescape")) for key in keys[1:]):
        raise ConflictingAPIKeys
    return Presented(digest=hashlib.sha256(raw).hexdigest(), plausible=RAW_KEY.fullmatch(keys[0]) is not None)


def _admit(finding: Finding) -> tuple[Caller, Principal]:
    if finding.principal is None:
        raise finding.refusal()
    # A key's end is known beforehand: it comes in time, whatever is cached.
    if finding.expires_at is not None and finding.expires_at <= timezone.now():
        raise ExpiredAPIKey
    return Caller(finding.principal), finding.principal


def _look_up(presented: Presented, address: str, *, seen: Finding | None) -> Finding:
    """Asks the database about a key, unless another thread has since the caller has `seen` what was known.

    Raises `TooManyFailedAuthentications` for an address that has shown too many wrong keys, before the database is
    asked, and `DatabaseUnavailable` for a key that nothing is known of.
    """
    digest = presented.digest
    known = KEYS.usable(digest)
    if known is not None and known is not seen:
        return known
    reserve = KEYS.in_reserve(digest)
    if reserve is None and presented is not _PUBLIC:
        _refuse_flood(address)
        finding = KEYS.refused(digest) if presented.plausible else Finding(digest=digest)
        if finding is not None:
            _count_failure(finding, address)
            return finding
    if not KEYS.may_ask():
        if reserve is None:
            raise DatabaseUnavailable
        return reserve
    generation = KEYS.generation
    try:
        finding = _public_finding() if presented is _PUBLIC else _stored_finding(digest)
    except (OperationalError, InterfaceError) as error:
        KEYS.database_failed()
        logger.exception("API keys cannot be looked up: %s", type(error).__name__)
        if reserve is None:
            raise DatabaseUnavailable from error
        return reserve
    KEYS.store(finding, generation=generation)
    _count_failure(finding, address)
    return finding


def _stored_finding(digest: str) -> Finding:
    key = APIKey.objects.select_related("organization__plan").filter(digest=digest).first()
    if key is None or not hmac.compare_digest(key.digest, digest):
        return Finding(digest=digest)
    if key.revoked_at is not None:
        return Finding(digest=digest, refusal=RevokedAPIKey)
    if not key.organization.is_active:
        return Finding(digest=digest, refusal=OrganizationInactive)
    principal = Principal(
        organization_id=key.organization_id,
        organization_name=key.organization.name,
        api_key_id=key.id,
        key_name=key.name,
        scopes=frozenset(key.scopes),
        plan=PlanLimits.of(key.organization.plan),
        budget_usd=key.budget_usd,
        keeps_prompts=key.organization.keeps_prompts,
        keeps_responses=key.organization.keeps_responses,
    )
    return Finding(digest=digest, principal=principal, expires_at=key.expires_at, last_used_at=key.last_used_at)


def _public_finding() -> Finding:
    organization = public_organization()
    if not organization.is_active:
        return Finding(digest=_PUBLIC.digest, refusal=MissingAPIKey)
    principal = Principal(
        organization_id=organization.id,
        organization_name=organization.name,
        api_key_id=None,
        key_name="",
        scopes=PUBLIC_SCOPES,
        plan=PlanLimits.of(organization.plan),
        keeps_prompts=organization.keeps_prompts,
        keeps_responses=organization.keeps_responses,
    )
    return Finding(digest=_PUBLIC.digest, principal=principal)


def _refresh(presented: Presented, address: str, seen: Finding) -> None:
    _note_use(_look_up(presented, address, seen=seen))


def _unnoted_use(finding: Finding) -> UUID | None:
    """The key whose use is to be written down; None when it was lately."""
    if finding.last_used_at is not None and finding.last_used_at > timezone.now() - LAST_USED_EVERY:
        return None
    return finding.principal.api_key_id if finding.principal is not None else None


def _note_use(finding: Finding) -> None:
    """Writes down that the key is in use, at most once a minute over all processes. Nothing depends on it."""
    key_id = _unnoted_use(finding)
    if key_id is None:
        return
    now = timezone.now()
    try:
        APIKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USED_EVERY), id=key_id).update(
            last_used_at=now
        )
    except DatabaseError as error:
        logger.warning("A key's last use is not noted: %s", type(error).__name__)
    finding.last_used_at = now


def _address(request: Request) -> str:
    return network_of(client_address(request._request))  # noqa: SLF001 - DRF offers no other way to Django's request


def _refuse_flood(address: str) -> None:
    try:
        usage = count("failed_authentications", value=address, rate=_failure_rate(), increment=False)
    except LimitsUnavailable:
        # This counter only saves work. Keys cannot be guessed, so it is better to let good ones in.
        return
    if usage.count >= usage.limit:
        raise TooManyFailedAuthentications(retry_after=usage.reset_seconds)


def _count_failure(finding: Finding, address: str) -> None:
    """Only keys that do not exist count: an expired or revoked key is some program's, and others share its address."""
    if finding.principal is not None or finding.refusal is not InvalidAPIKey:
        return
    try:
        count("failed_authentications", value=address, rate=_failure_rate())
    except LimitsUnavailable:
        return


def _failure_rate() -> str:
    return f"{settings.FAILED_AUTHENTICATIONS_PER_MINUTE}/m"
