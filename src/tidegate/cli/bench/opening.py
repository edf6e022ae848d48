"""Opening handshakes of a load generator: our own client's request and checks, without the rest of a connection.

What must not live here: what is asked and which answer will do (the client of the root), frames.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any, NamedTuple

from ..._core.load import Load, LoadConnection, Payload
from ..._core.stream import adopt
from ...client import Agreed, ClientOptions, check_response, generate_key, make_request
from ...datastructures import Headers
from ...exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from ...extensions.permessage_deflate import enable_client_permessage_deflate
from ...http11 import ResponseParser
from ...server import accept_key
from ...uri import WebSocketURI, parse_uri
from ..connect import unverified
from .payload import make_payload
from .plan import Plan

__all__ = ["Opener", "kind_of"]


def kind_of(exc: BaseException) -> str:
    """What kind of failure to connect it is, in words that are the same for all of that kind."""
    if isinstance(exc, TimeoutError):
        return "handshake: timed out"
    if isinstance(exc, InvalidStatus):
        return f"handshake: HTTP {exc.response.status_code}"
    if isinstance(exc, InvalidHandshake):
        return f"handshake: {exc}"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"TLS: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason}"
    if isinstance(exc, socket.gaierror):
        return f"name: {exc.strerror}"
    if isinstance(exc, OSError):  # whose text may have the address
        return f"connect: {os.strerror(exc.errno) if exc.errno else exc}"
    return f"{type(exc).__name__}: {exc}"


class Answer(NamedTuple):
    """A response that was right, around the one value that is another in each."""

    before: bytes
    after: bytes
    agreed: Agreed


class Wording:
    """What all requests and most responses of a server are, but for the keys: so it is made and checked once.

    Parameters:
        uri: where to.
        options: what to ask for.
        headers: to add.
    """

    def __init__(self, uri: WebSocketURI, options: ClientOptions, headers: Headers) -> None:
        key = generate_key()
        self.options = options
        self._before, _, self._after = make_request(uri, key, options, headers).serialize().partition(key.encode())
        self._known: Answer | None = None

    def request(self, key: str) -> bytes:
        """Make a request."""
        return self._before + key.encode() + self._after

    def learn(self, data: bytes, accept: bytes, agreed: Agreed) -> None:
        """Remember a response that was right."""
        before, _, after = data.partition(accept)
        self._known = Answer(before, after, agreed)

    def recognized(self, data: bytes, accept: bytes) -> tuple[Agreed, bytes] | None:
        """What is agreed on, and what follows, if `data` begins with the same response, to another key."""
        known = self._known
        if known is None or not data.startswith(known.before):
            return None
        end = len(known.before) + len(accept)
        if data[len(known.before) : end] != accept or not data.startswith(known.after, end):
            return None
        return known.agreed, data[end + len(known.after) :]


class Handshake:
    """One opening handshake, as a `LoadConnection` asks for it.

    Parameters:
        wording: what is asked.
    """

    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self._key = generate_key()
        self._accept = accept_key(self._key).encode()
        self._parser: ResponseParser | None = None  # once there is a piece that is not recognized
        self.done = asyncio.get_running_loop().create_future()

    def connected(self, transport: asyncio.WriteTransport) -> None:
        """Ask."""
        transport.write(self._wording.request(self._key))

    def feed(self, data: bytes) -> bytes | None:
        """Take what comes; what is left of it belongs to frames. None: it is not done, or has failed."""
        if self.done.done():
            return None
        whole = self._parser is None
        if whole and (found := self._wording.recognized(data, self._accept)):
            self.done.set_result(found[0])
            return found[1]
        self._parser = self._parser or ResponseParser()
        try:
            if not self._parser.feed(data):
                return None
            agreed = check_response(self._parser.response(), self._key, self._wording.options)
        except Exception as exc:
            self.done.set_exception(exc)
            return None
        self.done.set_result(agreed)
        if whole:
            self._wording.learn(data[: len(data) - len(self._parser.rest)], self._accept, agreed)
        return self._parser.rest

    def lost(self, exc: BaseException | None) -> None:
        """The connection is lost."""
        if not self.done.done():
            self.done.set_exception(exc or InvalidMessage("the server ended the connection"))


class NoHandshake(Handshake):
    """That of a server that sends back each byte: there is none."""

    def connected(self, transport: asyncio.WriteTransport) -> None:
        self.done.set_result(Agreed(None, []))


class Opener:
    """Opens connections to one server, whose name is looked up once.

    Parameters:
        plan: what to open them for.
        load: what they are a part of.
    """

    def __init__(self, plan: Plan, load: Load) -> None:
        self._plan, self._load = plan, load
        self._uri = parse_uri(plan.uri)
        extensions = enable_client_permessage_deflate(None) if plan.compression else None
        options = ClientOptions(subprotocols=plan.subprotocols or None, extensions=extensions)
        self._wording = Wording(self._uri, options, Headers(plan.headers))
        self._tls: ssl.SSLContext | None = None
        if self._uri.secure:
            self._tls = unverified() if plan.insecure else ssl.create_default_context()
        self._addresses: list[tuple[Any, ...]] = []
        self._payloads: dict[Any, Payload] = {}

    async def resolve(self) -> None:
        """Look up the server's name.

        Raises:
            OSError: if there is no such name.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._uri.host, self._uri.port, type=socket.SOCK_STREAM)
        self._addresses = [(info[0], info[4]) for info in found]

    async def open(self) -> LoadConnection:
        """Open a connection.

        Raises:
            OSError, InvalidHandshake, TimeoutError: if that fails.
        """
        handshake = (NoHandshake if self._plan.raw else Handshake)(self._wording)
        connection = LoadConnection(self._load, handshake)
        try:
            async with asyncio.timeout(self._plan.timeout):
                await self._dial(connection)
                agreed = await handshake.done
        except BaseException:
            connection.abort()
            handshake.done.cancel()
            raise
        (extension,) = agreed.extensions or (None,)
        if extension is None and self._plan.compression:
            connection.abort()
            raise InvalidMessage("the server does not agree on compression")
        if self._plan.mode in ("echo", "fan"):
            payload = self._payloads.get(extension)
            if payload is None:
                payload = self._payloads[extension] = make_payload(
                    self._plan.size, self._plan.in_flight, text=self._plan.text, extensions=agreed.extensions
                )
            connection.use(payload, extension is not None, self._plan.raw)
        return connection

    async def _dial(self, connection: LoadConnection) -> None:
        """Connect to the first address that takes it, which is the first to be tried from then on."""
        for place, (family, address) in enumerate(self._addresses):
            try:
                await self._connect(family, address, connection)
            except OSError:
                if place + 1 == len(self._addresses):
                    raise
            else:
                self._addresses[: place + 1] = [self._addresses[place]]
                return

    async def _connect(self, family: int, address: Any, connection: LoadConnection) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            if self._tls is None:
                adopt(loop, sock, connection)
                return
        except BaseException:
            sock.close()
            raise
        await loop.create_connection(lambda: connection, sock=sock, ssl=self._tls, server_hostname=self._uri.host)
