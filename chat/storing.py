"""Puts batches of exchanges into the database, or into quarantine: for the committer, and for whoever replays journals.

It must not count: prometheus_client may not be imported before `manage.py serve` has settled where it counts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from django.db import InterfaceError, InternalError, OperationalError

from chat import quarantine, rows
from chat.rows import ExchangeRows

logger = logging.getLogger(__name__)

#: The database is away, or takes nothing: a standby that only reads raises the last one. No row is to blame.
UNUSABLE: Final = (OperationalError, InterfaceError, InternalError)
#: Exchanges committed together at most; a longer queue takes several transactions.
BATCH: Final = 500
#: Bytes of their ends in the journal after which a batch is full, too: rows take several times as much memory.
BATCH_BYTES: Final = 4 * 1024 * 1024


def store_or_quarantine(batch: Sequence[ExchangeRows]) -> None:
    """Stores the batch; what the database refuses is found by halving and put into quarantine with the reason.

    Raises one of `UNUSABLE` when the database takes nothing at all.
    """
    if not batch:
        return
    try:
        rows.store(batch)
    except UNUSABLE:
        raise
    except Exception as error:
        if len(batch) == 1:
            logger.exception("The database refuses %s; it goes into quarantine.", batch[0].id)
            quarantine.put(batch[0], reason=f"{type(error).__name__}: {error}")
            return
        middle = len(batch) // 2
        store_or_quarantine(batch[:middle])
        store_or_quarantine(batch[middle:])
