"""Servers behind TLS: the same promises, over transports that cannot close one direction alone."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError as ClientConnectionClosedError

from tests.asyncio.ends import Serving, echo, idle, serving
from tests.support.coroutines import outcome, until
from tests.support.patience import PATIENCE
from tests.support.rawpeer import REQUEST, ClientPeer
from tests.support.wire import frame
from tidegate.asyncio.client import connect as tidegate_connect
from tidegate.asyncio.server import ServerConnection
from tidegate.exceptions import ConnectionClosedError


def uri(made: Serving) -> str:
    return f"wss://localhost:{made.port}/"


async def tls_peer(made: Serving, tls: ssl.SSLContext) -> ClientPeer:
    """A raw peer inside TLS, whose handshake is done."""
    peer = ClientPeer(*await asyncio.open_connection("localhost", made.port, ssl=tls))
    made.peers.append(peer)
    assert (await peer.handshake()).startswith(b"HTTP/1.1 101 ")
    return peer


async def test_messages(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Messages of any size, and many in a row, come back over TLS."""
    async with serving(echo, ssl=server_tls, max_size=None) as made:
        async with connect(uri(made), ssl=client_tls, max_size=None, compression=None) as client:
            for message in ("Hello", b"\xff", "é" * 1_000_000, b"x" * 3_000_000, ""):
                await client.send(message)
                assert await client.recv() == message
            for i in range(1_000):
                await client.send(str(i))
            assert [await client.recv() for _ in range(1_000)] == [str(i) for i in range(1_000)]
        assert client.close_code == 1000


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_addresses_are_known_after_the_end(
    how: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    known: list[Any] = []

    async def handler(websocket: ServerConnection) -> None:
        before = websocket.remote_address, websocket.local_address
        await websocket.wait_closed()
        known.append((before, (websocket.remote_address, websocket.local_address)))

    async with serving(handler, ssl=server_tls) as made:
        client = await tidegate_connect(uri(made), ssl=client_tls)
        addresses = client.local_address, client.remote_address
        if how == "close":
            await client.close()
        else:
            client.transport.abort()
            await client.wait_closed()
        await until(lambda: known)
    assert known == [(addresses, addresses)]
    assert (client.local_address, client.remote_address) == addresses


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4000, "é")])
async def test_close_frames_arrive(
    code: int, reason: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.send(b"x" * 300_000)
        await websocket.close(code, reason)

    async with serving(handler, ssl=server_tls) as made, connect(uri(made), ssl=client_tls) as client:
        assert await client.recv() == b"x" * 300_000
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (code, reason)


async def test_a_closing_server(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serving(idle, ssl=server_tls) as made:
        clients = [await connect(uri(made), ssl=client_tls) for _ in range(3)]
        await until(lambda: len(made.server.connections) == 3)
        made.server.close()
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1001
        await made.server.wait_closed()


async def test_a_breach(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serving(idle, ssl=server_tls) as made:
        peer = await tls_peer(made, client_tls)
        peer.send(frame(b"\xff"))
        assert (await peer.close_frame())[0] == 1007
        await peer.end()


async def test_a_rejection(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serving(idle, ssl=server_tls) as made:
        peer = ClientPeer(*await asyncio.open_connection("localhost", made.port, ssl=client_tls))
        made.peers.append(peer)
        status, _, body = await peer.ask(b"PUT" + REQUEST[3:])
        assert status == 405
        assert body


async def test_send_waits_for_a_slow_reader(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    sent = 0

    async def handler(websocket: ServerConnection) -> None:
        nonlocal sent
        while sent < 2_000:
            await websocket.send(b"x" * 100_000)
            sent += 1

    async with serving(handler, ssl=server_tls) as made:
        peer = await tls_peer(made, client_tls)
        await asyncio.sleep(0.3)
        assert sent < 500  # 50 MB; the buffers between are much smaller
        stuck = sent
        for _ in range(stuck + 100):
            assert len((await peer.frame())[1]) == 100_000
        assert sent > stuck
        peer.writer.transport.abort()


@pytest.mark.parametrize("end", ["abort", "close", "silence"])
async def test_the_connection_breaks(end: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    ended: list[Any] = []

    async def handler(websocket: ServerConnection) -> None:
        ended.append(await outcome(websocket.recv()))

    async with serving(handler, ssl=server_tls, ping_interval=0.01, ping_timeout=0.02, close_timeout=0.02) as made:
        peer = await tls_peer(made, client_tls)
        if end == "abort":
            peer.writer.transport.abort()
        elif end == "close":
            peer.close()
        await until(lambda: ended and not made.server._registry.all)
    assert isinstance(ended[0], ConnectionClosedError)


async def test_the_open_timeout_covers_tls(server_tls: ssl.SSLContext) -> None:
    async with serving(idle, ssl=server_tls, open_timeout=0.1) as made:
        for start in (b"", b"\x16\x03\x01"):  # nothing, or the beginning of a TLS handshake
            peer = await made.raw()
            peer.send(start)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):
                    assert not await peer.reader.read()


async def test_who_speaks_no_tls_is_forgotten(server_tls: ssl.SSLContext) -> None:
    """The server never learns of them, and does not wait for them when it closes."""
    async with serving(idle, ssl=server_tls, open_timeout=0.5) as made:
        for junk in (REQUEST, b"", b"\x16\x03\x01"):
            peer = await made.raw()
            peer.send(junk)
            await asyncio.sleep(0.01)
            peer.close()
        assert not made.server._registry.all
        made.server.close()
        await asyncio.wait_for(made.server.wait_closed(), PATIENCE)


async def test_a_client_sees_1011(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def handler(websocket: ServerConnection) -> None:
        raise ZeroDivisionError

    async with serving(handler, ssl=server_tls) as made, connect(uri(made), ssl=client_tls) as client:
        exc = await outcome(client.recv())
    assert isinstance(exc, ClientConnectionClosedError)
    assert exc.rcvd is not None
    assert exc.rcvd.code == 1011
