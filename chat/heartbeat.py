"""Signs of life for the claims that this process holds on request ids, until their answers can be seen by everybody.

One task beats for all of them while there are any. It knows claims by their interactions' ids, and nothing of what they
are claims on or of who waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from uuid import UUID

from django.db import Error
from django.db.models import F

from chat.models import IdempotencyClaim, Interaction, QuarantinedExchange
from llmchat.lib.threads import in_thread

logger = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT: Final = 2.0
#: Seconds for which the database may go on with a statement whose client it has lost.
AFTERMATH: Final = 60.0
#: So many claims at most are looked for in the aftermath. Those from the beginning of an outage are the ones that may
#: have been won; what is asked for while it lasts is not.
MOST_DISOWNED: Final = 10_000

#: Interactions whose claims this process holds, and whether they have ended.
_held: dict[UUID, bool] = {}
#: Claims of calls that never came to be, which could not be given back; until when they may still come to light, on the
#: monotonic clock.
_unwanted: dict[UUID, float] = {}
_beating: asyncio.Task[None] | None = None


def hold(interaction_id: UUID) -> None:
    """Its claim is ours from here on."""
    _held[interaction_id] = False
    _begin()


def ended(interaction_id: UUID) -> None:
    """The interaction has ended. The beat goes on until its row can be seen: while the database is away it is only in
    the journal."""
    _held[interaction_id] = True


async def release(interaction_id: UUID) -> None:
    """Gives back the claim of a call that never came to be; later, if the database does not let it now."""
    _held.pop(interaction_id, None)
    try:
        await in_thread(_delete, [interaction_id])
    except Error:
        logger.warning("The claim of %s is not released yet.", interaction_id, exc_info=True)
        _unwanted[interaction_id] = 0.0
        _begin()


def disown(interaction_id: UUID) -> None:
    """Gives back a claim of which nobody knows whether it was won: the database broke off before it said so, and may
    even win it now. Nobody is at its answer, and others would wait for it as long as this process lives."""
    if len(_unwanted) < MOST_DISOWNED:
        _unwanted[interaction_id] = time.monotonic() + AFTERMATH
    _begin()


def forget() -> None:
    """Lets go of everything, as the process's end would."""
    _held.clear()
    _unwanted.clear()


def _begin() -> None:
    global _beating  # noqa: PLW0603 - one per process
    loop = asyncio.get_running_loop()
    if _beating is None or _beating.done() or _beating.get_loop() is not loop:
        _beating = loop.create_task(_beat_while_holding())


async def _beat_while_holding() -> None:
    while _held or _unwanted:
        await asyncio.sleep(BEAT)
        unwanted = dict(_unwanted)
        over = [identifier for identifier, has_ended in _held.items() if has_ended]
        try:
            settled = await in_thread(_beat, list(_held), over, set(unwanted))
        except Error as error:
            logger.warning("Claims could not be renewed: %s", error)
            continue
        except Exception:
            # Not of the database: without this task all that is held here would be taken for dead.
            logger.exception("Claims could not be renewed.")
            continue
        for identifier, until in unwanted.items():
            if until < time.monotonic():
                _unwanted.pop(identifier, None)
        for identifier in settled:
            _held.pop(identifier, None)


def _beat(held: list[UUID], over: list[UUID], unwanted: set[UUID]) -> set[UUID]:
    """Moves the beats on; returns those of `over` whose rows can be seen, which need it no more."""
    if unwanted:
        _delete(unwanted)
    settled: set[UUID] = set()
    if over:
        settled.update(Interaction.objects.filter(id__in=over).values_list("id", flat=True))
        settled.update(QuarantinedExchange.objects.filter(id__in=over).values_list("id", flat=True))
    if alive := [identifier for identifier in held if identifier not in settled]:
        IdempotencyClaim.objects.filter(interaction_id__in=alive).update(beats=F("beats") + 1)
    return settled


def _delete(interaction_ids: set[UUID] | list[UUID]) -> None:
    IdempotencyClaim.objects.filter(interaction_id__in=interaction_ids).delete()
