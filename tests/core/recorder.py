"""A channel as small as one can be, between a transport that remembers and doors that remember.

`Transport` is an asyncio transport without a socket; `Recorder` is the native channel with the doors that a connection
defines, which here write down what they are told. What must not live here: test cases, and copies of our own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.support import wire
from tests.support.wire import BINARY, CLOSE, CONT, TEXT, frame
from tidegate._core import turns
from tidegate._core.messages import MessageChannel
from tidegate.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from tidegate.protocol import State

MASK = b"\x12\x34\x56\x78"


@contextlib.contextmanager
def long_turns() -> Iterator[None]:
    """No turn ends meanwhile: what a connection does in one must not depend on the clock, or on who else runs."""
    before = turns.seconds()
    turns.set_seconds(1e9)
    try:
        yield
    finally:
        turns.set_seconds(before)


class Loop:
    """What a channel asks of an event loop, turned by hand."""

    def __init__(self) -> None:
        self.ready: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.exceptions: list[dict[str, Any]] = []

    def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> None:
        self.ready.append((callback, arguments))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.exceptions.append(context)

    def get_debug(self) -> bool:
        return False

    def turn(self) -> bool:
        """Call what is to be called: whether there was anything."""
        ready, self.ready = self.ready, []
        for callback, arguments in ready:
            callback(*arguments)
        return bool(ready)

    def run(self) -> None:
        """Turn as long as there is something to do."""
        while self.turn():
            pass


class Transport(asyncio.Transport):
    """Remembers what is asked of it. `full` makes it call pause_writing() at each write, as a full buffer does."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.lines: list[list[Any]] = []
        self.calls: list[str] = []
        self.reading = True
        self.broken: Exception | None = None
        self.channel: MessageChannel | None = None
        self.full = False

    def write(self, data: Any) -> None:
        if self.broken is not None:
            raise self.broken
        self.writes.append(bytes(data))
        self._pause()

    def writelines(self, lines: Iterable[Any]) -> None:
        lines = list(lines)
        self.lines.append(lines)
        self.writes.append(b"".join(lines))
        self._pause()

    def _pause(self) -> None:
        if self.full and self.channel is not None and not self.channel._write_paused:
            self.channel.pause_writing()

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False
        self.calls.append("pause")

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.calls.append("abort")

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)


class Recorder(MessageChannel):
    """The native channel, and its doors."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        client: bool = False,
        max_size: int | None = 2**20,
        max_fragment: int | None = None,
        high: int | None = 16,
        low: int | None = 4,
        slow: bool = False,
        state: State = State.OPEN,
    ) -> None:
        self.hand_turned = Loop()
        self.transport_ = Transport()
        self.transport_.channel = self
        self.heard: list[Any] = []  # in order: ("control", opcode, payload), ("failed", what, detail), ...
        self._configure(loop or self.hand_turned, client, max_size, max_fragment, high, low, slow)  # type: ignore[arg-type]
        self._connect(self.transport_)
        self._state = state
        self.drainers: list[asyncio.Future[None]] = []
        self.ended_well = False

    # Doors.

    def _handshake_received(self, data: bytes) -> None:
        self.heard.append(("handshake", data))

    def _control_received(self, opcode: int, payload: bytes) -> None:
        self.heard.append(("control", opcode, payload))
        if opcode == CLOSE:
            self._discard()

    def _frame_received(self, opcode: int, fin: bool, payload: bytes) -> None:
        self.heard.append(("frame", opcode, fin, payload))

    def _fail_received(self, what: int, detail: Any) -> None:
        self.heard.append(("failed", what, detail))

    def _write_failed(self, exc: Exception) -> None:
        self.heard.append(("write failed", exc))

    def _drained(self) -> None:
        for drainer in self.drainers:
            if not drainer.done():
                drainer.set_result(None)
        self.drainers.clear()

    async def _drain(self) -> None:
        while self._write_paused:
            drainer = asyncio.get_running_loop().create_future()
            self.drainers.append(drainer)
            await drainer

    async def _send_slowly(self, message: Any, text: bool | None) -> None:
        self.heard.append(("slowly", message, text))

    async def _recv_undecodable(self, exc: UnicodeDecodeError) -> str:
        self.heard.append(("undecodable", exc))
        return "undecodable"

    def _concurrent_read(self, streaming: bool) -> Exception:
        return ConcurrencyError("streaming" if streaming else "whole")

    def _closed_exception(self, iterating: bool) -> Exception:
        if self.ended_well:
            return StopAsyncIteration() if iterating else ConnectionClosedOK(None, None, None)
        return ConnectionClosedError(None, None, None)

    # What a test does.

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.data_received(chunk)
        self.turn()

    def turn(self) -> None:
        """Turn the loop as long as there is something to do."""
        self.hand_turned.run()

    def lose(self, well: bool = False) -> None:
        """The transport is gone."""
        self.ended_well = well
        self._disconnect()
        self._state = State.CLOSED
        self._close_inbox()

    @property
    def failures(self) -> list[Any]:
        return [entry[1:] for entry in self.heard if entry[0] == "failed"]

    @property
    def controls(self) -> list[Any]:
        return [entry[1:] for entry in self.heard if entry[0] == "control"]

    def take(self, decode: bool | None = None) -> Any:
        """The next message, which must be there; driven by hand, as a task would."""
        return finish(self.recv(decode))

    def take_all(self) -> list[Any]:
        """All messages that come without anybody's doing, other than the loop's."""
        return self._take_all(self.recv)

    def take_frames(self) -> list[Any]:
        """All frames, as recv_streaming() gets them."""
        return self._take_all(self._recv_frame)

    def take_frames_that_are_there(self) -> list[Any]:
        """All frames that have been parsed by now."""
        return self._take_all(self._recv_frame, turning=False)

    def _take_all(self, read: Callable[[], Any], turning: bool = True) -> list[Any]:
        found = []
        while True:
            awaitable = read()
            try:
                awaitable.send(None)
                if turning:
                    self.turn()  # for what had no room
                    awaitable.send(None)
            except StopIteration as stop:
                found.append(stop.value)
            except ConnectionClosedError:
                return found
            else:
                awaitable.close()
                return found


def finish(awaitable: Any) -> Any:
    """The value of an awaitable that waits for nothing but its next turn, which on a slow machine it may have to."""
    try:
        waited_for = awaitable.send(None)
        if (run := getattr(waited_for._loop, "run", None)) is not None:
            run()
            waited_for = awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(f"it waits for {waited_for!r}")


def text(message: str, **options: Any) -> bytes:
    return frame(message.encode(), TEXT, mask=MASK, **options)


def binary(message: bytes, **options: Any) -> bytes:
    return frame(message, BINARY, mask=MASK, **options)


def more(payload: bytes, **options: Any) -> bytes:
    return frame(payload, CONT, mask=MASK, **options)


def control(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return frame(payload, opcode, mask=MASK, **options)


def cut(data: bytes, *places: int) -> list[bytes]:
    """`data` in pieces, cut at `places`."""
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What was written, as frames: (first byte, payload)."""
    for first, mask, payload in wire.parsed(data):
        assert mask is None
        yield first, payload


async def in_callback(function: Callable[..., Any], *arguments: Any) -> None:
    """Call it as the loop calls protocols: from a callback of its own, with no task running."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def call() -> None:
        try:
            function(*arguments)
        finally:
            done.set_result(None)

    # Not from this task's context: it is entered, and a transport has its own.
    loop.call_soon(call, context=contextvars.Context())
    await done
