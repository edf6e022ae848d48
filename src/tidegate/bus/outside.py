"""A bus in a process that is none of its workers: a command, or the admin process.

    url_of        of the hub that listens at a path
    connect       connect to a bus, which may restart at this moment
    disconnect    and leave it
    Connection    a bus that is connected to when it is needed, and anew when the application declares other channels

The hub knows what its workers have declared; to publish on other engines such a process must be told. What must not
live here: what a bus does (bus.py), what is declared (declaration.py), who listens where (ipc/control_protocol.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from ..channels import MESSAGE_LIMIT, Channel, ChannelLimits
from ..exceptions import BusDown, BusError
from .bus import Bus
from .declaration import read

__all__ = ["Connection", "connect", "disconnect", "knows_channels", "url_of"]

PAUSE: Final = 0.1
"""Seconds between attempts."""

PARTING: Final = 1.0
"""Seconds to wait for an engine that is left."""


def url_of(path: str) -> str:
    """Return the URL of the bus whose hub listens at a path."""
    return f"local://{quote(os.path.abspath(path))}"


def knows_channels(url: str) -> bool:
    """Return whether the engine of a URL knows what was declared, and the limit of a message."""
    return url.startswith("local:")


async def connect(
    url: str, channels: Mapping[str, Channel] | None, seconds: float, message_limit: int = MESSAGE_LIMIT
) -> Bus:
    """Return a bus that is up: one that restarts is waited for, so many seconds.

    Args:
        url: of the bus.
        channels: what its workers have declared; None for an engine that knows it.
        seconds: to wait.
        message_limit: bytes of a message; an engine that has a limit of its own tells it.

    Raises:
        BusDown: it is not there.
        BusError: it cannot be used.
        ValueError: the URL is wrong.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # What it logs when it fails to start is in the exception.
    logger = logging.getLogger("tidegate.bus.outside")
    limits = ChannelLimits(message=message_limit)
    while True:
        bus = Bus(url, channels=channels, limits=limits, logger=logger)
        try:
            async with asyncio.timeout(max(PAUSE, deadline - loop.time())):
                await bus.start()
        except (BusDown, TimeoutError) as error:
            if loop.time() + PAUSE > deadline:
                raise error if isinstance(error, BusDown) else BusDown("it does not answer") from None
            await asyncio.sleep(PAUSE)
        else:
            return bus


async def disconnect(bus: Bus) -> None:
    """Leave a bus; what it has not acknowledged within a second is not waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PARTING):
            await bus.close()


class Connection:
    """A bus that is connected to when it is first needed, and then stays.

    Parameters:
        url: of the bus; None: there is none for other processes.
        seconds: to wait for the bus, and before for what is declared.
    """

    def __init__(self, url: str | None, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()
        self._said: msgspec.Raw | None = None  # what the application declares
        self._told = asyncio.Event()
        self._renewing: set[asyncio.Task[None]] = set()

    def declare(self, said: msgspec.Raw) -> None:
        """Go by what the application declares now; what is being published goes by what it declared then."""
        if said == self._said or self._url is None or knows_channels(self._url):
            return
        self._said = said
        self._told.set()
        if self._bus is not None:
            task = asyncio.create_task(self._renew(self._bus))
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)
            self._bus = None

    async def bus(self) -> Bus:
        """Return the bus, to be used in this turn of the event loop.

        Raises:
            BusDown: it is not there.
            BusError: it cannot be used.
        """
        if self._url is None:
            raise BusDown("the daemon has no socket for other processes: start it with --control PATH")
        if self._bus is not None:
            return self._bus
        try:
            async with asyncio.timeout(self._seconds + 1.0), self._connecting:
                while self._bus is None:
                    said, bus = await self._connect(self._url)
                    if said == self._said:
                        self._bus = bus
                    else:
                        await disconnect(bus)
                return self._bus
        except TimeoutError:
            raise BusDown("it does not answer") from None

    async def _renew(self, bus: Bus) -> None:
        """Leave a bus that goes by what was declared before, and connect anew: NATS stores as who has come last says.

        Who has got that bus has begun to publish, which is waited for: tasks begin in the order in which they are made.
        """
        await bus.close()
        with contextlib.suppress(BusError):
            await self.bus()

    async def _connect(self, url: str) -> tuple[msgspec.Raw | None, Bus]:
        """Connect by what is declared at this moment, and return both."""
        if knows_channels(url):
            return None, await connect(url, None, self._seconds)
        try:
            async with asyncio.timeout(self._seconds):
                await self._told.wait()
        except TimeoutError:
            raise BusDown("no worker has said yet which channels there are; try again") from None
        said = self._said
        assert said is not None
        declared = read(said)
        return said, await connect(url, declared.channels, self._seconds, declared.message_limit)

    async def close(self) -> None:
        """Disconnect."""
        tasks = list(self._renewing)
        tasks += [asyncio.create_task(self._bus.close())] if self._bus is not None else []
        self._bus = None
        if tasks:
            await asyncio.wait(tasks, timeout=PARTING)
