"""The client against real servers: ours, the `websockets` library's, and raw ones for what neither does.

What must not live here: failures to connect (test_client_errors), redirects, reconnecting, ways to a server
(test_dialer, test_tunnel).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import websockets.asyncio.server

import tidegate
from tests.asyncio.ends import echo
from tests.support.rawpeer import RawServer, ServerPeer
from tests.support.wire import frame
from tidegate import ConnectionClosedError, ConnectionClosedOK, Headers, State
from tidegate._core.counters import Row
from tidegate.asyncio.client import ClientConnection, connect
from tidegate.asyncio.server import ServerConnection, serve
from tidegate.extensions.base import ClientExtensionFactory, Extension, ServerExtensionFactory
from tidegate.frames import Frame, Opcode
from tidegate.http11 import USER_AGENT


@pytest.fixture(params=["tidegate", "websockets"])
def serve_any(request: pytest.FixtureRequest) -> Any:
    """`serve` of ours, or of the library whose API we have."""
    return serve if request.param == "tidegate" else websockets.asyncio.server.serve


def uri_of(server: Any, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


# Messages


async def test_messages_come_back(serve_any: Any) -> None:
    async with serve_any(echo, "127.0.0.1", 0, max_size=None) as server, connect(uri_of(server)) as websocket:
        for message in ("hello", "", "Grüße 🌊", b"", b"\x00\xff", "a" * 125, b"b" * 126, "c" * 65536, b"d" * 300_000):
            await websocket.send(message)
            assert await websocket.recv() == message
        await websocket.send(["frag", "men", "ted"])
        assert await websocket.recv() == "fragmented"
        assert await (await websocket.ping()) >= 0
    assert (websocket.close_code, websocket.close_reason) == (1000, "")


async def test_many_messages_in_flight(serve_any: Any) -> None:
    async with serve_any(echo, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:

        async def produce() -> None:
            for number in range(500):
                await websocket.send(str(number))
            await websocket.send("end")

        producer = asyncio.create_task(produce())
        received = [message async for message in until_end(websocket)]
        await producer
    assert received == [str(number) for number in range(500)]


async def until_end(websocket: ClientConnection) -> Any:
    while (message := await websocket.recv()) != "end":
        yield message


async def test_what_comes_with_the_response_is_received() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        with peer.at_once():
            peer.switch()
            peer.message(b"early")
            peer.message((1001).to_bytes(2, "big") + b"bye", 8)
        assert await peer.frame() == (0x88, (1001).to_bytes(2, "big") + b"bye")

    async with RawServer(handler) as server, connect(server.uri) as websocket:
        assert await websocket.recv() == "early"
        with pytest.raises(ConnectionClosedOK, match=r"^received 1001 \(going away\) bye; then sent 1001"):
            await websocket.recv()


async def test_a_masked_frame_of_a_server_fails_the_connection() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        peer.send(frame(b"hello", mask=b"1234"))
        assert await peer.frame() == (0x88, (1002).to_bytes(2, "big") + b"incorrect masking")
        # What comes after is not even read, and it is for the server to end the connection.
        peer.message((1000).to_bytes(2, "big"), 8)

    async with RawServer(handler) as server, connect(server.uri) as websocket:
        with pytest.raises(ConnectionClosedError) as raised:
            await websocket.recv()
        assert str(raised.value) == "sent 1002 (protocol error) incorrect masking; no close frame received"


# The opening handshake


async def test_the_request() -> None:
    seen: list[ServerPeer] = []

    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        seen.append(peer)
        await peer.frame()

    async with RawServer(handler) as server:
        uri = server.uri.replace("127", "user:p%40ss@127") + "path?query=1"
        async with connect(
            uri,
            origin="https://example.com",  # type: ignore[arg-type]
            subprotocols=["chat", "superchat"],  # type: ignore[list-item]
            additional_headers=[("X-One", "1"), ("X-One", "2")],
            close_timeout=0,
        ) as websocket:
            assert websocket.request is not None
            assert websocket.request.path == "/path?query=1"
    (peer,) = seen
    assert peer.line == "GET /path?query=1 HTTP/1.1"
    key = peer.header("Sec-WebSocket-Key")
    assert peer.headers == [
        ("Host", f"127.0.0.1:{server.port}"),
        ("Authorization", "Basic dXNlcjpwQHNz"),
        ("Origin", "https://example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
        *([("Sec-WebSocket-Extensions", value)] if (value := peer.header("Sec-WebSocket-Extensions")) else []),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("X-One", "1"),
        ("X-One", "2"),
        ("User-Agent", USER_AGENT),
    ]
    assert list(websocket.request.headers.raw_items()) == peer.headers


@pytest.mark.parametrize(
    ("kwargs", "value"),
    [
        ({"user_agent_header": "Mine"}, "Mine"),
        ({"user_agent_header": None}, None),
        ({"additional_headers": {"User-Agent": "Given"}}, "Given"),
    ],
)
async def test_the_user_agent(kwargs: Any, value: str | None) -> None:
    async with serve(echo, "127.0.0.1", 0) as server, connect(uri_of(server), **kwargs) as websocket:
        (seen,) = server.connections
        assert seen.request is not None
        assert seen.request.headers.get("User-Agent") == value
        assert websocket.request == seen.request


async def test_each_key_is_new() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        connections = [await connect(uri_of(server)) for _ in range(3)]
        keys = {websocket.request.headers["Sec-WebSocket-Key"] for websocket in connections if websocket.request}
        assert len(keys) == 3
        for websocket in connections:
            await websocket.close()


async def test_the_response() -> None:
    async with serve(echo, "127.0.0.1", 0, server_header="Mine") as server, connect(uri_of(server)) as websocket:
        assert websocket.response is not None
        assert websocket.response.status_code == 101
        assert websocket.response.headers["Server"] == "Mine"


async def test_a_subprotocol(serve_any: Any) -> None:
    async with (
        serve_any(echo, "127.0.0.1", 0, subprotocols=["superchat", "chat"]) as server,
        connect(uri_of(server), subprotocols=["other", "chat"]) as websocket,  # type: ignore[list-item]
    ):
        assert websocket.subprotocol == "chat"
    async with serve_any(echo, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        assert websocket.subprotocol is None


class Shout(Extension):
    name = "x-shout"  # type: ignore[assignment]

    def __init__(self, times: str | None) -> None:
        self.times = times

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        frame.data = bytes(frame.data).lower()
        return frame

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode is Opcode.TEXT:
            frame.data = bytes(frame.data).upper()
        return frame


class ClientShout(ClientExtensionFactory):
    name = "x-shout"  # type: ignore[assignment]

    def __init__(self, times: str) -> None:
        self.times = times

    def get_request_params(self) -> Sequence[tuple[str, str | None]]:
        return [("times", self.times)]

    def process_response_params(
        self, params: Sequence[tuple[str, str | None]], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        if params != [("times", self.times)]:
            raise tidegate.NegotiationError("other times")
        return Shout(self.times)


class ServerShout(ServerExtensionFactory):
    name = "x-shout"  # type: ignore[assignment]

    def process_request_params(
        self, params: Sequence[tuple[str, str | None]], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[tuple[str, str | None]], Extension]:
        if params != [("times", "2")]:
            raise tidegate.NegotiationError("not twice")
        return list(params), Shout("2")


async def test_a_custom_extension_is_negotiated() -> None:
    async with (
        serve(echo, "127.0.0.1", 0, extensions=[ServerShout()], compression=None) as server,
        connect(uri_of(server), extensions=[ClientShout("3"), ClientShout("2")], compression=None) as websocket,
    ):
        assert websocket.request is not None
        assert websocket.request.headers["Sec-WebSocket-Extensions"] == "x-shout; times=3, x-shout; times=2"
        (extension,) = websocket.extensions
        assert isinstance(extension, Shout)
        assert extension.times == "2"
        assert websocket.protocol.extensions == websocket.extensions
        await websocket.send("Hello")
        assert await websocket.recv() == "hello"


# The closing handshake (RFC 6455 section 7)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "gone"), (3000, "Grüße"), (4999, "x" * 123)])
async def test_the_client_closes(serve_any: Any, code: int, reason: str) -> None:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(websocket: Any) -> None:
        await websocket.wait_closed()
        ended.set_result((websocket.close_code, websocket.close_reason))

    async with serve_any(handler, "127.0.0.1", 0) as server:
        websocket = await connect(uri_of(server))
        assert websocket.state is State.OPEN
        await websocket.close(code, reason)
        assert websocket.state is State.CLOSED
        assert (websocket.close_code, websocket.close_reason) == (code, reason) == await ended
        await websocket.close()
        with pytest.raises(tidegate.ConnectionClosed) as raised:
            await websocket.send("too late")
        assert raised.value.rcvd_then_sent is False


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1011, ""), (4000, "mine")])
async def test_the_server_closes(serve_any: Any, code: int, reason: str) -> None:
    async def handler(websocket: Any) -> None:
        await websocket.send("last words")
        await websocket.close(code, reason)

    async with serve_any(handler, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        assert await websocket.recv() == "last words"
        expected = ConnectionClosedOK if code == 1000 else ConnectionClosedError
        with pytest.raises(expected) as raised:
            await websocket.recv()
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (code, reason)
        assert raised.value.rcvd_then_sent is True


async def test_leaving_by_an_exception_sends_1011() -> None:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.wait_closed()
        ended.set_result(websocket.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(ZeroDivisionError):
            async with connect(uri_of(server)):
                raise ZeroDivisionError
        assert await ended == 1011


async def test_the_client_waits_for_the_server_to_end_the_stream() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        first, payload = await peer.frame()
        assert (first, payload) == (0x88, b"\x03\xe8")
        peer.message(payload, 8)
        with pytest.raises(TimeoutError):  # nothing comes, and no end either
            await asyncio.wait_for(peer.reader.read(1), 0.1)
        assert websocket.state is State.CLOSING
        assert not closing.done()

    async with RawServer(handler) as server:
        websocket = await connect(server.uri)
        closing = asyncio.create_task(websocket.close())
        await closing
    assert (websocket.state, websocket.close_code) == (State.CLOSED, 1000)


async def test_a_server_that_does_not_end_the_stream_is_cut_off() -> None:
    cut = asyncio.get_running_loop().create_future()

    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        _, payload = await peer.frame()
        peer.message(payload, 8)
        cut.set_result(await peer.rest())

    async with RawServer(handler) as server:
        async with connect(server.uri, close_timeout=0.05) as websocket:
            pass
        assert (websocket.close_code, websocket.close_rcvd.code) == (1000, 1000)
        assert await cut == b""
        with pytest.raises(ConnectionClosedOK) as raised:
            await websocket.recv()
        assert isinstance(raised.value.__cause__, TimeoutError)


async def test_no_answer_to_a_close_frame_gives_1006() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        await peer.rest()

    async with RawServer(handler) as server:
        async with connect(server.uri, close_timeout=0.05) as websocket:
            pass
        assert (websocket.close_code, websocket.close_reason) == (1006, "")
        with pytest.raises(ConnectionClosedError, match=r"^sent 1000 \(OK\); no close frame received$"):
            await websocket.recv()


@pytest.mark.parametrize("abruptly", [False, True])
async def test_an_end_without_close_frames_gives_1006(abruptly: bool) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        peer.message(b"last")
        await peer.frame()
        if abruptly:  # a reset
            peer.reset()

    async with RawServer(handler) as server, connect(server.uri) as websocket:
        assert await websocket.recv() == "last"
        await websocket.send("go")
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$") as raised:
            await websocket.recv()
        assert isinstance(raised.value.__cause__, ConnectionResetError if abruptly else EOFError)
        assert websocket.close_code == 1006


async def test_data_before_the_close_frame_can_be_read_after_it() -> None:
    async def handler(websocket: ServerConnection) -> None:
        for number in range(16):
            await websocket.send(str(number))

    async with serve(handler, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        await websocket.wait_closed()
        assert [message async for message in websocket] == [str(number) for number in range(16)]


# Keepalive


async def test_keepalive_pings() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        first, payload = await peer.frame()
        assert (first, len(payload)) == (0x89, 4)
        peer.message(payload, 10)
        first, again = await peer.frame()
        assert first == 0x89
        assert again != payload
        peer.message(b"enough")
        await peer.rest()

    async with RawServer(handler) as server, connect(server.uri, ping_interval=0.02, close_timeout=0) as websocket:
        assert await websocket.recv() == "enough"
        assert websocket.latency > 0


async def test_no_pong_fails_the_connection() -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.open()
        assert (await peer.frame())[0] == 0x89
        assert await peer.frame() == (0x88, (1011).to_bytes(2, "big") + b"keepalive ping timeout")

    async with RawServer(handler) as server, connect(server.uri, ping_interval=0.02, ping_timeout=0.02) as websocket:
        with pytest.raises(ConnectionClosedError) as raised:
            await websocket.recv()
        assert str(raised.value) == "sent 1011 (internal error) keepalive ping timeout; no close frame received"


# Settings and surroundings


async def test_limits_apply() -> None:
    async def handler(websocket: ServerConnection) -> None:
        await websocket.send("x" * 65)
        await websocket.wait_closed()

    async with (
        serve(handler, "127.0.0.1", 0, compression=None) as server,
        connect(uri_of(server), max_size=64) as websocket,
    ):
        with pytest.raises(ConnectionClosedError) as raised:
            await websocket.recv()
        assert str(raised.value) == (
            "sent 1009 (message too big) frame with 65 bytes exceeds limit of 64 bytes; no close frame received"
        )
    async with serve(echo, "127.0.0.1", 0) as server:
        websocket = await connect(
            uri_of(server), ping_interval=None, ping_timeout=3, close_timeout=4, write_limit=(2048, 1024)
        )
        assert (websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout) == (None, 3, 4)
        assert websocket.transport.get_write_buffer_limits() == (1024, 2048)
        await websocket.close()


async def test_addresses_and_identity() -> None:
    async with serve(echo, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        (other,) = server.connections
        assert websocket.remote_address == other.local_address
        assert websocket.local_address == other.remote_address
        assert websocket.id != other.id
        assert websocket.state is State.OPEN


async def test_a_subclass_and_a_factory() -> None:
    class Mine(ClientConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.given = kwargs
            self.mine = True

    def factory(protocol: Any, **kwargs: Any) -> Mine:
        return Mine(protocol, **kwargs | {"ping_interval": 7})

    async with serve(echo, "127.0.0.1", 0) as server:
        async with connect(uri_of(server), create_connection=Mine, ping_timeout=5) as websocket:
            assert isinstance(websocket, Mine)
            assert websocket.mine
            assert websocket.given.keys() == {
                "ping_interval",
                "ping_timeout",
                "close_timeout",
                "max_queue",
                "write_limit",
            }
            assert (websocket.ping_interval, websocket.ping_timeout) == (20, 5)
        async with connect(uri_of(server), create_connection=factory) as websocket:
            assert websocket.ping_interval == 7
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
        with pytest.raises(TypeError, match="create_connection must make a ClientConnection, not 5"):
            await connect(uri_of(server), create_connection=lambda *_, **__: 5)  # type: ignore[arg-type,return-value]


async def test_attributes_may_be_set() -> None:
    async with serve(echo, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        websocket.anything = 1  # type: ignore[attr-defined]
        assert weakref.ref(websocket)() is websocket


async def test_a_connector_may_be_used_again_but_not_at_the_same_time() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        connector = connect(uri_of(server))
        for _ in range(2):
            async with connector as websocket:
                assert connector.connection is websocket
                with pytest.raises(RuntimeError, match=r"^connect\(\) isn't reentrant$"):
                    async with connector:
                        pass
            assert not hasattr(connector, "connection")
        one, other = await connector, await connector
        assert one is not other
        await one.close()
        await other.close()


async def test_tls(serve_any: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Messages of any size come back over TLS, from either server."""
    async with (
        serve_any(echo, "127.0.0.1", 0, ssl=server_tls) as server,
        connect(uri_of(server, "wss"), ssl=client_tls) as websocket,
    ):
        assert websocket.transport.get_extra_info("cipher")
        for message in ("hello", b"x" * 300_000):
            await websocket.send(message)
            assert await websocket.recv() == message
    assert websocket.close_code == 1000


async def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.client")
    async with serve(echo, "127.0.0.1", 0) as server:
        with caplog.at_level(logging.DEBUG, "tests.client"):
            async with connect(uri_of(server), logger=logger, compression=None) as websocket:
                await websocket.send("hello")
                await websocket.recv()
    lines = [record.getMessage() for record in caplog.records if record.name == "tests.client"]
    assert lines[0] == "> GET / HTTP/1.1"
    assert "> Upgrade: websocket" in lines
    assert "< HTTP/1.1 101 Switching Protocols" in lines
    assert "< Upgrade: websocket" in lines
    assert lines[-4:] == [
        "> TEXT 'hello' [5 bytes]",
        "< TEXT 'hello' [5 bytes]",
        "> CLOSE 1000 (OK) [2 bytes]",
        "< CLOSE 1000 (OK) [2 bytes]",
    ]
    assert {record.levelno for record in caplog.records if record.name == "tests.client"} == {logging.DEBUG}
    assert caplog.records[-1].websocket is websocket  # type: ignore[attr-defined]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        async with serve(echo, "127.0.0.1", 0) as server, connect(uri_of(server)):
            pass
    assert [record for record in caplog.records if record.name == "tidegate.client"] == []


async def test_clients_are_not_counted_as_connections_of_a_server(row: Row) -> None:
    async with serve(echo, "127.0.0.1", 0) as server, connect(uri_of(server)) as websocket:
        await websocket.send("hello")
        assert await websocket.recv() == "hello"
        assert await (await websocket.ping()) > 0
        assert row.words("connections_open") == (1,)
        assert sum(row.words("messages")) == 2
    assert sum(row.words("closes")) == 1
    assert sum(row.words("handshakes")) == 1
    assert row.words("connections_open") == row.words("connections_closing") == (0,)
    assert sum(row.words("ping_rtt")) == 0


async def test_nothing_is_left_behind() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        tasks = asyncio.all_tasks()
        async with connect(uri_of(server)) as websocket:
            await websocket.send("hello")
            await websocket.recv()
            assert len(asyncio.all_tasks() - tasks) == 1  # the server's handler
        ended = weakref.ref(websocket)
        del websocket
        while asyncio.all_tasks() != tasks:
            await asyncio.sleep(0)
        gc.collect()
        assert ended() is None


async def test_top_level_names() -> None:
    async with tidegate.serve(echo, "127.0.0.1", 0) as server, tidegate.connect(uri_of(server)) as websocket:
        assert isinstance(websocket, tidegate.ClientConnection)
        assert isinstance(websocket.response, tidegate.Response)
        assert isinstance(websocket.response.headers, Headers)
