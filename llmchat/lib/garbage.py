"""How seldom Python looks for circles of garbage in a process that serves. It knows nothing of what is served."""

from __future__ import annotations

import gc
from typing import Final

#: Objects made and not let go of since the last look. Python's own 700 are there whenever sixty requests are in flight,
#: so that it looks, in vain, every few of them: requests leave no circles behind. Those of a traceback wait a little
#: longer for it, a few megabytes at most.
OBJECTS: Final = 50_000


def collect_seldom() -> None:
    """For once everything is there: it stays, and is not looked at again; what comes later is looked at seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS)
