"""/live: the connections that get the state of the daemon once a second.

What must not live here: what they are sent (live.py), who may connect (authorization.py).
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from .._core.scoreboard import Scoreboard
from ..asyncio.broadcast import broadcast
from ..asyncio.server import ServerConnection
from .live import Live, Sampler

__all__ = ["LIMIT", "LISTENERS", "Feed"]

logger = logging.getLogger("tidegate.admin")

INTERVAL = 1.0
"""Seconds between two messages."""

LIMIT = 1 << 20
"""Bytes that may wait for a client that does not read, before it is closed: some minutes of messages."""


LISTENERS = 32
"""Connections at a time: as many megabytes as that at most."""


class Feed:
    """Sends every connection the same. It samples without connections too: a new one gets the last minutes.

    Parameters:
        scoreboard: of the daemon.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._sampler = Sampler(scoreboard)
        self._listeners: set[ServerConnection] = set()
        self._here = 0  # also those that are being sent the history
        self._last: Live | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Sample once a second, until `end()`."""
        loop = asyncio.get_running_loop()
        self._due = loop.time()
        self._sample()

    def end(self) -> None:
        """Stop sampling. Connections are closed by their server."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def busy(self) -> bool:
        """Return whether there are as many listeners as there may be."""
        return self._here >= LISTENERS

    async def __call__(self, websocket: ServerConnection) -> None:
        """Send all that is remembered, then once a second what is new, until the client leaves: the handler."""
        self._here += 1
        try:
            if self._last is not None:
                await websocket.send(self._whole(self._last))
            self._listeners.add(websocket)
            await websocket.wait_closed()
        finally:
            self._here -= 1
            self._listeners.discard(websocket)

    def _whole(self, last: Live) -> str:
        """Return the last message, with the history before it."""
        history = list(self._sampler.points)[:-1]
        return _encode(msgspec.structs.replace(last, history=history, events=list(self._sampler.events)))

    def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        # At even times, however long sampling takes; missed ones are skipped.
        self._due = max(self._due + INTERVAL, loop.time() + INTERVAL / 2)
        self._timer = loop.call_at(self._due, self._sample)
        try:
            self._last = self._sampler.sample(time.time())
        except TimeoutError as error:
            logger.warning("no sample of the daemon: %s", error)

            return
        if self._listeners:
            broadcast(self._listeners, _encode(self._last))


def _encode(live: Live) -> str:
    return msgspec.json.encode(live).decode()
