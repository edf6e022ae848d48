"""Ways to a server without a proxy: TCP and Unix sockets, addresses, TLS; and arguments that cannot be meant.

What must not live here: proxies (test_tunnel).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.support.rawpeer import RawServer, ServerPeer
from tidegate.asyncio.client import connect, unix_connect
from tidegate.asyncio.server import ServerConnection, serve, unix_serve
from tidegate.exceptions import InvalidProxy

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
WS, WSS = "ws://localhost/", "wss://localhost/"
HTTP, HTTPS = "http://proxy", "https://proxy"
WITH_HTTP = "proxy_ssl argument is incompatible with an http:// proxy"
WITH_HTTPS = "proxy_ssl=None is incompatible with an https:// proxy"
BOTH = "path and sock can not be specified at the same time"


@pytest.mark.parametrize(
    ("uri", "kwargs", "expected", "message"),
    [
        (WS, {"ssl": CONTEXT}, ValueError, "ssl argument is incompatible with a ws:// URI"),
        (WS, {"ssl": True}, ValueError, "ssl argument is incompatible with a ws:// URI"),
        (WS, {"server_hostname": "x"}, ValueError, "server_hostname argument is incompatible with a ws:// URI"),
        (WS, {"ssl": "yes"}, TypeError, "ssl must be an SSLContext, True or None, not 'yes'"),
        (WSS, {"ssl": None}, ValueError, "ssl=None is incompatible with a wss:// URI"),
        (WSS, {"ssl": False}, ValueError, "ssl=False is incompatible with a wss:// URI"),
        (WS, {"proxy": HTTP, "proxy_ssl": CONTEXT}, ValueError, WITH_HTTP),
        (WS, {"proxy": HTTPS, "proxy_ssl": None}, ValueError, WITH_HTTPS),
        (WS, {"proxy": HTTPS, "proxy_ssl": 1}, TypeError, "proxy_ssl must be an SSLContext, True or None, not 1"),
        (WS, {"proxy": "ftp://p"}, InvalidProxy, "ftp://p isn't a valid proxy: scheme ftp isn't supported"),
        (WS, {"proxy": False}, TypeError, "proxy must be True, None or a URL, not False"),
        (WS, {"sock": object(), "host": "x"}, ValueError, "host/port and sock can not be specified at the same time"),
        (WS, {"unix": True, "path": None}, ValueError, "no path and sock were specified"),
        (WS, {"unix": True, "path": "/x", "sock": object()}, ValueError, BOTH),
        (WS, {"path": "/x"}, TypeError, "connect() got an unexpected keyword argument 'path'"),
        (WS, {"retries": 5}, TypeError, "connect() got an unexpected keyword argument 'retries'"),
        (WS, {"proxy_timeout": 5}, TypeError, "connect() got an unexpected keyword argument 'proxy_timeout'"),
        (WS, {"unix": True, "path": "/x", "port": 5}, TypeError, "connect() got an unexpected keyword argument 'port'"),
    ],
)
def test_usage_errors(uri: str, kwargs: dict[str, Any], expected: type[Exception], message: str) -> None:
    with pytest.raises(expected) as raised:
        connect(uri, **kwargs)
    assert str(raised.value) == message


async def where(websocket: ServerConnection) -> None:
    """Tell a client from where it comes, and whom it asked for."""
    assert websocket.request is not None
    await websocket.send(f"{websocket.remote_address} {websocket.request.headers['Host']}")


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def test_another_address_than_that_of_the_uri() -> None:
    async with serve(where, "127.0.0.1", 0) as server:
        port = port_of(server)
        async with connect("ws://overridden.example/", host="127.0.0.1", port=port) as websocket:
            assert str(await websocket.recv()).endswith(" overridden.example")
        async with connect(f"ws://overridden.example:{port}/", host="127.0.0.1") as websocket:
            assert str(await websocket.recv()).endswith(f" overridden.example:{port}")
        async with connect("ws://127.0.0.1/", port=port) as websocket:
            assert str(await websocket.recv()).endswith(" 127.0.0.1")


async def test_a_local_address() -> None:
    async with serve(where, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        async with connect(uri, local_addr=("127.0.0.2", 0), family=socket.AF_INET) as websocket:
            assert str(await websocket.recv()).startswith("('127.0.0.2', ")


async def test_ipv6() -> None:
    """A server is reached by an IPv6 address in brackets."""
    async with serve(where, "::1", 0) as server:
        port = port_of(server)
        async with connect(f"ws://[::1]:{port}/") as websocket:
            assert str(await websocket.recv()).endswith(f" [::1]:{port}")


async def test_a_socket_of_the_callers() -> None:
    async with serve(where, "127.0.0.1", 0) as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        async with connect("ws://overridden.example/", sock=sock) as websocket:
            assert str(await websocket.recv()).endswith(" overridden.example")
            assert websocket.local_address == sock.getsockname()
        assert sock.fileno() == -1


async def test_a_socket_goes_around_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    async with serve(where, "127.0.0.1", 0) as server:
        with pytest.raises(OSError):  # noqa: PT011
            await connect(f"ws://127.0.0.1:{port_of(server)}/")
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        async with connect(f"ws://127.0.0.1:{port_of(server)}/", sock=sock):
            pass


async def test_unix_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    path = tmp_path / "socket"
    async with unix_serve(where, path):
        async with unix_connect(path) as websocket:
            assert str(await websocket.recv()).endswith(" localhost")
        async with unix_connect(str(path), uri="ws://overridden.example/path") as websocket:
            assert str(await websocket.recv()).endswith(" overridden.example")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        async with unix_connect(sock=sock) as websocket:
            assert str(await websocket.recv()).endswith(" localhost")
    with pytest.raises(ValueError, match="no path and sock were specified"):
        unix_connect()


async def test_unix_sockets_with_tls(tmp_path: Path, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with (
        unix_serve(where, tmp_path / "socket", ssl=server_tls),
        unix_connect(tmp_path / "socket", ssl=client_tls) as websocket,
    ):
        assert str(await websocket.recv()).endswith(" localhost")
        assert websocket.transport.get_extra_info("cipher")


async def test_the_name_in_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    names: list[str | None] = []
    server_tls.sni_callback = lambda _, name, __: names.append(name)
    try:
        async with serve(where, "127.0.0.1", 0, ssl=server_tls) as server:
            port = port_of(server)
            for uri, kwargs in (
                (f"wss://localhost:{port}/", {}),
                ("wss://overridden.example/", {"host": "127.0.0.1", "port": port}),
                (f"wss://127.0.0.1:{port}/", {"server_hostname": "overridden.example"}),
            ):
                async with connect(uri, ssl=client_tls, **kwargs):
                    pass
    finally:
        server_tls.sni_callback = None
    assert names == ["localhost", "overridden.example", "overridden.example"]


async def test_timeouts_of_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(where, "127.0.0.1", 0, ssl=server_tls) as server:
        uri = f"wss://localhost:{port_of(server)}/"
        async with connect(uri, ssl=client_tls, ssl_handshake_timeout=5, ssl_shutdown_timeout=5):
            pass

    async def silent(peer: ServerPeer) -> None:
        await peer.rest()

    async with RawServer(silent) as server:
        with pytest.raises(OSError, match="SSL handshake"):
            await connect(f"wss://127.0.0.1:{server.port}/", ssl=client_tls, ssl_handshake_timeout=0.1)


async def test_names_are_looked_up_by_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(where, "127.0.0.1", 0) as server:
        port = port_of(server)
        async with asyncio.timeout(PATIENCE), connect(f"ws://LOCALHOST:{port}/", family=socket.AF_INET) as websocket:
            assert str(await websocket.recv()).endswith(f" localhost:{port}")
