"""Ways through proxies: HTTP, HTTPS and SOCKS, to servers with and without TLS; and proxies that reject or break off.

What must not live here: which proxy is taken, and what its URL says (tests/test_proxy).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import Any

import pytest

from tests.asyncio.ends import echo
from tests.support.proxies import Proxy
from tests.support.rawpeer import RawServer, ServerPeer, forever
from tidegate.asyncio.client import connect
from tidegate.asyncio.server import serve
from tidegate.exceptions import (
    HeaderLineTooLong,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    ProxyError,
)
from tidegate.http11 import USER_AGENT


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def works(uri: str, proxy: Any, **kwargs: Any) -> None:
    async with connect(uri, proxy=proxy, **kwargs) as websocket:
        for message in ("hello", b"x" * 300_000):
            await websocket.send(message)
            assert await websocket.recv() == message
    assert websocket.close_code == 1000


# HTTP


@pytest.mark.parametrize("wss", [False, True])
@pytest.mark.parametrize("https", [False, True])
async def test_http_and_https_proxies(
    wss: bool, https: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    tls = {"ssl": client_tls} if wss else {}
    proxy_tls = {"proxy_ssl": client_tls} if https else {}
    async with (
        serve(echo, "127.0.0.1", 0, ssl=server_tls if wss else None) as server,
        Proxy(tls=server_tls if https else None) as proxy,
    ):
        authority = f"overridden.example:{port_of(server)}"  # which the proxy looks up, and nobody here
        url = f"http{'s' * https}://127.0.0.1:{proxy.port}"
        await works(f"ws{'s' * wss}://{authority}/", url, **tls, **proxy_tls)
        assert proxy.heads == [f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\n\r\n"]


async def test_the_name_in_tls_with_a_proxy(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with Proxy(tls=server_tls) as proxy, serve(echo, "127.0.0.1", 0, ssl=server_tls) as server:
        await works(
            f"wss://nobody.example:{port_of(server)}/",
            f"https://127.0.0.1:{proxy.port}",
            ssl=client_tls,
            server_hostname="overridden.example",
            proxy_ssl=client_tls,
            proxy_server_hostname="localhost",
        )
        # asyncio of 3.11.0 to 3.11.7 stumbles over its own error when TLS within TLS fails.
        stumbled = () if sys.version_info >= (3, 11, 8) else (TypeError,)
        with pytest.raises((ssl.SSLCertVerificationError, *stumbled)):
            await works(
                f"wss://nobody.example:{port_of(server)}/",
                f"https://127.0.0.1:{proxy.port}",
                ssl=client_tls,
                proxy_ssl=client_tls,
            )
        with pytest.raises(ssl.SSLCertVerificationError):
            await works(f"ws://x:{port_of(server)}/", f"https://127.0.0.1:{proxy.port}")


async def test_the_user_agent_for_a_proxy() -> None:
    async with Proxy() as proxy, serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://localhost:{port_of(server)}/"
        await works(uri, f"http://127.0.0.1:{proxy.port}", user_agent_header="Mine")
        await works(uri, f"http://127.0.0.1:{proxy.port}", user_agent_header=None)
    assert "\r\nUser-Agent: Mine\r\n" in proxy.heads[0]
    assert "User-Agent" not in proxy.heads[1]


async def test_credentials_of_an_http_proxy() -> None:
    async with Proxy(user=("me", "p@ss")) as proxy, serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://localhost:{port_of(server)}/"
        await works(uri, f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        with pytest.raises(InvalidProxyStatus, match=r"^proxy rejected connection: HTTP 407$") as raised:
            await works(uri, f"http://127.0.0.1:{proxy.port}")
        assert raised.value.response.status_code == 407


async def test_another_address_through_a_proxy() -> None:
    async with Proxy() as proxy, serve(echo, "127.0.0.1", 0) as server:
        async with connect(
            "ws://overridden.example/",
            proxy=f"http://127.0.0.1:{proxy.port}",
            host="there.example",
            port=port_of(server),
        ) as websocket:
            assert websocket.request is not None
            assert websocket.request.headers["Host"] == "overridden.example"
        assert proxy.asked == [("there.example", port_of(server))]


async def test_a_local_address_to_a_proxy() -> None:
    async with Proxy() as proxy, serve(echo, "127.0.0.1", 0) as server:
        for scheme in ("http", "socks5h"):
            await works(
                f"ws://localhost:{port_of(server)}/",
                f"{scheme}://127.0.0.1:{proxy.port}",
                local_addr=("127.0.0.2", 0),
            )
    assert [host for host, _ in proxy.clients] == ["127.0.0.2"] * 2


async def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy() as proxy, serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://localhost:{port_of(server)}/"
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        await works(uri, True)
        assert len(proxy.asked) == 1
        await works(uri, None)
        monkeypatch.setenv("no_proxy", "localhost")
        await works(uri, True)
        assert len(proxy.asked) == 1
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("ws_proxy", "nonsense")
        with pytest.raises(InvalidProxy):
            await works(uri, True)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", EOFError),
        (b"HTTP/1.1 200 OK\r\n", EOFError),
        (b"junk", InvalidMessage),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000, HeaderLineTooLong),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", InvalidMessage),
    ],
)
async def test_proxies_that_answer_nonsense(answer: bytes, cause: type[Exception]) -> None:
    async with RawServer(answer) as proxy:
        message = "^did not receive a valid HTTP response from proxy$"
        with pytest.raises(InvalidProxyMessage, match=message) as raised:
            await connect("ws://localhost/", proxy=f"http://127.0.0.1:{proxy.port}")
        assert type(raised.value.__cause__) is cause


@pytest.mark.parametrize(
    "status",
    [
        *[b"200 Connection established", b"204 X", b"200"],
        b"200 OK\r\nContent-Length: 5",
        b"200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    ],
)
async def test_answers_of_old_proxies(status: bytes) -> None:
    answer = b"HTTP/1.0 " + status + b"\r\nContent-Length: 5\r\n\r\n"
    async with Proxy(answer=answer) as proxy, serve(echo, "127.0.0.1", 0) as server:
        await works(f"ws://localhost:{port_of(server)}/", f"http://127.0.0.1:{proxy.port}")


async def test_a_proxy_that_cannot_reach_the_server() -> None:
    async with Proxy(answer=b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry") as proxy:
        with pytest.raises(InvalidProxyStatus, match="HTTP 502"):
            await connect("ws://localhost/", proxy=f"http://127.0.0.1:{proxy.port}")


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_the_open_timeout_covers_proxies(scheme: str) -> None:
    async with RawServer(forever) as proxy:
        with pytest.raises(TimeoutError, match=r"^timed out during opening handshake$"):
            await connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:{proxy.port}", open_timeout=0.1)


async def test_a_tunnel_that_ends() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")

    async with RawServer(handler) as proxy:
        with pytest.raises((InvalidMessage, ConnectionError)):
            await connect("ws://localhost/", proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(OSError):  # noqa: PT011
            await connect("wss://localhost/", proxy=f"http://127.0.0.1:{proxy.port}")


async def test_giving_up_ends_the_tunnel() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        task.cancel()
        ended.set_result(await peer.rest())

    async with RawServer(handler) as proxy:
        task = asyncio.ensure_future(connect("ws://localhost/", proxy=f"http://127.0.0.1:{proxy.port}"))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended == b""


# SOCKS


@pytest.mark.parametrize(
    ("scheme", "far"), [("socks5h", True), ("socks5", False), ("socks4a", True), ("socks4", False)]
)
@pytest.mark.parametrize("wss", [False, True])
async def test_socks_proxies(
    scheme: str, far: bool, wss: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    tls = {"ssl": client_tls} if wss else {}
    async with Proxy() as proxy, serve(echo, "127.0.0.1", 0, ssl=server_tls if wss else None) as server:
        uri = f"ws{'s' * wss}://localhost:{port_of(server)}/"
        await works(uri, f"{scheme}://127.0.0.1:{proxy.port}", family=socket.AF_INET, **tls)
        ((host, port),) = proxy.asked
        assert port == port_of(server)
        assert host in (["localhost"] if far else ["127.0.0.1", "::1"])


async def test_credentials_of_a_socks_proxy() -> None:
    async with Proxy(user=("me", "p@ss")) as proxy, serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://localhost:{port_of(server)}/"
        await works(uri, f"socks5h://me:p%40ss@127.0.0.1:{proxy.port}")
        for user in ("", "me:wrong@"):
            with pytest.raises(ProxyError, match=r"^failed to connect to SOCKS proxy$") as raised:
                await works(uri, f"socks5h://{user}127.0.0.1:{proxy.port}")
            assert raised.value.__cause__ is not None


async def test_a_socks_proxy_that_is_not_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="Could not connect to proxy"):
            await connect("ws://localhost/", proxy=f"socks5h://127.0.0.1:{sock.getsockname()[1]}")


async def test_socks_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"requires python-socks: pip install 'tidegate\[socks\]'"):
        await connect("ws://localhost/", proxy="socks5h://127.0.0.1:1")
