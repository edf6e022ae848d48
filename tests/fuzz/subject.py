"""A connection between a transport without a socket and a loop that does not run, with a reader driven by hand.

Nothing here waits, so that thousands of conversations fit in a second, and each goes the same way each time. What must
not live here: what a connection should do (model), test cases.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

from tests.core.recorder import Transport, finish
from tests.fuzz.model import Deflating, Model
from tests.support.wire import CLOSE, PONG
from tidegate.asyncio.connection import Connection
from tidegate.asyncio.deadlines import Deadlines
from tidegate.asyncio.options import Settings
from tidegate.exceptions import ConnectionClosed
from tidegate.extensions.permessage_deflate import PerMessageDeflate
from tidegate.protocol import CLOSED, OPEN

LOGGER = logging.getLogger("tests.fuzz")


class Loop(asyncio.AbstractEventLoop):
    """A loop that does what it was asked when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], Any]] = []

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        call = contextvars.Context() if context is None else context
        self.soon.append(lambda: call.run(callback, *args))

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Line(Transport):
    """A transport that can also be ended. It takes `reading` at its word: a test delivers nothing while it is False."""

    ended = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


class Subject:
    """An open connection, and the models of both directions: of what it should read, and of who reads what it writes.

    Args:
        receiving: parameters of compression of what the connection receives; None without compression.
        sending: the same of what it sends; there are both or none.
    """

    def __init__(
        self,
        *,
        client: bool = False,
        max_size: int | None = None,
        max_fragment: int | None = None,
        high: int | None = None,
        receiving: Deflating | None = None,
        sending: Deflating | None = None,
    ) -> None:
        self.loop = Loop()
        limits = Settings.check(
            open_timeout=None,
            ping_interval=None,
            ping_timeout=None,
            close_timeout=None,
            max_size=(max_size, max_fragment),
            max_queue=high,
            write_limit=2**15,
        )
        self.settings = Settings(loop=self.loop, logger=LOGGER, deadlines=Deadlines(self.loop), **limits)
        self.connection = Connection(self.settings, client=client)
        self.line = Line()
        self.line.channel = self.connection
        self.connection.connection_made(self.line)
        self.connection._state = OPEN
        self.connection._row.opened()
        if receiving is not None and sending is not None:
            self.connection._adopt(
                [PerMessageDeflate(not receiving.takeover, not sending.takeover, receiving.bits, sending.bits)]
            )
        self.model = Model(client, max_size, max_fragment, high, receiving)
        self.peer = Model(not client, deflating=sending)
        self.sent: list[str | bytes] = []
        self.reader: Reader | None = None
        self.held: int | None = None  # since which answer pongs are held back, because the peer does not read

    def deliver(self, chunk: bytes) -> None:
        """What asyncio does with bytes from the peer. Nothing may ever be raised."""
        assert self.line.reading
        self.connection.data_received(chunk)
        self.loop.run()
        self.model.reader = self.reader is not None
        self.model.feed(chunk)
        if self.reader is not None:
            self.reader.check(self.model)
        self.check()

    def take(self, decode: bool | None = None) -> Any:
        """The next message, which must be there."""
        message = finish(self.connection.recv(decode))
        self.loop.run()  # what had no room has some
        return message

    def send(self, message: Any) -> None:
        """Send what can be sent at once."""
        if self.connection._state == OPEN and not self.connection._write_paused:
            finish(self.connection.send(message))
            whole: str | bytes = message if isinstance(message, (str, bytes)) else type(message[0])().join(message)
            self.sent.append(whole)

    def pause_writing(self) -> None:
        """The peer does not read."""
        self.connection.pause_writing()
        self.held = len(self.model.answers)

    def resume_writing(self) -> None:
        """It does again, and gets the last of the pongs that were held back (RFC 6455 5.5.3)."""
        self.connection.resume_writing()
        assert self.held is not None
        late = self.model.answers[self.held :]
        pongs = [answer for answer in late if answer[0] == PONG]
        self.model.answers[self.held :] = [answer for answer in late if answer[0] == CLOSE] + pongs[-1:]
        self.held = None

    def lose(self, exc: Exception | None = None) -> None:
        """The transport is gone."""
        self.connection.connection_lost(exc)
        self.model.lost = True
        self.loop.run()

    def check(self) -> None:
        """Compare what was written to what should have been, and look at how much may wait."""
        self.read_what_was_written()
        found = [
            (CLOSE, int.from_bytes(payload[:2], "big") if payload else 1005) if opcode == CLOSE else (opcode, payload)
            for opcode, payload in self.peer.controls
        ]
        expected = self.model.answers
        if self.held is not None:
            expected = expected[: self.held] + [answer for answer in expected[self.held :] if answer[0] == CLOSE]
        assert found == expected
        messages = []
        while self.peer.has_message():
            messages.append(self.peer.take())
        assert messages == self.sent
        self.sent.clear()
        if not self.line.reading:
            assert self.model.queue, "paused, with nothing to take that would resume it"
            assert self.reader is None or self.model.has_message(), "paused, while the rest of a message is waited for"

    def read_what_was_written(self) -> None:
        """As a peer that reads on after our close frame: pings are answered until theirs comes (RFC 6455 5.5.2)."""
        self.peer.feed(self.line.written)
        self.line.writes.clear()
        while self.peer.ended:
            last = self.peer.controls[-1][0] if self.peer.controls else None
            assert last == CLOSE, f"we wrote rubbish: {self.peer.answers}"
            assert self.model.closing, "we wrote a close frame too early"
            self.peer.ended = False
            self.peer.feed(b"")
        assert self.peer.buffer == b"", "half a frame was written"

    def finish(self) -> None:
        """Take all that is left, and compare it."""
        if self.reader is not None:
            self.reader.stop()
            self.reader = None
            self.model.reader = False
        if self.connection._state != CLOSED:
            self.check()
            self.lose()
        while self.model.has_message():
            assert self.take() == self.model.take()
        try:
            self.take()
        except ConnectionClosed:
            return
        raise AssertionError("a message too many")


class Reader:
    """A handler that asks for one message after the other, woken as a task is; perhaps it sends each back."""

    def __init__(self, subject: Subject, decode: bool | None, echo: bool) -> None:
        self.subject, self.decode, self.echo = subject, decode, echo
        self.got: list[str | bytes] = []
        self.awaitable: Any = None
        self.closed: ConnectionClosed | None = None

    def step(self, _: Any = None) -> None:
        while True:
            if self.awaitable is None:
                self.awaitable = self.subject.connection.recv(self.decode)
            try:
                waiter = self.awaitable.send(None)
            except StopIteration as stop:
                self.awaitable = None
                self.got.append(stop.value)
                if self.echo:
                    self.subject.send(stop.value)
            except ConnectionClosed as exc:
                self.awaitable, self.closed = None, exc
                return
            else:
                waiter._asyncio_future_blocking = False
                waiter.add_done_callback(self.step, context=contextvars.Context())
                return

    def check(self, model: Model) -> None:
        """It has taken all that is there, and what is there is right."""
        self.subject.loop.run()
        if model.held:
            model.go_on()
        expected = []
        while model.has_message():
            expected.append(model.take(self.decode))
        assert self.got == expected
        self.got.clear()

    def stop(self) -> None:
        if self.awaitable is not None:
            self.awaitable.close()
            self.awaitable = None
