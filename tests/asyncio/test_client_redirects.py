"""Redirects of the opening handshake: which are followed, how many, and what is told to whom.

What must not live here: other answers than redirects (test_client_errors).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.asyncio.ends import echo
from tests.support.rawpeer import RawServer, ServerPeer
from tidegate.asyncio.client import connect, unix_connect
from tidegate.asyncio.server import ServerConnection, serve, unix_serve
from tidegate.datastructures import Headers
from tidegate.exceptions import InvalidStatus, InvalidURI, SecurityError
from tidegate.http11 import Request, Response


def redirecting(location: str, status: int = 302, path: str = "/old") -> Any:
    """A process_request that sends clients of one path elsewhere."""

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != path:
            return None
        response = connection.respond(status, "")
        response.headers["Location"] = location
        return response

    return process_request


def uri_of(server: Any, path: str = "/", scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int) -> None:
    async with (
        serve(echo, "127.0.0.1", 0, process_request=redirecting("/new?x=1", status)) as server,
        connect(uri_of(server, "/old")) as websocket,
    ):
        assert websocket.request is not None
        assert websocket.request.path == "/new?x=1"
        await websocket.send("hello")
        assert await websocket.recv() == "hello"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {}),
        (304, {"Location": "/new"}),
        (201, {"Location": "/new"}),
        (302, [("Location", "/a"), ("Location", "/b")]),
    ],
)
async def test_what_is_no_redirect(status: int, headers: Any) -> None:
    async def process_request(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(status, "")
        response.headers.update(headers)
        return response

    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        with pytest.raises(InvalidStatus) as raised:
            await connect(uri_of(server, "/old"))
        assert raised.value.response.status_code == status


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://localhost/", "scheme isn't ws or wss"),
        ("/#here", "fragment identifier is meaningless"),
        ("ws://:80/", "hostname isn't provided"),
    ],
)
async def test_a_location_that_is_no_websocket_uri(location: str, message: str) -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting(location)) as server:
        with pytest.raises(InvalidURI, match=message):
            await connect(uri_of(server, "/old"))


async def chain(peer: ServerPeer, length: int) -> None:
    """Redirect from /0 to /1 and so on, `length` times."""
    number = int((await peer.request()).line.split(" ")[1][1:])
    if number < length:
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % (number + 1))
    else:
        peer.switch()
        await peer.rest()


async def test_ten_redirects_and_no_more() -> None:
    async with RawServer(lambda peer: chain(peer, 10)) as server:
        websocket = await connect(server.uri + "0", close_timeout=0)
        assert websocket.request is not None
        assert websocket.request.path == "/10"
        await websocket.close()
    async with RawServer(lambda peer: chain(peer, 1000)) as server:
        with pytest.raises(SecurityError, match=r"^more than 10 redirects$"):
            await connect(server.uri + "0")
        assert len(server.peers) == 11


async def test_the_timeout_is_one_for_all_of_them() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(handler) as server:
        with pytest.raises(TimeoutError, match="timed out during opening handshake"):
            await connect(server.uri, open_timeout=0.12)


# To another origin

HEADERS = [("Authorization", "Bearer x"), ("Cookie", "a=b"), ("Proxy-Authorization", "y"), ("X-Mine", "z")]


async def told(location: str, other: Any, **kwargs: Any) -> Headers:
    """The headers that the server at the end of a redirect gets."""
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting(location)) as server:
        uri = uri_of(server, "/old").replace("//", "//user:pass@")
        async with connect(uri, additional_headers=HEADERS, **kwargs):
            (connection,) = (other or server).connections
            assert connection.request is not None
            return connection.request.headers


async def test_credentials_stay_with_their_origin() -> None:
    async with serve(echo, "127.0.0.1", 0) as other:
        headers = await told(uri_of(other), other)
    assert headers["X-Mine"] == "z"
    assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(headers)
    headers = await told("/new", None)
    assert headers.get_all("Authorization") == ["Bearer x"], "the caller's, in the place of that of the URI"
    assert headers["Cookie"] == "a=b"


async def test_credentials_are_sent_again_to_the_origin_they_are_for() -> None:
    """Each attempt of a connector begins where it was told to, with what it was given."""
    async with (
        serve(echo, "127.0.0.1", 0) as other,
        serve(echo, "127.0.0.1", 0, process_request=redirecting(uri_of(other))) as server,
    ):
        connector = connect(uri_of(server, "/old"), additional_headers={"Cookie": "a=b"})
        async with connector:
            assert len(other.connections) == 1
        server._settings.process_request = None  # a server that has changed its mind
        async with connector:
            (connection,) = server.connections
            assert connection.request is not None
            assert connection.request.path == "/old"
            assert connection.request.headers["Cookie"] == "a=b"


async def test_from_plain_to_tls(server_tls: ssl.SSLContext, monkeypatch: Any, authority: Any, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # whom the system trusts
    async with serve(echo, "127.0.0.1", 0, ssl=server_tls) as other:
        headers = await told(uri_of(other, scheme="wss"), other)
    assert "Cookie" not in headers


async def test_from_plain_to_tls_that_was_ruled_out() -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting("wss://127.0.0.1:1/")) as server:
        with pytest.raises(ValueError, match=r"^ssl=None is incompatible with a wss:// URI$"):
            await connect(uri_of(server, "/old"), ssl=None)


async def test_from_tls_to_plain_raises(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    redirect = redirecting("ws://127.0.0.1:1/")
    async with serve(echo, "127.0.0.1", 0, process_request=redirect, ssl=server_tls) as server:
        with pytest.raises(
            SecurityError, match=r"^cannot follow redirect to non-secure URI ws://127.0.0.1:1/$"
        ) as raised:
            await connect(uri_of(server, "/old", "wss"), ssl=client_tls)
        assert isinstance(raised.value.__cause__, InvalidStatus)


@pytest.mark.parametrize("explicit", ["host", "port"])
async def test_an_explicit_host_or_port(explicit: str) -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting("/new")) as server:
        port = server.sockets[0].getsockname()[1]
        kwargs: dict[str, Any] = {"host": "127.0.0.1"} if explicit == "host" else {"port": port}
        async with connect(f"ws://localhost:{port}/old", **kwargs) as websocket:  # the same origin is all right
            assert websocket.request is not None
            assert websocket.request.path == "/new"
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting("ws://other.invalid/")) as server:
        message = r"^cannot follow cross-origin redirect to ws://other.invalid/ with an explicit host or port$"
        kwargs = {"host": "127.0.0.1"} if explicit == "host" else {"port": server.sockets[0].getsockname()[1]}
        with pytest.raises(ValueError, match=message):
            await connect(uri_of(server, "/old"), **kwargs)


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with (
        unix_serve(echo, tmp_path / "s", process_request=redirecting("/new")),
        unix_connect(tmp_path / "s", "ws://localhost/old") as websocket,
    ):
        assert websocket.request is not None
        assert websocket.request.path == "/new"
    async with unix_serve(echo, tmp_path / "t", process_request=redirecting("ws://other.invalid/")):
        message = r"^cannot follow cross-origin redirect to ws://other.invalid/ with a Unix socket$"
        with pytest.raises(ValueError, match=message):
            await unix_connect(tmp_path / "t", "ws://localhost/old")


async def test_a_socket_of_the_callers() -> None:
    async with serve(echo, "127.0.0.1", 0, process_request=redirecting("/new")) as server:
        with contextlib.closing(socket.create_connection(server.sockets[0].getsockname())) as sock:
            uri = uri_of(server, "/new")
            with pytest.raises(ValueError, match=f"^cannot follow redirect to {uri} with a preexisting socket$"):
                await connect(uri_of(server, "/old"), sock=sock)


# As one pleases


async def test_process_redirect_may_be_overridden() -> None:
    class Staying(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    class Going(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            assert isinstance(exc, InvalidStatus)
            return self.uri.replace("old", "new") if exc.response.status_code == 503 else super().process_redirect(exc)

    async with serve(echo, "127.0.0.1", 0, process_request=redirecting("/new")) as server:
        with pytest.raises(InvalidStatus):
            await Staying(uri_of(server, "/old"))
    async with (
        serve(echo, "127.0.0.1", 0, process_request=redirecting("/new", 503)) as server,
        Going(uri_of(server, "/old")) as websocket,
    ):
        assert websocket.request is not None
        assert websocket.request.path == "/new"
