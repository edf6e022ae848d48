"""HTTP of ASGI applications: what comes over the wire, one request after the other, and how connections end.

uvicorn's protocol does it, whose inner parts HttpConnection uses: that every release which pyproject.toml allows still
has them is what these tests show. What must not live here: WebSocket (test_asgi.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.asyncio.calls import AsgiServing, asgi_serving
from tests.support import wire
from tests.support.coroutines import until
from tests.support.harness import ROOT
from tests.support.patience import PATIENCE
from tests.support.rawpeer import REQUEST, ClientPeer
from tidegate._core.counters import Row
from tidegate._core.writer import slow_connections
from tidegate.asyncio.admission import Admission
from tidegate.asyncio.asgi import serve_asgi
from tidegate.asyncio.http_service import HttpService
from tidegate.asyncio.options import ProcessPolicy
from tidegate.asyncio.server import serve
from tidegate.http11 import MAX_HEAD_SIZE
from tidegate.limits import Limiter
from tidegate.networks import Networks
from tidegate.worker.self_metrics import record_send_queues


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Tell what was asked, as JSON; by the path something else."""
    body = b""
    if scope["path"] != "/unread":
        while (event := await receive()).get("more_body"):
            body += event["body"]
        body += event.get("body", b"")
    if scope["path"] == "/fail":
        raise ZeroDivisionError
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body"})
        return
    names = ("method", "path", "root_path", "scheme", "client", "server", "http_version", "state")
    told = {name: scope[name] for name in names}
    content = json.dumps(told | {"body": body.decode()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def response(peer: ClientPeer, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """The next response on a connection that may be kept."""
    async with asyncio.timeout(PATIENCE):
        head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        if method == "HEAD":
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await peer.reader.readuntil(b"\r\n"), 16):
                body += (await peer.reader.readexactly(size + 2))[:-2]
            await peer.reader.readexactly(2)
        else:
            body = await peer.reader.readexactly(int(headers.get("content-length", "0")))
    return int(status.split()[1]), headers, body


def ask(path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def told(made: AsgiServing, request: bytes) -> dict[str, Any]:
    peer = await made.raw()
    peer.send(request)
    status, _, body = await response(peer)
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def test_the_range_of_uvicorn_has_the_one_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = map(Requirement, project["optional-dependencies"]["asgi"])
    assert version("uvicorn") in found.specifier
    assert {sign.operator for sign in found.specifier} == {">=", "<"}


# Requests and responses


async def test_a_request_is_told_and_answered() -> None:
    async with asgi_serving(application, root_path="/api", state={"key": 1}) as made:
        peer = await made.raw()
        peer.send(ask("/a%20b?c=d"))
        status, headers, body = await response(peer)
        assert status == 200
        assert headers["server"].startswith("Python/")
        assert headers["date"].endswith(" GMT")
        assert json.loads(body) == {
            "method": "GET",
            "path": "/api/a b",
            "root_path": "/api",
            "scheme": "http",
            "client": list(peer.writer.get_extra_info("sockname")),
            "server": list(peer.writer.get_extra_info("peername")),
            "http_version": "1.1",
            "state": {"key": 1},
            "body": "",
        }


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX])
async def test_addresses(family: int, tmp_path: Path) -> None:
    """A host and a port, whatever else an address has; a server on a Unix socket has its path, and its clients none."""
    with socket.socket(family) as listening:
        listening.bind(("::1", 0) if family == socket.AF_INET6 else str(tmp_path / "socket"))
        async with serve_asgi(application, sock=listening, http=HttpService(application, state={})):
            client = socket.socket(family)
            client.connect(listening.getsockname())
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                body = (await reader.read()).partition(b"\r\n\r\n")[2]
            expected: Any = [list(end.getsockname()[:2]) for end in (listening, client)]
            if family == socket.AF_UNIX:
                expected = [[listening.getsockname(), None], None]
            writer.close()
            told = json.loads(body)
            assert [told["server"], told["client"]] == expected


async def test_headers_are_told_without_the_space_around_them() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(b"GET / HTTP/1.1\r\nHost: a \r\nX-Two:\t a b\t \r\nX-None: \r\nx-two:c\r\n\r\n")
        assert call.scope["headers"] == [(b"host", b"a"), (b"x-two", b"a b"), (b"x-none", b""), (b"x-two", b"c")]
        peer.close()


async def test_one_connection_carries_many_requests() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        for number in range(5):
            peer.send(ask(f"/{number}", "POST", b"x" * number * 1000))
            _, _, body = await response(peer)
            assert json.loads(body)["body"] == "x" * number * 1000
        peer.send(ask("/a"), ask("/b"), ask("/c"))
        assert [json.loads((await response(peer))[2])["path"] for _ in range(3)] == ["/a", "/b", "/c"]


async def test_a_body_in_pieces_and_chunks() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-")
        peer.send(b"Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.01)
        peer.send(b"2\r\nde\r\n0\r\n\r\n")
        assert json.loads((await response(peer))[2])["body"] == "abcde"


async def test_a_large_body_is_read_as_fast_as_the_application_asks() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/", "POST", bytes(5_000_000)))
        await asyncio.sleep(0.05)
        size, more = 0, True
        while more:
            event = await call.receive()
            size, more = size + len(event["body"]), event["more_body"]
            assert len(event["body"]) < 1_000_000
        assert size == 5_000_000
        await call.send({"type": "http.response.start", "status": 204})
        await call.send({"type": "http.response.body"})
        assert (await response(peer))[0] == 204


async def test_a_response_is_streamed() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/"))
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b"now", "more_body": True})
        async with asyncio.timeout(PATIENCE):
            assert (await peer.reader.readuntil(b"now\r\n")).startswith(b"HTTP/1.1 200 ")
        await call.send({"type": "http.response.body"})
        await call.finish()


async def test_a_response_is_sent_before_what_the_application_does_then() -> None:
    """Work without an await, as a background task of a framework may be, does not keep the client waiting."""
    arrived = threading.Event()
    before: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        before.append(arrived.wait(PATIENCE))

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(ask("/"))
            assert sock.recv(1000).startswith(b"HTTP/1.1 204 ")
            arrived.set()

    async with asgi_serving(application) as made:
        await asyncio.to_thread(client, made.port)
    assert before == [True]


async def test_an_application_that_asks_on_after_the_end_does_not_stop_the_others() -> None:
    asked, others = 0, asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        if scope["path"] == "/other":
            others.set()
        while not others.is_set() and asked < 100_000:
            asked += (await receive())["type"] == "http.disconnect"

    async with asgi_serving(application) as made:
        for path in ("/", "/other"):
            peer = await made.raw()
            peer.send(ask(path))
            assert (await response(peer))[0] == 204
    assert 0 < asked < 100_000


async def test_head_and_100_continue() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(ask("/", "HEAD"))
        status, headers, _ = await response(peer, "HEAD")
        assert (status, int(headers["content-length"]) > 0) == (200, True)
        peer.send(ask("/", "POST", Expect="100-continue", Content_Length="2"))
        async with asyncio.timeout(PATIENCE):
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"ok")
        assert json.loads((await response(peer))[2])["body"] == "ok"


async def test_http_1_0_and_connection_close() -> None:
    async with asgi_serving(application) as made:
        for request in (b"GET / HTTP/1.0\r\n\r\n", ask("/", Connection="close")):
            peer = await made.raw()
            peer.send(request)
            assert (await response(peer))[0] == 200
            await peer.end()


async def test_an_application_that_fails_is_500(log: pytest.LogCaptureFixture, row: Row) -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(ask("/fail"))
        assert (await response(peer))[0] == 500
    assert "Exception in ASGI application" in log.text
    assert row.words("http_requests")[:5] == (0, 0, 0, 0, 1)


async def test_a_client_that_leaves_is_told_and_counted(row: Row) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/"))
        assert (await call.receive())["type"] == "http.request"
        peer.reset()
        assert await call.receive() == {"type": "http.disconnect"}
        await call.send({"type": "http.response.start", "status": 200})
        await call.finish()
    assert row.words("http_requests")[:5] == (0, 1, 0, 0, 0)


# What limits a head


@pytest.mark.parametrize("later", [False, True])
async def test_a_head_without_end(later: bool) -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        if later:
            peer.send(ask())
            await response(peer)
        peer.send(
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            *(b"X-%d: %s\r\n" % (i, b"x" * 4000) for i in range(MAX_HEAD_SIZE // 2000)),
        )
        assert b" 431 " in await peer.rest()


async def test_a_head_that_does_not_come_is_408() -> None:
    async with asgi_serving(application, open_timeout=0.1) as made:
        peer = await made.raw()
        peer.send(ask())
        await response(peer)
        peer.send(b"GET / HTTP/1.1\r\nHost")
        assert (await peer.rest()).startswith(b"HTTP/1.1 408 ")


async def test_nonsense_is_400() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n")
        assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
        peer = await made.raw()
        peer.send(ask())
        await response(peer)
        peer.send(b"\x00\x01\r\n\r\n")
        assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "pipelined",
    [
        b"GET / HTTP/1.1\r\nHost",
        b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"x" * 4000) * (MAX_HEAD_SIZE // 2000),
        b"\x00\x01\r\n\r\n",
        REQUEST,
    ],
    ids=["a part", "too much", "nonsense", "upgrade"],
)
async def test_what_comes_too_early_does_not_cut_the_response(pipelined: bytes) -> None:
    async with asgi_serving(open_timeout=0.1) as made:
        peer, call = await made.asked(ask())
        await call.send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await call.send({"type": "http.response.body", "body": b"a", "more_body": True})
        await peer.reader.readuntil(b"\r\n\r\na")
        (connection,) = made.server._registry.http
        peer.send(pipelined)
        await until(lambda: connection._refused)
        peer.send(ask("/too-late"))
        await call.send({"type": "http.response.body", "body": b"b"})
        await call.finish()
        assert await peer.rest() == b"b"
        assert made.calls.empty()


async def test_a_broken_body_is_400_unless_the_response_has_begun() -> None:
    broken = ask("/", "POST", Transfer_Encoding="chunked") + b"no size\r\n"
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(broken)
        assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/", "POST", Transfer_Encoding="chunked"))
        await call.send({"type": "http.response.start", "status": 200})
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        peer.send(b"no size\r\n")
        assert await peer.rest() == b""


async def test_limits_of_connections_count_it(row: Row) -> None:
    limiter = Limiter(connections=None, of_all=lambda: 0, per_address=1, rate=None, burst=None, workers=1)
    policy = ProcessPolicy(Admission(limiter, trusted=Networks(())))
    async with asgi_serving(application, policy=policy) as made:
        first = await made.raw()
        first.send(ask())
        assert (await response(first))[0] == 200
        second = await made.raw()
        second.send(ask())
        assert (await response(second))[0] == 429
        first.close()
        await until(lambda: not made.server._registry.http)
        third = await made.raw()
        third.send(ask())
        assert (await response(third))[0] == 200


async def test_bytes_that_wait_for_a_slow_client_are_recorded(row: Row) -> None:
    async with asgi_serving() as made:
        peer = await made.raw(4096)
        peer.send(ask())
        call = await made.call()
        await call.send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        (connection,) = made.server._registry.http
        while connection not in slow_connections:
            await call.send({"type": "http.response.body", "body": bytes(2**17), "more_body": True})
            await asyncio.sleep(0)
        record_send_queues(row)
        assert row.words("send_queue_connections") == (1,)
        assert row.words("send_queue_bytes")[0] >= 2**16
        sending = asyncio.ensure_future(call.send({"type": "http.response.body"}))
        assert (await peer.rest()).endswith(b"0\r\n\r\n")
        await sending
        await call.finish()
        record_send_queues(row)
        assert row.words("send_queue_connections") == row.words("send_queue_bytes") == (0,)


# Proxies


@contextlib.asynccontextmanager
async def behind_a_proxy(header: str = "x-forwarded-for") -> AsyncIterator[AsgiServing]:
    limiter = Limiter(connections=None, of_all=lambda: 0, per_address=None, rate=None, burst=None, workers=1)
    policy = ProcessPolicy(Admission(limiter, trusted=Networks(["127.0.0.0/8"]), header=header))
    async with asgi_serving(application, policy=policy) as made:
        yield made


async def test_a_trusted_proxy_tells_the_client_of_each_request() -> None:
    async with behind_a_proxy() as made:
        peer = await made.raw()
        for client, scheme in (("192.0.2.1", "https"), ("192.0.2.2", "http")):
            peer.send(ask("/", X_Forwarded_For=client, X_Forwarded_Proto=scheme))
            found = json.loads((await response(peer))[2])
            assert (found["client"][0], found["scheme"]) == (client, scheme)


async def test_forwarded_tells_both() -> None:
    async with behind_a_proxy("forwarded") as made:
        found = await told(made, ask("/", Forwarded='for="192.0.2.7:80";proto=https', X_Forwarded_For="192.0.2.9"))
        assert (found["client"], found["scheme"]) == (["192.0.2.7", 80], "https")


async def test_others_are_not_believed() -> None:
    async with asgi_serving(application) as made:
        found = await told(made, ask("/", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https"))
        assert (found["client"][0], found["scheme"]) == ("127.0.0.1", "http")


# WebSocket beside


async def test_an_upgrade_on_a_connection_that_was_kept(row: Row) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/first"))
        await call.send({"type": "http.response.start", "status": 204})
        await call.send({"type": "http.response.body"})
        await call.finish()
        await response(peer)
        peer.send(REQUEST)
        call = await made.call()
        assert call.scope["type"] == "websocket"
        await call.accept()
        async with asyncio.timeout(PATIENCE):
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        peer.send(wire.frame(b"x"))
        assert (await call.receive())["text"] == "x"
        assert row.words("connections_open") == (1,)
        assert row.words("connections_http") == (0,)
    assert row.words("connections_accepted") == (1,)
    assert row.words("connections_handshaking") == row.words("connections_open") == (0,)


async def test_other_upgrades_are_ordinary_requests() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(ask("/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__"))
        assert (await response(peer))[0] == 200


async def test_http_beside_a_handler() -> None:
    async def handler(websocket: Any) -> None:
        await websocket.send("native")

    http = HttpService(application, state={})
    async with serve(handler, "127.0.0.1", 0, http=http) as server:
        made = AsgiServing(server, asyncio.Queue())
        peer = await made.raw()
        peer.send(ask("/page"))
        assert json.loads((await response(peer))[2])["path"] == "/page"
        await peer.handshake()
        assert await peer.frame() == (0x81, b"native")
        other = await made.peer()
        assert await other.frame() == (0x81, b"native")
        for each in made.peers:
            each.close()


# The end


async def test_idle_connections_end_with_the_server_and_busy_ones_after_their_response(row: Row) -> None:
    async with asgi_serving() as made:
        idle, call = await made.asked(ask("/idle"))
        await call.send({"type": "http.response.start", "status": 204})
        await call.send({"type": "http.response.body"})
        await call.finish()
        await response(idle)
        busy, call = await made.asked(ask("/busy"))
        assert row.words("connections_http") == (2,)
        made.server.close()
        await idle.end()
        await call.send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await call.send({"type": "http.response.body", "body": b"ok"})
        await call.finish()
        status, headers, body = await response(busy)
        assert (status, headers["connection"], body) == (200, "close", b"ok")
        await busy.end()
    assert row.words("connections_http") == (0,)
    assert row.words("http_requests")[:5] == (0, 2, 0, 0, 0)


@pytest.mark.parametrize("begun", [False, True])
async def test_the_server_cancels_it_without_a_complaint(begun: bool, log: pytest.LogCaptureFixture, row: Row) -> None:
    """As at the end of a worker: what it was in the middle of is no failure of the application."""
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/"))
        if begun:
            await call.send({"type": "http.response.start", "status": 200})
            await call.send({"type": "http.response.body", "body": b"x", "more_body": True})
            await peer.reader.readuntil(b"x\r\n")
        (task,) = made.server.handler_tasks
        task.cancel("the worker ends")
        with contextlib.suppress(ConnectionError):
            assert await peer.reader.read() == b""
        await asyncio.wait([task])
    assert "ASGI" not in log.text
    assert row.words("http_requests")[:5] == (0, int(begun), 0, 0, int(not begun))


async def test_an_application_that_cancels_itself_has_failed(log: pytest.LogCaptureFixture) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(ask("/"))
        await call.finish(asyncio.CancelledError())
        assert (await response(peer))[0] == 500
    assert "Exception in ASGI application" in log.text


async def test_a_request_that_waits_in_the_socket_is_answered_before_the_end() -> None:
    async with asgi_serving(application) as made:
        peer = await made.raw()
        peer.send(ask("/1"))
        await response(peer)
        (connection,) = made.server._registry.http
        connection.transport.pause_reading()
        peer.send(ask("/2"))
        await until(connection._has_more)
        made.server.reject_handshakes()
        connection.transport.resume_reading()
        _, headers, body = await response(peer)
        assert json.loads(body)["path"] == "/2"
        assert headers["connection"] == "close"
        await peer.end()


async def test_an_idle_connection_is_kept_for_a_time() -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    http = HttpService(hello, state={}, keep_alive=0.05)
    async with serve(hello, "127.0.0.1", 0, http=http) as server:
        made = AsgiServing(server, asyncio.Queue())
        peer = await made.raw()
        peer.send(ask())
        await response(peer)
        await peer.end()
        peer.close()


async def test_requests_are_logged_like_handshakes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tidegate.access"):
        async with asgi_serving(application) as made:
            await told(made, ask("/logged?token=secret", User_Agent="probe"))
    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (record.method, record.status, record.user_agent) == ("GET", 200, "probe")  # type: ignore[attr-defined]
    assert record.path.startswith("/logged?")  # type: ignore[attr-defined]
    assert "secret" not in record.path  # type: ignore[attr-defined]


async def test_the_target_is_logged_as_it_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Not decoded: it could have a line feed, or a sign that the client has not sent as such."""

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        scope |= {"path": "/inner", "root_path": "/api/mount"}  # as routers do
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with caplog.at_level("INFO", "tidegate.access"):
        async with asgi_serving(mounted, root_path="/api") as made:
            peer = await made.raw()
            for target in ("/a%0Ab%3Fc%C3%A9?x=%0d", "/api/a"):
                peer.send(ask(target))
                await response(peer)
    logged = [record.path for record in caplog.records if record.getMessage() == "request"]  # type: ignore[attr-defined]
    assert logged == ["/a%0Ab%3Fc%C3%A9?x=%0d", "/api/a"]
