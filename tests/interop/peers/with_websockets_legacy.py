"""The older implementation of `websockets`, as of release 13, as a peer."""

from __future__ import annotations

import logging
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatusCode
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.legacy.auth import basic_auth_protocol_factory
from websockets.legacy.client import connect
from websockets.legacy.server import WebSocketServerProtocol, serve

from tests.interop.peers.program import Connection, Program, Rejected
from tests.interop.peers.with_websockets import WebSocket, keywords


class Legacy(Program):
    """Clients and servers of `websockets.legacy`."""

    async def connect(self, uri: str, options: dict[str, Any]) -> Connection:
        arguments = keywords(options, ClientPerMessageDeflateFactory)
        headers = options.get("headers", {})
        if "User-Agent" in headers:
            arguments["user_agent_header"] = headers["User-Agent"]
        arguments["extra_headers"] = {name: value for name, value in headers.items() if name != "User-Agent"}
        if user := options.get("user"):
            uri = uri.replace("://", f"://{user[0]}:{user[1]}@")
        try:
            websocket = await connect(uri, **arguments)
        except InvalidStatusCode as exc:
            raise Rejected(exc.status_code) from None
        return WebSocket(websocket, websocket.response_headers, ConnectionClosed)

    async def serve(self, options: dict[str, Any]) -> int:
        arguments = keywords(options, ServerPerMessageDeflateFactory)
        arguments["extra_headers"] = options.get("headers")
        if user := options.get("user"):
            arguments["create_protocol"] = basic_auth_protocol_factory("interop", tuple(user))
        server = await serve(self._handler, "127.0.0.1", 0, **arguments)
        return next(iter(server.sockets)).getsockname()[1]  # type: ignore[no-any-return]

    async def _handler(self, websocket: WebSocketServerProtocol) -> None:
        self.accepted.put_nowait(WebSocket(websocket, websocket.request_headers, ConnectionClosed))
        await websocket.wait_closed()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Legacy().run()
