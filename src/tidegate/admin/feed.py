"""/live: the connections to whom the daemon is told once a second.

What must not live here: what they are told (live), who may ask (answers).
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
"""Bytes that wait for a client who does not read, until it is closed: some minutes of messages."""


LISTENERS = 32
"""Connections at a time: as many megabytes at most."""


class Feed:
    """Tells every connection the same. It looks whether anybody listens or not: a client gets the last minutes.

    Parameters:
        scoreboard: of the daemon.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._sampler = Sampler(scoreboard)
        self._listeners: set[ServerConnection] = set()
        self._here = 0  # also those who are told what was before
        self._last: Live | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look, and go on so until `end()`."""
        loop = asyncio.get_running_loop()
        self._due = loop.time()
        self._sample()

    def end(self) -> None:
        """Look no more. Connections are their server's to close."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def busy(self) -> bool:
        """Whether there are as many listeners as there may be."""
        return self._here >= LISTENERS

    async def __call__(self, websocket: ServerConnection) -> None:
        """The handler: all that is remembered, then once a second what is new, until the client leaves."""
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
        """The last message, with what went before it."""
        history = list(self._sampler.points)[:-1]
        return _encode(msgspec.structs.replace(last, history=history, events=list(self._sampler.events)))

    def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        # At even times, whatever a look takes; one that was missed is not made up for.
        self._due = max(self._due + INTERVAL, loop.time() + INTERVAL / 2)
        self._timer = loop.call_at(self._due, self._sample)
        try:
            self._last = self._sampler.sample(time.time())
        except TimeoutError as error:
            logger.warning("nothing to tell: %s", error)
            return
        if self._listeners:
            broadcast(self._listeners, _encode(self._last))


def _encode(live: Live) -> str:
    return msgspec.json.encode(live).decode()
