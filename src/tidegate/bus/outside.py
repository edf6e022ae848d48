"""A bus in a process that is none of its workers: a command, or the admin process.

    url_of       of the hub that listens at a path
    connect      connect to a bus, which may restart at this moment

What must not live here: what a bus does (bus.py), who listens where (ipc/control_protocol.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from ..channels import MESSAGE_LIMIT, Channel, ChannelLimits
from ..exceptions import BusDown
from .bus import Bus

__all__ = ["connect", "url_of"]

PAUSE: Final = 0.1
"""Seconds between attempts."""

LIMITS: Final = ChannelLimits(message=MESSAGE_LIMIT)
"""The engine has its own limit, which is not known here before it is told."""


def url_of(path: str) -> str:
    """Return the URL of the bus whose hub listens at a path."""
    return f"local://{quote(os.path.abspath(path))}"


async def connect(url: str, channels: Mapping[str, Channel] | None, seconds: float) -> Bus:
    """Return a bus that is up: one that restarts is waited for, so many seconds.

    Raises:
        BusDown: it is not there.
        BusError: it cannot be used.
        ValueError: the URL is wrong.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # What it logs when it fails to start is in the exception.
    logger = logging.getLogger("tidegate.bus.outside")
    while True:
        bus = Bus(url, channels=channels, limits=LIMITS, logger=logger)
        try:
            async with asyncio.timeout(max(PAUSE, deadline - loop.time())):
                await bus.start()
        except (BusDown, TimeoutError) as error:
            if loop.time() + PAUSE > deadline:
                raise error if isinstance(error, BusDown) else BusDown("it does not answer") from None
            await asyncio.sleep(PAUSE)
        else:
            return bus
