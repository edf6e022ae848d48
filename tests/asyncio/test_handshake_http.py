"""What HTTP asks of an opening handshake and its answer: Host, HEAD, Connection: close, one of each header, lists.

What must not live here: what RFC 6455 asks of it (tests/asyncio/test_handshake.py, tests/test_server.py).
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.asyncio.ends import serving
from tests.asyncio.test_handshake import idle, request
from tests.support import wire
from tidegate.asyncio.server import ServerConnection
from tidegate.datastructures import Headers
from tidegate.http11 import Request, Response

HOOKED = [{}, {"process_request": lambda connection, request: connection.respond(200, "O.K.\n")}]


@pytest.mark.parametrize("options", HOOKED, ids=["plain", "hooked"])
async def test_hooks_are_not_asked_for_whom_a_request_is(options: dict[str, Any]) -> None:
    async with serving(idle, **options) as made:
        for lines in (b"", b"Host: a\r\nHost: b\r\n", b"Host: a/b\r\n"):
            status, _, body = await made.ask(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            assert status == 400
            assert "Host header" in body


async def test_http_1_0_may_leave_out_the_host() -> None:
    async with serving(idle, **HOOKED[1]) as made:
        assert (await made.ask(b"GET / HTTP/1.0\r\n\r\n"))[0] == 200
        assert (await made.ask(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"))[0] == 400


@pytest.mark.parametrize("host", ["[::1]", "[::1]:8765", "EXAMPLE.com:80", "a_b", "127.0.0.1"])
async def test_hosts(host: str) -> None:
    """Host headers with names, addresses and ports are accepted."""
    async with serving(idle) as made:
        await made.peer(request(Host=host))


@pytest.mark.parametrize(
    "sent",
    [
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nno colon\r\n",
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\n",
    ],
    ids=["405", "400", "405 of HTTP/1.0", "junk", "408"],
)
@pytest.mark.parametrize("options", [{}, {"process_response": lambda *_: None}], ids=["plain", "hooked"])
async def test_no_body_answers_head(options: dict[str, Any], sent: bytes, log: pytest.LogCaptureFixture) -> None:
    async with serving(idle, open_timeout=0.2, **options) as made:
        status, headers, body = await made.ask(sent)
    assert status in (400, 405, 408)
    assert int(headers["content-length"]) > 0, "that of the answer to GET (RFC 9110 9.3.2)"
    assert body == ""
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("connection", [[], ["keep-alive"], ["keep-alive", "x"]])
async def test_responses_of_hooks_say_that_the_connection_is_closed(connection: list[str]) -> None:
    page = Response(
        200, "OK", Headers([("Content-Length", "4"), *[("Connection", name) for name in connection]]), b"page"
    )

    async with serving(idle, process_request=lambda *_: page) as made:
        for _ in range(2):  # with the same object
            status, headers, body = await made.ask()
            assert (status, headers["connection"], body) == (200, "close", "page")
    assert page.headers.get_all("Connection") == ["close"]


async def test_headers_that_hooks_set_replace_ours() -> None:
    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ws":
            return None
        response = connection.respond(200, "<p>page")
        response.headers["Content-Type"] = "text/html"
        return response

    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        response.headers["Server"] = "mine"
        response.headers["Set-Cookie"] = "a=1"
        response.headers["Set-Cookie"] = "b=2"

    async with serving(idle, process_request=process_request, process_response=process_response) as made:
        for path in ("/page", "/ws"):
            peer = await made.raw()
            head = await peer.handshake(wire.request(path=path))
            lines = head.decode().split("\r\n")
            assert [line for line in lines if line.startswith("Server:")] == ["Server: mine"]
            assert [line for line in lines if line.startswith("Set-Cookie:")] == ["Set-Cookie: a=1", "Set-Cookie: b=2"]
            if path == "/page":
                assert [line for line in lines if line.startswith("Content-Type:")] == ["Content-Type: text/html"]


async def test_no_content() -> None:
    async with serving(idle, process_request=lambda connection, _: connection.respond(204, "")) as made:
        status, headers, body = await made.ask()
    assert (status, body) == (204, "")
    assert "content-length" not in headers


async def test_lists_are_bounded() -> None:
    many = ",".join(["x"] * 2000)
    async with serving(idle, compression="deflate") as made:
        for name in ("Connection", "Upgrade", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"):
            status, _, body = await made.ask(request(**{name.replace("-", "_"): many}))
            assert status == 400
            assert f"{name} header: more than 128 items" in body
            assert len(body) < 300
