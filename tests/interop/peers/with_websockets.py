"""The `websockets` library as a peer, of today or 13; and tidegate, by changing the import: `with_websockets LIBRARY`.

What must not live here: `websockets.legacy` (with_websockets_legacy.py).
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from tests.interop.peers.program import Closed, Connection, Message, Program, Rejected, fields, parameters


class WebSocket(Connection):
    """A connection, of today's API or the older one; `closed` is the library's ConnectionClosed."""

    def __init__(self, websocket: Any, headers: Any, closed: type[Exception]) -> None:
        self.websocket = websocket
        self.subprotocol = websocket.subprotocol
        self.headers = fields(headers.raw_items())
        self.closed = closed

    async def send(self, message: Message) -> None:
        await self.websocket.send(message)

    async def fragments(self, parts: list[Any]) -> None:
        await self.websocket.send(parts)

    async def recv(self) -> Message | Closed:
        try:
            return await self.websocket.recv()  # type: ignore[no-any-return]
        except self.closed as exc:
            await self.websocket.wait_closed()
            received: Any = exc.rcvd  # type: ignore[attr-defined]
            return Closed(received.code, received.reason) if received else Closed(1006, "")

    async def ping(self, data: bytes) -> None:
        await (await self.websocket.ping(data))

    async def close(self, code: int, reason: str) -> Closed:
        await self.websocket.close(code, reason)
        while not isinstance(end := await self.recv(), Closed):
            pass
        return end


class Library(Program):
    """A library with this API, by its name."""

    def __init__(self, library: str) -> None:
        super().__init__()
        self.client = importlib.import_module(f"{library}.asyncio.client")
        self.server = importlib.import_module(f"{library}.asyncio.server")
        self.exceptions = importlib.import_module(f"{library}.exceptions")
        self.deflate = importlib.import_module(f"{library}.extensions.permessage_deflate")

    async def connect(self, uri: str, options: dict[str, Any]) -> Connection:
        arguments = keywords(options, self.deflate.ClientPerMessageDeflateFactory)
        headers = options.get("headers", {})
        arguments["additional_headers"] = {name: value for name, value in headers.items() if name != "User-Agent"}
        if "User-Agent" in headers:
            arguments["user_agent_header"] = headers["User-Agent"]
        if user := options.get("user"):
            uri = uri.replace("://", f"://{user[0]}:{user[1]}@")
        try:
            websocket = await self.client.connect(uri, **arguments)
        except self.exceptions.InvalidStatus as exc:
            raise Rejected(exc.response.status_code) from None
        return WebSocket(websocket, websocket.response.headers, self.exceptions.ConnectionClosed)

    async def serve(self, options: dict[str, Any]) -> int:
        arguments = keywords(options, self.deflate.ServerPerMessageDeflateFactory)
        if headers := options.get("headers"):

            def process_response(connection: Any, request: Any, response: Any) -> None:
                for name, value in headers.items():
                    response.headers[name] = value

            arguments["process_response"] = process_response
        if user := options.get("user"):
            arguments["process_request"] = self.server.basic_auth("interop", credentials=tuple(user))
        server = await self.server.serve(self._handler, "127.0.0.1", 0, **arguments)
        return server.sockets[0].getsockname()[1]  # type: ignore[no-any-return]

    async def _handler(self, websocket: Any) -> None:
        headers = websocket.request.headers
        self.accepted.put_nowait(WebSocket(websocket, headers, self.exceptions.ConnectionClosed))
        await websocket.wait_closed()


def keywords(options: dict[str, Any], factory: Any) -> dict[str, Any]:
    """The arguments that `connect()` and `serve()` share."""
    found = {name: options[name] for name in ("subprotocols", "max_size") if name in options}
    if (compression := options.get("compression")) is None:
        found["compression"] = None
    elif compression:
        found["extensions"] = [factory(**parameters(compression))]
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Library(sys.argv[1]).run()
