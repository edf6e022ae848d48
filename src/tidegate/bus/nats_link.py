"""One connection to one server of NATS: what nats-py does, and what comes given on at once.

    LinkEnded, Refused      it is over; it may not begin
    NoResponders            what was asked is not there
    NatsLink                nats-py's client, without its queue and task per subscription, and without its reconnecting

nats-py connects, identifies the user, has TLS, reads the protocol and notices a server that does not answer pings. Its
way to a subscriber is a queue and a task for each, and what it repeats after a reconnect it does not confirm; so here
a message is given on as it is read, and another link is another client. Confirmed is what a message of one's own has
come back after: commands are done in order. What must not live here: channels, streams, when to connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from nats import errors
from nats.aio.client import Client

from ..exceptions import BusDown
from .nats_url import Settings
from .nats_words import Words, status_of
from .watch import SILENCE, Watch

__all__ = ["LinkEnded", "NatsLink", "NoResponders", "Refused", "Reply"]

CONNECT: Final = 5.0
"""Seconds to connect to one server."""

CLOSE: Final = 0.5
"""Seconds to end a connection; it is aborted already."""

PING_INTERVAL: Final = 5
PINGS: Final = 2
"""Seconds between nats-py's own pings, and how many may be unanswered."""

QUEUE_BYTES: Final = 2**23
"""Bytes that wait to be written."""

NO_RESPONDERS: Final = 503

PROBE: Final = b"probe"
"""The last part of the subject of messages to oneself."""

Take = Callable[[int, bytes, bytes | None], None]
"""Takes the number of a subscription, a payload and headers; synchronous, raises nothing."""


class LinkEnded(Exception):
    """The connection is over; its text says why."""


class Refused(LinkEnded):
    """The server does not let this user in."""


class NoResponders(Exception):
    """No server answers for what was asked: JetStream, or a stream, is gone."""


class Reply(NamedTuple):
    """An answer.

    Attributes:
        status: that of an answer that is no message, or 0.
    """

    status: int
    headers: bytes
    payload: bytes


class NatsLink(Client):
    """One connection to one server; opened once, and not again.

    Args:
        words: subjects of the bus.
        take: is given what comes for subscriptions.

    Attributes:
        ended: done when the connection is over; its result says why.
        trouble: what the server said last that was wrong, though the connection goes on; operators want to know.
    """

    def __init__(self, words: Words, take: Take) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._words = words
        self._take = take
        self._loop = loop
        self._inbox_sid = 0
        self._tokens = itertools.count(1)
        self._sids = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._must_be_tls = False
        self._last: Exception | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self.ended: asyncio.Future[str] = loop.create_future()
        self.trouble = ""

    async def open(self, server: str, settings: Settings) -> None:
        """Connect to a server.

        Raises:
            LinkEnded: that is not possible; the text says why, without secrets.
            Refused: the server does not let this user in.
        """
        self._must_be_tls = settings.tls
        options = settings.credentials()
        try:
            if settings.tls or settings.files.keys() & {"ca", "cert"}:
                options["tls"] = settings.context()
            async with asyncio.timeout(CONNECT):
                await self.connect(
                    [f"{'tls' if settings.tls else 'nats'}://{server}"],
                    name=f"tidegate:{os.getpid()}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # of the first connection; 0 would be without end
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT,  # type: ignore[arg-type]
                    ping_interval=PING_INTERVAL,
                    max_outstanding_pings=PINGS,
                    pending_size=-1,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    closed_cb=self._on_disconnected,
                    lame_duck_mode_cb=self._on_lame_duck,
                    **options,
                )
        except (OSError, errors.Error, TimeoutError, ValueError) as error:
            why: Exception = error
            if isinstance(error, errors.NoServersError) and self._last is not None:
                why = self._last
            text = "no answer" if isinstance(why, TimeoutError) else str(why).removeprefix("nats: ")
            self.abort(f"{server}: {text or type(why).__name__}")
            await self.closed()
            refused = "authorization violation" in text.lower()
            raise (Refused if refused else LinkEnded)(self.ended.result()) from None
        self._inbox_sid = self.subscribe(f"{self._words.inbox}*")
        self._watch = Watch(self._probe, self.abort, SILENCE)

    # Its end.

    def abort(self, reason: str) -> None:
        """End the connection at once; what waits for answers fails."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self._watch is not None:
            self._watch.stop()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(LinkEnded(reason))
                future.exception()  # it may not be awaited any more
        self._out = []
        # nats-py waits for what is not written, even for a server that reads nothing.
        transport = self._stream_transport()
        if transport is not None:
            transport.abort()
        self._closing = self._loop.create_task(self._close_client())

    async def _close_client(self) -> None:
        with contextlib.suppress(TimeoutError, Exception):
            async with asyncio.timeout(CLOSE):
                await self.close()

    async def closed(self) -> None:
        """Wait until an aborted connection has let go of its socket and tasks."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    def silent(self, seconds: float) -> BusDown:
        """Return what it is that there was no answer for so long: the server drops what a user may not publish."""
        trouble = f": {self.trouble}" if self.trouble else ""
        return BusDown(f"NATS has not answered within {seconds:g} seconds{trouble}")

    def _stream_transport(self) -> asyncio.WriteTransport | None:
        writer = getattr(self._transport, "_io_writer", None)
        return None if writer is None else writer.transport

    async def _on_error(self, error: Exception) -> None:
        """Take note of what nats-py tells: what is not the end of the connection, too."""
        self._last = error
        self.trouble = str(error).removeprefix("nats: ") or type(error).__name__

    async def _on_disconnected(self) -> None:
        ended = not self.trouble or isinstance(self._last, errors.UnexpectedEOF)
        self.abort("the server has ended the connection" if ended else self.trouble)

    async def _on_lame_duck(self) -> None:
        self.abort("the server is about to shut down")

    def _connect_command(self) -> bytes:
        """Return what identifies the user, which is not for a server without TLS if there must be TLS."""
        if self._must_be_tls and not self._server_info.get("tls_required"):
            raise errors.Error("the server does not require TLS, and tls:// does: see its tls settings")
        return super()._connect_command()

    # What comes.

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Give on a message as it is read."""
        if self._watch is not None:
            self._watch.heard()
        if sid != self._inbox_sid:
            self._take(sid, data, headers)
            return
        token = subject[len(self._words.inbox) :]
        if token == PROBE and self._watch is not None:
            self._watch.probed()
        future = self._waiting.pop(token, None)
        if future is not None and not future.done():
            headers = headers or b""
            status = status_of(headers)
            if status == NO_RESPONDERS:
                future.set_exception(NoResponders)
            else:
                future.set_result(Reply(status, headers, data))

    # What goes.

    def _write(self, data: bytes) -> None:
        """Write with all else that is written in this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush_out)
        self._out.append(data)
        self._out_bytes += len(data)

    def _flush_out(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if out and not self.ended.done() and self._transport is not None:
            self._transport.write(b"".join(out))

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that nothing is to be added."""
        transport = self._stream_transport()
        waiting = 0 if transport is None else transport.get_write_buffer_size()
        return waiting + self._out_bytes >= QUEUE_BYTES

    async def room(self) -> None:
        """Wait until most of what waited is written.

        Raises:
            LinkEnded: the connection is over.
        """
        self._flush_out()
        drained = asyncio.ensure_future(self._drain())
        ended: asyncio.Future[Any] = self.ended
        try:
            await asyncio.wait({drained, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()
        if self.ended.done():
            raise LinkEnded(self.ended.result())

    async def _drain(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):
                await self._transport.drain()  # type: ignore[no-untyped-call]

    def subscribe(self, subject: str) -> int:  # type: ignore[override]
        """Subscribe a subject, and return the number of the subscription."""
        sid = next(self._sids)
        self._write(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: int) -> None:
        """End a subscription."""
        self._write(f"UNSUB {sid}\r\n".encode())

    def publish(self, subject: str, payload: bytes, headers: bytes = b"", reply: str = "") -> None:  # type: ignore[override]
        """Publish a message.

        Args:
            subject: where to; it is no user's word.
            payload: bytes of the message.
            headers: as they are sent, with their first line.
            reply: where answers go.
        """
        size = len(headers)
        space = " " if reply else ""
        if headers:
            self._write(f"HPUB {subject} {reply}{space}{size} {size + len(payload)}\r\n".encode() + headers)
        else:
            self._write(f"PUB {subject} {reply}{space}{len(payload)}\r\n".encode())
        self._write(payload)
        self._write(b"\r\n")

    def call(self, subject: str, payload: bytes = b"", headers: bytes = b"") -> asyncio.Future[Reply]:
        """Publish a message that is answered, and return the answer as a future.

        The future fails with `LinkEnded`, or with `NoResponders`. Who waits for it has a deadline.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.ended.done():
            future.set_exception(LinkEnded(self.ended.result()))
            future.exception()
            return future
        token = b"%d" % next(self._tokens)
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        self.publish(subject, payload, headers, f"{self._words.inbox}{token.decode()}")
        return future

    def _probe(self) -> None:
        """Send a message to oneself; that it comes is all there is to it."""
        self.publish(f"{self._words.inbox}{PROBE.decode()}", b"")

    async def confirm(self) -> None:
        """Return once the server has done all that it was sent before: a message to oneself has come.

        Raises:
            LinkEnded: the connection is over.
        """
        token = b"c%d" % next(self._tokens)
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.ended.done():
            raise LinkEnded(self.ended.result())
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        self.publish(f"{self._words.inbox}{token.decode()}", b"")
        await future

    # What the server has said of itself.

    @property
    def message_limit(self) -> int:
        """Bytes of a message, headers included, that the server takes."""
        return self._max_payload

    @property
    def others(self) -> list[str]:
        """Servers of the cluster that the server knows."""
        return [server.netloc.rpartition("@")[2] for server in self.discovered_servers]
