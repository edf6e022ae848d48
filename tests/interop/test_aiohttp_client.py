"""aiohttp's client against the daemon: another reading of RFC 6455 than ours and websockets'.

What must not live here: what one client shows for all, as the spread over workers (test_websockets_client.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.interop.conftest import MAX_SIZE
from tests.support.harness import Daemon
from tests.support.patience import PATIENCE


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def websocket(daemon: Daemon, session: ClientSession) -> AsyncIterator[ClientWebSocketResponse]:
    async with session.ws_connect(daemon.uri, max_msg_size=0, autoping=False) as websocket:
        yield websocket


async def test_text(websocket: ClientWebSocketResponse) -> None:
    """aiohttp gets its text back, beyond ASCII too."""
    await websocket.send_str("Grüße 🌊")
    assert await websocket.receive_str(timeout=PATIENCE) == "Grüße 🌊"


@pytest.mark.parametrize("size", [0, 126, 65536, 5_000_000])
async def test_binary(websocket: ClientWebSocketResponse, size: int) -> None:
    """aiohttp gets binary messages of each size back."""
    await websocket.send_bytes(b"\xa5" * size)
    assert await websocket.receive_bytes(timeout=PATIENCE) == b"\xa5" * size


async def test_text_that_is_not_utf8(websocket: ClientWebSocketResponse) -> None:
    await websocket.send_frame(b"Gr\xc3", WSMsgType.TEXT)
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1007)


async def test_fragments_from_server(websocket: ClientWebSocketResponse) -> None:
    await websocket.send_str("fragments Grüße")
    assert await websocket.receive_str(timeout=PATIENCE) == "Grüße"


async def test_ping_from_client(websocket: ClientWebSocketResponse) -> None:
    await websocket.ping(b"from the client")
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"from the client")


async def test_ping_from_server(websocket: ClientWebSocketResponse) -> None:
    await websocket.send_str("ping")
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, bytes(message.data)) == (WSMsgType.PING, b"from the server")
    await websocket.pong(message.data)
    assert await websocket.receive_str(timeout=PATIENCE) == "pong"


async def test_client_closes(websocket: ClientWebSocketResponse) -> None:
    assert await websocket.close(code=4000, message=b"enough")
    assert websocket.close_code == 4000


async def test_server_closes(websocket: ClientWebSocketResponse) -> None:
    await websocket.send_str("close 4001 that will do")
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "that will do")


async def test_too_big(websocket: ClientWebSocketResponse) -> None:
    await websocket.send_bytes(bytes(MAX_SIZE + 1))
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)


async def test_subprotocol(daemon: Daemon, session: ClientSession) -> None:
    """aiohttp and the server agree on a subprotocol."""
    async with session.ws_connect(daemon.uri, protocols=("chat.v1", "chat.v2")) as websocket:
        assert websocket.protocol == "chat.v2"


async def test_compression_may_be_offered(daemon: Daemon, session: ClientSession) -> None:
    async with session.ws_connect(daemon.uri, compress=15) as websocket:
        await websocket.send_str("hello " * 1000)
        assert await websocket.receive_str(timeout=PATIENCE) == "hello " * 1000


async def test_sigterm(own_daemon: Daemon, session: ClientSession) -> None:
    """SIGTERM closes aiohttp's connection with 1001."""
    websocket = await session.ws_connect(own_daemon.uri)
    stopping = asyncio.create_task(asyncio.to_thread(own_daemon.stop))
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    assert await stopping == 0
