"""aiohttp as a peer.

Its connections read only when they are asked to, so a task of ours asks all the time.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

from aiohttp import BasicAuth, ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web

from tests.interop.peers.program import Closed, Connection, Message, Program, Rejected, fields


class WebSocket(Connection):
    """A connection, read by a task."""

    def __init__(self, websocket: ClientWebSocketResponse | web.WebSocketResponse, headers: Any) -> None:
        self.websocket = websocket
        self.subprotocol = websocket.ws_protocol if isinstance(websocket, web.WebSocketResponse) else websocket.protocol
        self.headers = fields(headers.items())
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.end = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> Closed:
        while True:
            message = await self.websocket.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    self.messages.put_nowait(message.data)
                case WSMsgType.PING:
                    await self.websocket.pong(message.data)
                case WSMsgType.PONG:
                    self.pongs.put_nowait(bytes(message.data))
                case WSMsgType.CLOSE:
                    return Closed(message.data, message.extra or "")
                case _:
                    return Closed(self.websocket.close_code or 1006, "")

    async def send(self, message: Message) -> None:
        if isinstance(message, str):
            await self.websocket.send_str(message)
        else:
            await self.websocket.send_bytes(message)

    async def recv(self) -> Message | Closed:
        got = asyncio.ensure_future(self.messages.get())
        await asyncio.wait([got, self.end], return_when=asyncio.FIRST_COMPLETED)
        if got.done():
            return got.result()
        got.cancel()
        return self.end.result()

    async def ping(self, data: bytes) -> None:
        await self.websocket.ping(data)
        while await self.pongs.get() != data:
            pass

    async def close(self, code: int, reason: str) -> Closed:
        """It reads the other side's answer by itself, and tells the code."""
        await self.websocket.close(code=code, message=reason.encode())
        return Closed(self.websocket.close_code or 1006, "")


class Aiohttp(Program):
    """aiohttp's client and its server."""

    session: ClientSession | None = None

    async def connect(self, uri: str, options: dict[str, Any]) -> Connection:
        compression = options.get("compression")
        if self.session is None:
            self.session = ClientSession()
        try:
            websocket = await self.session.ws_connect(
                uri,
                protocols=options.get("subprotocols", ()),
                headers=options.get("headers"),
                auth=BasicAuth(*options["user"]) if "user" in options else None,
                max_msg_size=options.get("max_size", 2**22),
                compress=0 if compression is None else compression.get("window_bits", 15),
                autoping=False,
            )
        except WSServerHandshakeError as exc:
            raise Rejected(exc.status) from None
        return WebSocket(websocket, websocket._response.headers)

    async def serve(self, options: dict[str, Any]) -> int:
        async def handler(request: web.Request) -> web.StreamResponse:
            if user := options.get("user"):
                known = base64.b64encode(":".join(user).encode()).decode()
                if request.headers.get("Authorization") != f"Basic {known}":
                    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="interop"'})
            websocket = web.WebSocketResponse(
                protocols=options.get("subprotocols", ()),
                max_msg_size=options.get("max_size", 2**22),
                compress=options.get("compression") is not None,
                autoping=False,
            )
            websocket.headers.update(options.get("headers", {}))
            await websocket.prepare(request)
            connection = WebSocket(websocket, request.headers)
            self.accepted.put_nowait(connection)
            await asyncio.wait([connection.end])
            return websocket

        application = web.Application()
        application.router.add_get("/", handler)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]  # type: ignore[no-any-return]

    async def stop(self) -> None:
        if self.session is not None:
            await self.session.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Aiohttp().run()
