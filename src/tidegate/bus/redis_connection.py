"""Connections to a Redis server, on an event loop: commands and their answers, and one for what is subscribed.

    Connection     commands, pipelined: written once in a turn of the loop, answered in their order
    Subscriber     SUBSCRIBE and UNSUBSCRIBE, confirmed, and what comes
    Refused        the server's answer is an error
    give           an answer to who waits

Each is read by hiredis and nothing else: ten times as fast as through coroutines. Whatever ends the reading ends the
connection, and the end of a connection is told. What must not live here: which server, what commands mean.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from ..exceptions import BusDown, BusError

__all__ = ["DEADLINE", "QUEUE_BYTES", "Connection", "Refused", "Subscriber", "give"]

logger = logging.getLogger("tidegate.bus")

DEADLINE: Final = 5.0
"""Seconds for an answer."""

QUEUE_BYTES: Final = 8 << 20
"""Bytes that wait to be written."""

Taker = Callable[[Any], object]
"""Takes an answer: what the server said, a `hiredis.ReplyError`, or BusDown."""


pack: Callable[[tuple[bytes | str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Refused(BusError):
    """The server answered with an error.

    Attributes:
        words: its words, of which the first is the kind.
    """

    def __init__(self, words: str) -> None:
        self.words = words

    def __str__(self) -> str:
        return f"Redis answers: {self.words}"


class Connection(asyncio.Protocol):
    """Commands to a server.

    Attributes:
        ended: set, with the reason, when the connection has ended.
        idle: turns of `look()` for which no command was sent.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.idle = 0
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._takers: deque[Taker] = deque()
        self._answered = 0
        self._seen = 0
        self._waited = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._room: list[asyncio.Future[None]] = []

    # The protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # which those of uvloop are only in what they do
        self._transport.set_write_buffer_limits(high=QUEUE_BYTES // 2)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        self.fail(f"the connection to Redis has ended{f': {exc}' if exc else ''}")

    def data_received(self, data: bytes) -> None:
        """Take what came; whatever goes wrong with it is the end."""
        try:
            self._reader.feed(data)
            self.take()
        except Exception as error:
            if not self.ended.done():  # else it has failed in the midst of it
                logger.exception("reading from Redis failed")
                self.fail(f"reading from Redis failed: {error!r}")
        except BaseException as error:
            self.fail(f"reading from Redis was ended: {error!r}")
            raise

    def resume_writing(self) -> None:
        """Let go on who waits for room."""
        self._make_room()

    def take(self) -> None:
        """Take the answers that are complete."""
        gets, takers = self._reader.gets, self._takers
        while (reply := gets()) is not False:  # which nothing is in RESP2
            self._answered += 1
            takers.popleft()(reply)

    def fail(self, reason: str) -> None:
        """End, and tell who waits why; ending again does nothing."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        takers, self._takers = self._takers, deque()
        for take in takers:
            take(BusDown(reason))
        self._make_room()

    # Commands.

    def send(self, take: Taker, *words: bytes | str | int) -> None:
        """Send a command with what else is sent in this turn of the loop."""
        if self.ended.done():
            take(BusDown(self.ended.result()))
        else:
            self._takers.append(take)
            self._queue(words)

    def _queue(self, words: Sequence[bytes | str | int]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        data = pack(tuple(words))
        self._out.append(data)
        self._out_bytes += len(data)
        self.idle = 0

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self.ended.done():
            out, self._out, self._out_bytes = self._out, [], 0
            self._transport.write(b"".join(out))
            self._make_room()

    async def ask(self, *words: bytes | str | int) -> Any:
        """Send a command, and return its answer.

        Raises:
            Refused: it is an error.
            BusDown: there is none, in time.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(functools.partial(give, future), *words)
        (reply,) = await self.answers([future])
        return reply

    async def answers(self, futures: Sequence[asyncio.Future[Any]]) -> list[Any]:
        """Return what comes of several, in time."""
        try:
            async with asyncio.timeout(DEADLINE):
                replies = [await future for future in futures]
        except TimeoutError:
            # Whether the connection is of no use any more `look()` says: this process may have been busy for long.
            raise BusDown(f"Redis has not answered within {DEADLINE:g} seconds") from None
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))
            if isinstance(reply, BusError):
                raise reply
        return replies

    # Room.

    @property
    def full(self) -> bool:
        """Whether there is no place for more in the queue; one that has ended has no queue to wait for."""
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return not self.ended.done() and self._out_bytes + waiting >= QUEUE_BYTES

    async def wait_for_room(self) -> None:
        """Return when there may be a place in the queue, or none ever."""
        if not self.ended.done():
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.append(future)
            try:
                await future
            finally:
                if future in self._room:
                    self._room.remove(future)

    def _make_room(self) -> None:
        if self._room and (self.ended.done() or not self.full):
            waiting, self._room = self._room, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    @property
    def waits(self) -> bool:
        """Whether something is to be answered."""
        return bool(self._takers)

    def look(self, patience: int) -> None:
        """Look whether answers come, once a second; so many looks without one are the end.

        Looks are counted, not seconds: in a process that was busy for long, what had come meanwhile is read first.
        """
        self.idle += 1
        if not self.waits or self._answered != self._seen:
            self._seen, self._waited = self._answered, 0
            return
        self._waited += 1
        if self._waited >= patience:
            self.fail(f"Redis has not answered for {self._waited} seconds")


class Subscriber(Connection):
    """What is subscribed.

    Parameters:
        receive: takes the names of channels with what came, of one read.
    """

    def __init__(self, receive: Callable[[list[tuple[bytes, bytes]]], None]) -> None:
        super().__init__()
        self._receive = receive
        self._confirmations: deque[tuple[bytes, list[int], asyncio.Future[Any]]] = deque()

    @property
    def waits(self) -> bool:
        """Whether something is to be answered or confirmed."""
        return bool(self._takers or self._confirmations)

    def take(self) -> None:
        """Take answers, confirmations and messages."""
        gets = self._reader.gets
        received: list[tuple[bytes, bytes]] = []
        while (reply := gets()) is not False:
            if type(reply) is not list:
                self._answer(reply)
            elif reply[0] == b"message":
                received.append((reply[1], reply[2]))
            else:
                self._confirm(reply[0])
        if received:
            self._receive(received)

    def fail(self, reason: str) -> None:
        """End, and tell who waits why."""
        if not self.ended.done():
            super().fail(reason)
            confirmations, self._confirmations = self._confirmations, deque()
            for _, _, future in confirmations:
                if not future.done():
                    future.set_result(BusDown(reason))

    def request(self, verb: bytes, names: Sequence[bytes]) -> asyncio.Future[Any]:
        """SUBSCRIBE or UNSUBSCRIBE; what is returned is done once the server has confirmed each channel."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.ended.done():
            future.set_result(BusDown(self.ended.result()))
        elif names:
            self._confirmations.append((verb.lower(), [len(names)], future))
            self._queue([verb, *names])
        else:
            future.set_result(None)
        return future

    def _answer(self, reply: Any) -> None:
        """Take an answer to another command, or an error in place of confirmations."""
        self._answered += 1
        if self._takers:
            self._takers.popleft()(reply)
            return
        _, _, future = self._confirmations.popleft()
        if not future.done():
            future.set_result(reply)

    def _confirm(self, verb: bytes) -> None:
        expected, missing, future = self._confirmations[0] if self._confirmations else (b"", [0], None)
        if expected != verb or future is None:
            self.fail(f"Redis says {verb.decode(errors='replace')} unasked")
            return
        self._answered += 1
        missing[0] -= 1
        if not missing[0]:
            self._confirmations.popleft()
            if not future.done():
                future.set_result(None)


def give(future: asyncio.Future[Any], reply: Any) -> None:
    """Give an answer to who waits for it, if it still does."""
    if not future.done():
        future.set_result(reply)
