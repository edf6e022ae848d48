"""The servers that are measured beside each other: ``python -m tests.benchmarks.servers NAME [fan]``.

Each is what its library's documentation shows: with the library's defaults, on uvloop, in one process. It echoes, or
with `fan` it sends what it gets to all its clients. The first line of its output is the port.

    tidegate      `async for message in websocket`
    websockets    the same program, by another library
    picows        callbacks
    aiohttp       `async for message in websocket`
    uvloop        no WebSocket: each byte is sent back by a protocol of asyncio. It shows what the event loop and the
                  kernel take by themselves

Servers of ASGI applications are in asgi.py. What must not live here: load, and measuring.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Any, cast

import uvloop

from tests.benchmarks import asgi

HOST = "127.0.0.1"
BACKLOG = 1024  # connections that may wait, of those libraries that leave it to asyncio, which has 100


def announce(listening: Any) -> None:
    """Print the port."""
    print(listening.getsockname()[1], flush=True)


async def with_the_api_of_websockets(library: Any, fan: bool) -> None:
    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def send_to_all(websocket: Any) -> None:
        async for message in websocket:
            library.broadcast(server.connections, message)

    async with library.serve(send_to_all if fan else echo, HOST, 0) as server:
        announce(server.sockets[0])
        await server.serve_forever()


async def tidegate(fan: bool) -> None:
    from tidegate.asyncio import server

    await with_the_api_of_websockets(server, fan)


async def websockets(fan: bool) -> None:
    from websockets.asyncio import server

    await with_the_api_of_websockets(server, fan)


async def picows(fan: bool) -> None:
    from picows import WSListener, WSMsgType, ws_create_server

    clients: set[Any] = set()

    class Listener(WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: Any) -> None:
            clients.add(transport)

        def on_ws_disconnected(self, transport: Any) -> None:
            clients.discard(transport)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            elif fan:
                payload = frame.get_payload_as_bytes()
                for client in clients:
                    client.send(frame.msg_type, payload)
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    server = await ws_create_server(lambda request: Listener(), HOST, 0, backlog=BACKLOG)
    announce(server.sockets[0])
    await server.serve_forever()


async def aiohttp(fan: bool) -> None:
    from aiohttp import WSMsgType, web

    clients: set[web.WebSocketResponse] = set()

    async def send(websocket: web.WebSocketResponse, message: Any) -> None:
        if message.type == WSMsgType.TEXT:
            await websocket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await websocket.send_bytes(message.data)

    async def handler(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        clients.add(websocket)
        async for message in websocket:
            for client in list(clients) if fan else [websocket]:
                await send(client, message)
        clients.discard(websocket)
        return websocket

    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, backlog=BACKLOG)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def raw_uvloop(fan: bool) -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not derive from it

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    assert not fan
    server = await asyncio.get_running_loop().create_server(Echo, HOST, 0, backlog=BACKLOG)
    announce(server.sockets[0])
    await server.serve_forever()


OURS, RAW = "tidegate", "uvloop"

# Name of the server, which is also the package's -> what runs it.
SERVERS: dict[str, Callable[[bool], Awaitable[None]]] = {
    OURS: tidegate,
    "websockets": websockets,
    "picows": picows,
    "aiohttp": aiohttp,
    RAW: raw_uvloop,
}


# With those that are measured only if they are named.
ALL = {**SERVERS, **asgi.SERVERS}


def installed() -> list[str]:
    """Those that can run here."""
    return [*(name for name in SERVERS if find_spec(name)), *asgi.installed()]


def version(name: str) -> str:
    """The release of a server's package."""
    return metadata.version(name.rpartition("-")[2])


if __name__ == "__main__":
    uvloop.run(ALL[sys.argv[1]]("fan" in sys.argv[2:]))
