"""Which processor a slot runs on.

    pin       in a worker: run on the slot's own

What must not live here: whether the processors of the setting are usable, and how many workers there are
(config/prerequisites.py).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal, TypeAlias

__all__ = ["Affinity", "pin", "processor_of"]

logger = logging.getLogger("tidegate.worker")

Affinity: TypeAlias = tuple[int, ...] | Literal["auto"] | None


def processor_of(affinity: Affinity, slot: int, usable: set[int]) -> int | None:
    """Return the processor of a slot: the next one for each, and from the first again when there are more slots."""
    if affinity is None or not usable:
        return None
    processors = sorted(usable) if affinity == "auto" else affinity
    return processors[slot % len(processors)]


def pin(affinity: Affinity, slot: int) -> None:
    """Stay on the slot's processor, with every thread from now on, in a worker whose parent has not been pinned."""
    if affinity is None or sys.platform != "linux":
        return
    processor = processor_of(affinity, slot, os.sched_getaffinity(0))
    if processor is None:
        return
    try:
        os.sched_setaffinity(0, {processor})
    except OSError as error:  # it was taken offline, or out of the control group, since the start
        logger.warning("processor %d cannot be used (%s): this worker runs on any", processor, error.strerror)
