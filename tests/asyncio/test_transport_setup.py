"""PROXY headers and TLS before HTTP, alone and one after the other, on connections that are cut anywhere.

What must not live here: grammar of the header (test_proxy_protocol.py), limits (test_admission.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.asyncio.test_admission import MANY, gone, tell_address
from tests.asyncio.test_handshake import results
from tests.support import wire
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tidegate._core.counters import Row
from tidegate.asyncio.admission import Admission
from tidegate.asyncio.client import connect
from tidegate.asyncio.options import ProcessPolicy
from tidegate.asyncio.server import Server, ServerConnection, serve, unix_serve
from tidegate.limits import Limiter
from tidegate.networks import Networks

VERSION_1 = b"PROXY TCP4 192.0.2.1 203.0.113.1 56324 443\r\n"
VERSION_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\2\1\xcb\0\x71\1\xdc\x04\1\xbb\x04\0\0"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
CLIENT = ("192.0.2.1", 56324)


def admission(**options: Any) -> Admission:
    defaults = {"trusted": Networks(("127.0.0.0/8",)), "proxy_protocol": True, "limits": MANY}
    return Admission(Limiter(), **{**defaults, **options})


@asynccontextmanager
async def setting_up(
    of: Admission, handler: Any = tell_address, path: Path | None = None, **options: Any
) -> AsyncIterator[Server]:
    options["policy"] = ProcessPolicy(of)
    async with unix_serve(handler, path, **options) if path else serve(handler, "127.0.0.1", 0, **options) as server:
        yield server


def caller(server: Server, first: bytes = b"") -> socket.socket:
    """A connection on which something was said already."""
    sock = socket.create_connection(server.sockets[0].getsockname()[:2])
    sock.sendall(first)
    return sock


@pytest.mark.parametrize(("header", "address"), [(VERSION_1, CLIENT), (VERSION_2, CLIENT), (LOCAL, None)])
async def test_headers(header: bytes, address: Any, row: Row) -> None:
    """The address is the one in the PROXY header, or the socket's if the proxy speaks for itself."""
    async with setting_up(admission()) as server:
        async with connect("ws://localhost/", sock=caller(server, header)) as websocket:
            assert await websocket.recv() == repr(address or websocket.local_address)
        await gone(server)
    assert results(row) == {"ok": 1}
    assert row.words("connections_accepted") == (1,)
    assert row.connections_of_all == 0


async def test_a_header_with_the_request_in_one_piece(row: Row) -> None:
    async with setting_up(admission()) as server:
        with RawClient(server.sockets[0].getsockname()[1]) as client:
            client.send(VERSION_1)
            await asyncio.to_thread(client.open)


async def test_a_header_byte_by_byte() -> None:
    async with setting_up(admission()) as server:
        sock = caller(server)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in VERSION_2:
            sock.sendall(bytes([byte]))
            await asyncio.sleep(0)
        async with connect("ws://localhost/", sock=sock) as websocket:
            assert await websocket.recv() == repr(CLIENT)


async def test_a_proxy_behind_a_proxy() -> None:
    networks = Networks(("127.0.0.0/8", "192.0.2.0/24"))
    async with setting_up(admission(trusted=networks, header="x-forwarded-for")) as server:
        sent = {"X-Forwarded-For": "203.0.113.7"}
        async with connect("ws://localhost/", sock=caller(server, VERSION_1), additional_headers=sent) as websocket:
            assert await websocket.recv() == repr(("203.0.113.7", 0))


async def test_who_is_no_trusted_proxy_has_no_header(row: Row) -> None:
    async with setting_up(admission(trusted=Networks(("10.0.0.0/8",)))) as server:
        async with connect("ws://localhost/", sock=caller(server)) as websocket:
            assert await websocket.recv() == repr(websocket.local_address)
        with RawClient(server.sockets[0].getsockname()[1]) as client:
            client.send(VERSION_1 + wire.request())
            status, _, _ = await asyncio.to_thread(client.response)
            assert status == 400
    assert results(row) == {"ok": 1, "bad_request": 1}


async def test_everybody_on_a_unix_socket_is_a_proxy(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with setting_up(admission(trusted=Networks(())), path=path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sock.sendall(VERSION_2)
        async with connect("ws://localhost/", sock=sock) as websocket:
            assert await websocket.recv() == repr(CLIENT)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 x\r\n", b"PROXY " + b"x" * 200, b"\r\n\r\n\0\r\nQUIT!"]
)
async def test_what_is_no_header_is_cut_and_counted(data: bytes, row: Row, log: pytest.LogCaptureFixture) -> None:
    async with setting_up(admission()) as server:
        sock = caller(server, data)
        sock.settimeout(PATIENCE)
        with sock:
            assert await asyncio.to_thread(sock.recv, 1) == b""
        await gone(server)
    assert results(row) == {"bad_proxy_header": 1}
    assert row.connections_of_all == 0
    assert "no valid PROXY header from the proxy" in log.text


@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 "])
async def test_time_for_the_header(data: bytes, row: Row) -> None:
    async with setting_up(admission(), open_timeout=0.05) as server:
        with caller(server, data):
            while not results(row):
                await asyncio.sleep(0.001)
        await gone(server)
    assert results(row) == {"timeout": 1}


async def test_the_access_log_has_those_who_come_no_farther(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tidegate.access"):
        async with setting_up(admission()) as server:
            with caller(server, b"nonsense"):
                while not any(record.name == "tidegate.access" for record in caplog.records):
                    await asyncio.sleep(0.001)
            await gone(server)
    (record,) = (record for record in caplog.records if record.name == "tidegate.access")
    told = vars(record)
    assert (told["error"], told["status"], told["path"]) == ("bad_proxy_header", None, None)
    assert told["websocket"].remote_address[0] == "127.0.0.1"
    assert told["websocket"].id == told["websocket"].id


async def test_who_leaves_before_the_header(row: Row) -> None:
    async with setting_up(admission()) as server:
        caller(server, b"PROXY").close()
        while not results(row):
            await asyncio.sleep(0.001)
        await gone(server)
    assert results(row) == {"disconnected": 1}


async def test_a_closing_server_answers_before_the_header(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    monkeypatch.setattr("tidegate.asyncio.server_connection.REJECT_WITHIN", 0.5)  # for the end of the request
    async with setting_up(admission()) as server:
        client = RawClient(server.sockets[0].getsockname()[1])
        while not server._registry.all:
            await asyncio.sleep(0.001)
        server.close()
        status, headers, _ = await asyncio.to_thread(client.response)
        client.send(VERSION_1)
        client.socket.close()
    assert (status, headers["retry-after"]) == (503, "1")
    assert results(row) == {"unavailable": 1}


# TLS.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("header", [b"", VERSION_1, VERSION_2])
async def test_tls(
    header: bytes, version: ssl.TLSVersion, server_tls: ssl.SSLContext, authority: Any, row: Row
) -> None:
    """TLS starts after the PROXY header, or at once without one."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(tls)
    tls.maximum_version = version

    async def handler(websocket: ServerConnection) -> None:
        await tell_address(websocket)

    async with setting_up(admission(tls=server_tls, proxy_protocol=bool(header)), handler) as server:
        sock = caller(server, header)
        async with connect("wss://localhost/", sock=sock, ssl=tls) as websocket:
            assert await websocket.recv() == repr(CLIENT if header else websocket.local_address)
            await websocket.send("x" * 100_000)
        await gone(server)
    assert results(row) == {"ok": 1}
    assert row.words("connections_accepted") == (1,)
    assert row.connections_of_all == 0


def wrapped_hello(tls: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """TLS without a socket, which has said hello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        wrapped.do_handshake()
    return wrapped, incoming, outgoing


async def test_header_and_hello_in_one_piece_and_the_request_with_the_end_of_the_handshake(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with setting_up(admission(tls=server_tls)) as server:
        reader, writer = await asyncio.open_connection(sock=caller(server))
        wrapped, incoming, outgoing = wrapped_hello(client_tls)
        writer.write(VERSION_1 + outgoing.read())
        finished = False
        answer = b""
        while b"192.0.2.1" not in answer:
            incoming.write(await asyncio.wait_for(reader.read(65536), PATIENCE))
            try:
                if not finished:
                    wrapped.do_handshake()
                    finished = True
                    wrapped.write(wire.request())
                    writer.write(outgoing.read())
                answer += wrapped.read(65536)
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
        assert answer.startswith(b"HTTP/1.1 101 ")
        writer.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\5hello"])
async def test_what_is_no_tls_is_counted(data: bytes, server_tls: ssl.SSLContext, row: Row) -> None:
    async with setting_up(admission(tls=server_tls, proxy_protocol=False)) as server:
        with caller(server, data) as sock:
            sock.settimeout(PATIENCE)
            while await asyncio.to_thread(sock.recv, 1000):  # an alert, perhaps
                pass
        await gone(server)
    assert results(row) == {"tls_failed": 1}
    assert row.connections_of_all == 0


@pytest.mark.parametrize("header", [b"", VERSION_1])
@pytest.mark.parametrize("hello", [False, True])
async def test_time_for_tls(
    header: bytes, hello: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, row: Row
) -> None:
    _, _, outgoing = wrapped_hello(client_tls)
    data = header + (outgoing.read() if hello else b"")
    async with setting_up(admission(tls=server_tls, proxy_protocol=bool(header)), open_timeout=0.1) as server:
        with caller(server, data):
            while not results(row):
                await asyncio.sleep(0.001)
        await gone(server)
    assert results(row) == {"timeout": 1}
    assert row.connections_of_all == 0


async def test_who_leaves_within_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, row: Row) -> None:
    _, _, outgoing = wrapped_hello(client_tls)
    async with setting_up(admission(tls=server_tls, proxy_protocol=False)) as server:
        caller(server, outgoing.read()).close()
        while not results(row):
            await asyncio.sleep(0.001)
        await gone(server)
    assert row.connections_of_all == 0
    assert sum(results(row).values()) == 1


async def test_a_closing_server_waits_for_no_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, row: Row
) -> None:
    _, _, outgoing = wrapped_hello(client_tls)
    async with setting_up(admission(tls=server_tls, proxy_protocol=False)) as server:
        with caller(server), caller(server, outgoing.read()):
            while len(server._registry.all) < 2:
                await asyncio.sleep(0.001)
            server.close()
            await server.wait_closed()
    assert results(row) == {"unavailable": 2}
