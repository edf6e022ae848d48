"""Requests with a body, for hooks that answer them: a WebSocket's request has none.

    BodyConnection    a connection whose `process_request` may read the body of the request
    BodyError         why it cannot be read, with the status to answer

The body is read when a hook asks for it, within its limit and its time; before that, no more is kept than comes in a
moment. What must not live here: what is answered; heads of requests (http11.py).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httptools

from ..http11 import RequestParser
from ..server import rejection
from .server import ServerConnection

if TYPE_CHECKING:
    from .options import ServerSettings
    from .server import Server

__all__ = ["BodyConnection", "BodyError"]

EARLY: Final = 2**20
"""Bytes of a body that may come before the hook has asked for it: what is read from a socket in a turn or two."""

MARGIN: Final = 1.0
"""Seconds that a hook has for its answer when the time for the body is over."""


class BodyError(Exception):
    """The body of a request cannot be read.

    Attributes:
        status: the status to answer.
        reason: why.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return self.reason


class _Body:
    """The body of a request, whatever frames it; callbacks of llhttp.

    Args:
        limit: bytes that it may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._parser = httptools.HttpRequestParser(self)
        self._complete = False
        self.changed = asyncio.Event()
        self.error: BodyError | None = None

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self._complete = True

    def feed(self, data: bytes) -> None:
        """Take bytes of the request."""
        if self.done:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete:  # what follows it does not matter
                self.error = BodyError(HTTPStatus.BAD_REQUEST, f"the body is not valid HTTP/1.1: {exc}".lower())
        if self._size > self._limit:
            self.error = BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {self._limit} bytes")
        if self.done:
            self.changed.set()

    @property
    def done(self) -> bool:
        return self._complete or self.error is not None

    def content(self) -> bytes:
        if self.error is not None:
            raise self.error
        return b"".join(self._pieces)


class BodyConnection(ServerConnection):
    """The server's side of a connection whose request may have a body, which a hook reads with `read_body()`.

    Without a hook that does, the request is answered as if it had none.
    """

    __slots__ = ("_body",)

    def __init__(self, protocol: ServerSettings, server: Server) -> None:
        super().__init__(protocol, server)
        self._body: _Body | None = None

    async def read_body(self, limit: int, seconds: float) -> bytes:
        """Return the body of the request, for `process_request`, once.

        Args:
            limit: bytes that it may have.
            seconds: for it to come.

        Raises:
            BodyError: it has more, it is not valid, or it has not come in time.
        """
        assert self._parser is not None
        assert self.request is not None
        self.give_time(seconds + MARGIN)
        body = self._body = _Body(limit)
        body.feed(self._parser.head)
        rest, self._parser.rest = self._parser.rest, b""
        body.feed(rest)
        if not body.done and "100-continue" in map(str.lower, self.request.headers.get_all("Expect")):
            self._write_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110 section 10.1.1
        try:
            async with asyncio.timeout(seconds):
                await body.changed.wait()
        except TimeoutError:
            raise BodyError(HTTPStatus.REQUEST_TIMEOUT, f"the body has not come within {seconds:g} s") from None
        return body.content()

    def give_time(self, seconds: float) -> None:
        """Give the hook so many seconds from now, instead of what is left of the time for the handshake."""
        self._settings.deadlines.set(self, seconds)

    def _make_parser(self) -> RequestParser:
        return RequestParser(bodies=b"POST ")

    def _early_data(self, data: bytes) -> None:
        if self._parser is None:
            return  # it is answered
        if self._body is not None:
            self._body.feed(data)
        elif len(self._parser.rest) + len(data) <= EARLY:
            self._parser.rest += data
        else:
            self._reject(rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too much data before the response.\n"))
