"""The bus of an event loop: servers that name the same URL share one, and functions without a bus find it.

What must not live here: what a bus does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..channels import Channel, ChannelLimits
from ..exceptions import BusError
from .bus import Bus

if TYPE_CHECKING:
    from collections.abc import Callable

    from .members import Members

__all__ = ["Share", "current", "share"]


class Share:
    """One bus, and how many use it.

    Attributes:
        bus: that is shared; it is closed when the last one leaves, unless it was there before.
    """

    def __init__(self, bus: Bus, owned: bool) -> None:
        self.bus = bus
        self._owned = owned
        self._users = 0
        self._starting: asyncio.Task[None] | None = None

    async def enter(self, *, required: bool = True) -> None:
        """Use the bus, and start it if it is not.

        Args:
            required: as for `Bus.start()`.

        Raises:
            BusError: it cannot be started.
        """
        buses = _SHARES.setdefault(asyncio.get_running_loop(), {})
        buses[self.bus.url if self._owned else self.bus] = self
        self._users += 1
        try:
            if self._owned:
                if self._starting is None:
                    self._starting = asyncio.create_task(self.bus.start(required=required))
                await asyncio.shield(self._starting)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Use the bus no more."""
        self._users -= 1
        if not self._users:
            _SHARES[asyncio.get_running_loop()].pop(self.bus.url if self._owned else self.bus, None)
            if self._owned:
                await self.bus.close()


_SHARES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | Bus, Share]] = WeakKeyDictionary()


def share(
    bus: str | Bus,
    channels: Mapping[str, Channel] | None,
    members: Callable[[], Members],
    limits: ChannelLimits | None = None,
) -> Share:
    """Return the share of a bus: of one that is there, or of the one of that URL on this event loop.

    Args:
        bus: a URL, or a bus that was started.
        channels: policy of the channels with each prefix.
        members: makes the table of a channel's members.
        limits: of channels; None takes those of the bus.

    Raises:
        TypeError, ValueError: for a wrong argument; channels or limits that differ from those of the bus, too.
    """
    found = _SHARES.get(asyncio.get_running_loop(), {}).get(bus)
    if found is None:
        if isinstance(bus, Bus):
            bus.use_table(members)
            found = Share(bus, owned=False)
        else:
            return Share(Bus(bus, channels=channels, limits=limits, members=members), owned=True)
    if channels is not None and dict(channels) != found.bus.channels:
        raise ValueError("channels differ from those of the bus, which others use: declare them in one place")
    if limits not in (None, found.bus.limits):
        raise ValueError("channel_limits differ from those of the bus, which others use: give them in one place")
    return found


def current() -> Bus:
    """Return the bus of the running event loop.

    Raises:
        BusError: there is none, or there are several.
    """
    try:
        shares = _SHARES.get(asyncio.get_running_loop())
    except RuntimeError:
        shares = None
    if not shares:
        raise BusError("there is no bus here: give serve() channels=, or use `async with tidegate.Bus(...) as bus`")
    if len(shares) > 1:
        raise BusError("this event loop has several buses: call the methods of one of them")
    return next(iter(shares.values())).bus
