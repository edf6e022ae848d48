"""Which processor a slot runs on.

    check     whether this machine lets us use the processors of the setting
    pin       in a worker: run on the slot's own

What must not live here: how many workers there are (cli/serve.py).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal, TypeAlias

from ...config.errors import ConfigError

__all__ = ["Affinity", "check", "pin", "processor_of"]

logger = logging.getLogger("tidegate.worker")

Affinity: TypeAlias = tuple[int, ...] | Literal["auto"] | None


def check(affinity: Affinity) -> None:
    """ConfigError, if a processor of the setting is not ours to use, or this system does not let us choose."""
    if affinity is None:
        return
    given = affinity if affinity == "auto" else ",".join(map(str, affinity))
    if sys.platform != "linux":
        raise ConfigError("--cpu-affinity", given, "none", "this system does not let processes choose")
    usable = os.sched_getaffinity(0)
    if affinity != "auto" and (others := sorted(set(affinity) - usable)):
        words = ", ".join(map(str, sorted(usable)))
        raise ConfigError("--cpu-affinity", given, f"processors of {words}", f"{others[0]} is not usable here")


def processor_of(affinity: Affinity, slot: int, usable: set[int]) -> int | None:
    """The processor of a slot: the next one for each, and from the first again when there are more slots."""
    if affinity is None or not usable:
        return None
    processors = sorted(usable) if affinity == "auto" else affinity
    return processors[slot % len(processors)]


def pin(affinity: Affinity, slot: int) -> None:
    """In a worker, whose parent has not been pinned: stay on the slot's processor, with every thread from now on."""
    if affinity is None or sys.platform != "linux":
        return
    processor = processor_of(affinity, slot, os.sched_getaffinity(0))
    if processor is None:
        return
    try:
        os.sched_setaffinity(0, {processor})
    except OSError as error:  # it was taken out of service, or out of our control group, since the start
        logger.warning("processor %d cannot be had (%s): this worker runs on any", processor, error.strerror)
