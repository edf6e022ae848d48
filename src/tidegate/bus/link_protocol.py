"""How frames of a link come and go on an event loop: one write for all that is sent in a turn, one call for what came.

    LinkProtocol    the protocol of one link

What must not live here: what frames mean (local.py), their layout (link.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

from .._core.link_reader import LinkReader
from .link import HEAD, PAYLOAD_LIMIT, LinkError

__all__ = ["LinkProtocol", "RawFrame"]

RawFrame: TypeAlias = tuple[int, int, int, int, int, int, int, bytes]
"""What a `Frame` has, in its order."""


class LinkProtocol(asyncio.Protocol):
    """One link.

    Parameters:
        on_frames: takes the frames of each read; a ValueError of it ends the link.
        on_end: called with why the link has ended.
        limit: bytes that may wait to be written before `full`.

    Attributes:
        full: whether so much waits to be written that nothing should be added.
        room: futures to be done as soon as it does not.
    """

    def __init__(self, on_frames: Callable[[list[RawFrame]], None], on_end: Callable[[str], None], limit: int) -> None:
        self._on_frames, self._on_end = on_frames, on_end
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = LinkReader()
        self._waiting: list[bytes] = []
        self._size = 0
        self._paused = False
        self._reason = ""
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self.room: list[asyncio.Future[None]] = []

    @property
    def full(self) -> bool:
        return not self.is_ended and (self._paused or self._size >= self._limit)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be written."""
        return self._size + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # which uvloop's does not inherit from
        transport.set_write_buffer_limits(self._limit, self._limit // 2)
        if self._waiting:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        if not self._ended.done():
            broken = "" if exc is None or isinstance(exc, ConnectionError) else str(exc)
            self._ended.set_result(self._reason or broken or "the hub has ended")
            self._on_end(self._ended.result())
        self._wake()

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            if frames:
                self._on_frames(frames)
        except ValueError as error:
            self._reason = str(error)
            self.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        waiting, self.room = self.room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def send(
        self, kind: int, flags: int = 0, channel: int = 0, offset: int = 0, sequence: int = 0, payload: bytes = b""
    ) -> None:
        """Send a frame at the end of this turn."""
        size = len(payload)
        if size > PAYLOAD_LIMIT:
            raise LinkError(f"a frame holds at most {PAYLOAD_LIMIT} bytes, not {size}")
        if not self._waiting and self._transport is not None:
            self._loop.call_soon(self._flush)
        self._waiting += (HEAD.pack(size, kind, flags, 0, channel, 0, offset, 0, sequence), payload)
        self._size += size

    def _flush(self) -> None:
        if self._transport is not None and self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._transport.write(data)
            if not self._paused:
                self._wake()  # no resume_writing() follows

    async def drain(self, seconds: float) -> None:
        """Return once all is given to the system, or the link has ended, or after so many seconds."""
        self._flush()
        deadline = self._loop.time() + seconds
        if self._transport is not None:
            self._transport.set_write_buffer_limits(0)
        while self._transport is not None and self._transport.get_write_buffer_size():
            future = self._loop.create_future()
            self.room.append(future)
            await asyncio.wait([future], timeout=max(0.0, deadline - self._loop.time()))
            if self._loop.time() >= deadline:
                return

    @property
    def is_ended(self) -> bool:
        return self._ended.done()

    async def ended(self) -> str:
        """Return why the link has ended, once it has."""
        return await asyncio.shield(self._ended)

    def fail_at_end(self, future: asyncio.Future[None]) -> None:
        """Fail a future with LinkError, if it is not done, when the link has ended."""

        def fail(ended: asyncio.Future[str]) -> None:
            if not future.done():
                future.set_exception(LinkError(ended.result()))

        self._ended.add_done_callback(fail)

    def abort(self) -> None:
        """End the link now."""
        if self._transport is not None:
            self._transport.abort()
