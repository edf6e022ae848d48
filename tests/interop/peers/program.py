"""What the peers' programs have in common: commands as lines of JSON on standard input, answers on standard output.

A peer is a WebSocket library in a process of its own, which connects, serves, sends and receives as it is told
(tests/interop/running.py tells it). This side is written for any library: each `with_*.py` says how its library does
it, and with_ws.js speaks the same language. Only the standard library is imported here, so that a peer may run with any
packages.
What must not live here: test cases, and anything of one library.

Options, of clients and servers alike; what is left out is the library's default:
    compression: None for none, {} for the library's own parameters, {"no_context_takeover": true} to ask for none in
        both directions, {"window_bits": 10} to ask for these in both.
    subprotocols: names, the best first.
    headers: what to add to the request or the response.
    max_size: the largest message to take, in bytes.
    user: [name, password] to send, or to demand by 401.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

LIMIT = 2**24  # of a line, in bytes


class Closed(NamedTuple):
    """The end of a connection, as this side sees it: of the close frame that it has received, or 1006."""

    code: int
    reason: str


Message = str | bytes


def pack(message: Message | Closed) -> dict[str, Any]:
    """A message for JSON."""
    match message:
        case Closed():
            return {"closed": list(message)}
        case str():
            return {"text": message}
    return {"binary": base64.b64encode(message).decode()}


def unpack(packed: dict[str, Any]) -> Message | Closed:
    """The message of `pack()`."""
    match packed:
        case {"closed": [code, reason]}:
            return Closed(code, reason)
        case {"text": str(text)}:
            return text
    return base64.b64decode(packed["binary"])


def fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their name in lower case; those that come twice are joined, and so fail the test that wants one."""
    found: dict[str, str] = {}
    for name, value in headers:
        known = found.get(name.lower())
        found[name.lower()] = value if known is None else f"{known}, {value}"
    return found


def parameters(compression: dict[str, Any]) -> dict[str, Any]:
    """What to ask for, by the names of RFC 7692, section 7.1."""
    given = {"no_context_takeover": "no_context_takeover", "window_bits": "max_window_bits"}
    return {f"{side}_{given[name]}": value for name, value in compression.items() for side in ("server", "client")}


class Rejected(Exception):
    """The server answered the handshake with another status than 101; None where the library does not tell."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class Connection(abc.ABC):
    """An open connection, client's or server's.

    Attributes:
        subprotocol: what was agreed on.
        headers: the other side's, of its handshake, as `fields()` gives them; None where the library does not tell.
    """

    subprotocol: str | None
    headers: dict[str, str] | None

    @abc.abstractmethod
    async def send(self, message: Message) -> None:
        """Send a message."""

    @abc.abstractmethod
    async def recv(self) -> Message | Closed:
        """The next message, or how the connection ended."""

    @abc.abstractmethod
    async def close(self, code: int, reason: str) -> Closed:
        """Close it, wait for the end, and tell what the other side said."""

    async def fragments(self, parts: list[Any]) -> None:
        """Send a message in a frame for each part."""
        raise NotImplementedError

    async def ping(self, data: bytes) -> None:
        """Send a ping, and wait for its pong."""
        raise NotImplementedError


class Program(abc.ABC):
    """A library as a program. Handlers of its server give their connection to `accepted` and await its end."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Connection] = asyncio.Queue()
        self._connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self._commands: dict[str, Callable[..., Awaitable[Any]]] = {
            "connect": self._connect,
            "serve": self.serve,
            "accept": self._accept,
        }

    @abc.abstractmethod
    async def connect(self, uri: str, options: dict[str, Any]) -> Connection:
        """Open a connection; Rejected when it is refused."""

    async def serve(self, options: dict[str, Any]) -> int:
        """Listen on a free port of 127.0.0.1 as long as the program runs; its number."""
        raise NotImplementedError

    async def stop(self) -> None:  # noqa: B027 - nothing is the default
        """The end has come."""

    def run(self) -> None:
        """Obey until the end of the input."""
        if os.environ.get("TIDEGATE_PEER_LOOP") == "uvloop":
            import uvloop

            uvloop.run(self._main())
        else:
            asyncio.run(self._main())

    async def _main(self) -> None:
        reader = asyncio.StreamReader(LIMIT)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks: set[asyncio.Task[None]] = set()
        with contextlib.closing(transport):
            async for line in reader:
                task = asyncio.create_task(self._answer(**json.loads(line)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()
        await self.stop()

    async def _answer(self, number: int, do: str, connection: int | None = None, **arguments: Any) -> None:
        try:
            if connection is None:
                answer = await self._commands[do](**arguments)
            else:
                answer = await getattr(self, f"_{do}")(self._connections[connection], **arguments)
        except Rejected as exc:
            answer = {"rejected": exc.status}
        except Exception as exc:
            answer = {"error": f"{type(exc).__qualname__}: {exc}"}
        sys.stdout.write(json.dumps({"number": number, "answer": answer}) + "\n")
        sys.stdout.flush()

    # Commands, of the program and of a connection.

    async def _connect(self, uri: str, options: dict[str, Any]) -> dict[str, Any]:
        return self._opened(await self.connect(uri, options))

    async def _accept(self) -> dict[str, Any]:
        return self._opened(await self.accepted.get())

    def _opened(self, connection: Connection) -> dict[str, Any]:
        number = next(self._numbers)
        self._connections[number] = connection
        return {"connection": number, "subprotocol": connection.subprotocol, "headers": connection.headers}

    async def _send(self, connection: Connection, message: dict[str, Any]) -> None:
        await connection.send(unpack(message))  # type: ignore[arg-type]

    async def _fragments(self, connection: Connection, parts: list[dict[str, Any]]) -> None:
        await connection.fragments([unpack(part) for part in parts])

    async def _recv(self, connection: Connection) -> dict[str, Any]:
        return pack(await connection.recv())

    async def _ping(self, connection: Connection, message: dict[str, Any]) -> None:
        await connection.ping(unpack(message))  # type: ignore[arg-type]

    async def _close(self, connection: Connection, code: int, reason: str) -> dict[str, Any]:
        return pack(await connection.close(code, reason))
