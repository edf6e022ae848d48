"""Programs of test_as_websockets.py; each is run by `python -m tidegate.as_websockets`, or calls install() itself.

What must not live here: assertions about their output.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any


def own_start() -> None:
    """A program that has tidegate for `websockets` by its own first line."""
    from tidegate import as_websockets

    as_websockets.install()
    as_websockets.install()
    import websockets
    from websockets.asyncio.server import ServerConnection
    from websockets.exceptions import ConnectionClosed

    import tidegate

    assert ConnectionClosed is websockets.ConnectionClosed is tidegate.ConnectionClosed
    assert ServerConnection is tidegate.ServerConnection
    print(websockets.__version__, websockets.version.version, websockets.connect.__module__)


def too_late() -> None:
    """A program that imports `websockets` before."""
    import websockets  # noqa: F401

    from tidegate import as_websockets

    as_websockets.install()


def all_names() -> None:
    """Print how many of the names are another's."""
    from tidegate import as_websockets

    as_websockets.install()
    import tidegate

    names: dict[str, Any] = {}
    exec("from websockets import *", names)
    print(len([name for name in tidegate.__all__ if names[name] is not getattr(tidegate, name)]))


def older_modules() -> None:
    """Import from modules of ten years ago."""
    from tidegate import as_websockets

    as_websockets.install()
    from websockets.legacy.client import WebSocketClientProtocol
    from websockets.legacy.server import WebSocketServerProtocol

    print(WebSocketClientProtocol.__module__, WebSocketServerProtocol.__module__)


def missing_modules() -> None:
    """Import what there is not."""
    import importlib

    from tidegate import as_websockets

    as_websockets.install()
    for name in ("websockets.sync.client", "websockets.cli", "websockets.speedups"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            print(exc)


def language_server() -> None:
    """pygls: a language server over WebSocket, and a client of it, in one program."""
    import threading

    from lsprotocol import types
    from pygls.lsp.client import LanguageClient
    from pygls.lsp.server import LanguageServer

    server = LanguageServer("echo", "v1")

    @server.feature("test/echo")
    def echo(params: Any) -> Any:
        return {"text": params.text}

    thread = threading.Thread(target=server.start_ws, args=("127.0.0.1", 0), daemon=True)
    thread.start()

    async def client() -> None:
        while (listening := server._server) is None or not listening.sockets:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        peer = LanguageClient("client", "v1")
        await peer.start_ws("127.0.0.1", listening.sockets[0].getsockname()[1])  # type: ignore[union-attr]
        answer = await peer.initialize_async(types.InitializeParams(capabilities=types.ClientCapabilities()))
        assert answer.server_info is not None
        print(type(listening).__module__, answer.server_info.name)
        result = await peer.protocol.send_request_async("test/echo", {"text": "Hello"})
        print(result.text)
        await peer.shutdown_async(None)

    asyncio.run(client())


async def _graphql(websocket: Any) -> None:
    """A server of graphql-transport-ws that answers a query, and whose second subscription it ends by closing."""
    async for text in websocket:
        message = json.loads(text)
        if message["type"] == "connection_init":
            await websocket.send(json.dumps({"type": "connection_ack"}))
        elif message["type"] == "subscribe" and "end" in message["payload"]["query"]:
            await websocket.close(4400, "no such thing")
        elif message["type"] == "subscribe":
            for answer in ({"type": "next", "payload": {"data": {"hello": "world"}}}, {"type": "complete"}):
                await websocket.send(json.dumps({"id": message["id"], **answer}))


def graphql_client() -> None:
    """gql: a query over WebSocket; then the server closes, which the library catches by its exception."""
    from gql import Client, gql
    from gql.transport.exceptions import TransportConnectionFailed
    from gql.transport.websockets import WebsocketsTransport
    from websockets.asyncio.server import serve

    async def main() -> None:
        async with serve(_graphql, "127.0.0.1", 0, subprotocols=["graphql-transport-ws"]) as server:
            port = server.sockets[0].getsockname()[1]
            transport = WebsocketsTransport(url=f"ws://127.0.0.1:{port}/")
            async with Client(transport=transport) as session:
                print(await session.execute(gql("{ hello }")))
                print(type(transport.adapter.websocket).__module__)  # type: ignore[attr-defined]
                try:
                    await session.execute(gql("{ end }"))
                except TransportConnectionFailed as exc:
                    print(type(exc).__name__)

    asyncio.run(main())
