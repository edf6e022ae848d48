"""Older forms: each does what it did, and its warning names today's form and the line that used it.

What must not live here: whole programs of their time (tests/samples).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
import warnings
from typing import Any

import pytest

import tidegate
import tidegate.client
import tidegate.connection
import tidegate.server
from tests.asyncio.ends import echo, serving
from tests.support.coroutines import outcome
from tidegate import _compat
from tidegate.app import App
from tidegate.asyncio.client import ClientConnection, connect
from tidegate.asyncio.connection import Connection
from tidegate.asyncio.server import Server, ServerConnection, basic_auth, broadcast, serve
from tidegate.datastructures import Headers
from tidegate.exceptions import ConnectionClosedError, InvalidStatus, PayloadTooBig, ProtocolError
from tidegate.frames import Close
from tidegate.http11 import Response


async def echo_path(websocket: ServerConnection, path: str) -> None:
    await websocket.send(path)


class Handlers:
    async def method(self, websocket: ServerConnection, path: str) -> None:
        await websocket.send(path)

    async def __call__(self, websocket: ServerConnection, path: str) -> None:
        await websocket.send(path)


# Warnings


def test_a_warning_is_for_the_line_that_used_the_form() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tidegate.InvalidStatusCode  # noqa: B018
        from tidegate import WebSocketServer  # noqa: F401

        PayloadTooBig("message")
        serve(echo, "localhost", 0, read_limit=1)
    assert {warning.filename for warning in caught} == {__file__}
    assert len({warning.lineno for warning in caught}) == 4
    assert {warning.category for warning in caught} == {DeprecationWarning}


def test_it_is_shown_to_who_runs_the_program_and_to_nobody_else() -> None:
    """As Python shows a DeprecationWarning by default: of the main program only, once for each line."""
    code = "import tidegate\nfor _ in range(2): tidegate.PayloadTooBig('message')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("PayloadTooBig(message) is deprecated: use PayloadTooBig(size, max_size)") == 1


# Handlers of a connection and its path


@pytest.mark.parametrize(
    "handler", [echo_path, Handlers(), Handlers().method, functools.partial(Handlers.method, None)]
)
async def test_handler_with_path(handler: Any) -> None:
    with pytest.warns(DeprecationWarning, match=r"finds the path in websocket\.request\.path"):
        server = await serve(handler, "127.0.0.1", 0)
    async with server, connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/a?b=c") as websocket:
        assert await websocket.recv() == "/a?b=c"


@pytest.mark.parametrize(
    "handler",
    [echo, functools.partial(echo_path, path="/"), lambda websocket, path="/": None, lambda *args: None, print],
)
def test_other_handlers_are_left_alone(handler: Any) -> None:
    assert _compat.give_path(handler) is handler


async def test_handler_with_path_and_authentication() -> None:
    """Who is not let in never comes to the handler, whatever it takes."""
    with pytest.deprecated_call():
        server = serve(basic_auth("hello", "iloveyou")(echo_path), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        refused = await outcome(connect(f"ws://127.0.0.1:{port}/"))
        assert isinstance(refused, InvalidStatus)
        assert refused.response.status_code == 401
        async with connect(f"ws://hello:iloveyou@127.0.0.1:{port}/path") as websocket:
            assert await websocket.recv() == "/path"


def test_the_daemon_takes_them_too() -> None:
    assert App(echo_path).handler is echo_path
    with pytest.raises(TypeError, match="must take the connection alone"):
        App(lambda environ, start_response: [])


# serve() outside of a running loop


def test_made_before_there_is_a_loop() -> None:
    start_server = serve(echo, "127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(start_server)
        assert isinstance(server, Server)
        assert server.get_loop() is loop

        async def client() -> Any:
            async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as websocket:
                await websocket.send("hello")
                return await websocket.recv()

        assert loop.run_until_complete(client()) == "hello"
        server.close()
        loop.run_until_complete(server.wait_closed())
    finally:
        loop.close()


# Arguments


@pytest.mark.parametrize(
    "extra",
    [
        {"Server": "MyServer/1.0", "X-Extra": "yes"},
        [("Server", "MyServer/1.0"), ("X-Extra", "yes")],
        lambda path, headers: {
            "Server": "MyServer/1.0",
            "X-Extra": "yes" if path == "/" and "Host" in headers else "no",
        },
    ],
    ids=["mapping", "pairs", "function"],
)
async def test_extra_headers_of_a_server(extra: Any) -> None:
    seen: list[Any] = []

    def process_response(connection: ServerConnection, request: Any, response: Response) -> None:
        seen.append(response.headers["X-Extra"])

    with pytest.warns(DeprecationWarning, match="extra_headers is deprecated: use process_response"):
        server = serve(echo, "127.0.0.1", 0, extra_headers=extra, process_response=process_response)
    async with server, connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as websocket:
        assert websocket.response is not None
        assert websocket.response.headers.get_all("Server") == ["MyServer/1.0"]
        assert websocket.response.headers["X-Extra"] == "yes"
    assert seen == ["yes"]


async def test_extra_headers_are_for_connections_that_open() -> None:
    with pytest.deprecated_call():
        server = serve(echo, "127.0.0.1", 0, extra_headers={"X-Extra": "yes"}, origins=["https://a"])
    async with server:
        refused = await outcome(connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert isinstance(refused, InvalidStatus)
    assert refused.response.status_code == 403
    assert "X-Extra" not in refused.response.headers


async def test_extra_headers_of_a_client() -> None:
    async with serving(echo) as server:
        with pytest.warns(DeprecationWarning, match="extra_headers is deprecated: use additional_headers"):
            client = connect(server.uri, extra_headers={"X-Extra": "yes"})
        async with client as websocket:
            assert websocket.request is not None
            assert websocket.request.headers["X-Extra"] == "yes"


class OwnServerConnection(ServerConnection):
    pass


class OwnClientConnection(ClientConnection):
    pass


@pytest.mark.parametrize("name", ["create_protocol", "klass"])
async def test_factories(name: str) -> None:
    """Deprecated arguments for a class of connections warn, and work."""
    kinds: list[type] = []

    async def handler(websocket: ServerConnection) -> None:
        kinds.append(type(websocket))

    arguments: dict[str, Any] = {name: OwnServerConnection}
    with pytest.warns(DeprecationWarning, match=f"the argument {name} is deprecated: use create_connection"):
        server = serve(handler, "127.0.0.1", 0, **arguments)
    arguments = {name: OwnClientConnection}
    async with server:
        with pytest.deprecated_call():
            client = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", **arguments)
        async with client as websocket:
            assert type(websocket) is OwnClientConnection
    assert kinds == [OwnServerConnection]


async def test_timeout() -> None:
    """The deprecated argument `timeout` warns, and sets `close_timeout`."""
    async with serving(echo) as server:
        with pytest.warns(DeprecationWarning, match="the argument timeout is deprecated: use close_timeout"):
            client = connect(server.uri, timeout=3)
        async with client as websocket:
            assert websocket.close_timeout == 3


async def test_arguments_without_effect() -> None:
    loop = asyncio.get_running_loop()
    with pytest.deprecated_call() as caught:
        server = serve(echo, "127.0.0.1", 0, loop=loop, read_limit=2**16, create_protocol=None, timeout=None)
    assert len(caught) == 4
    async with server:
        with pytest.deprecated_call():
            client = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", loop=loop, read_limit=2**16)
        async with client as websocket:
            assert websocket.close_timeout == 10


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 1, "close_timeout": 1},
        {"klass": OwnClientConnection, "create_protocol": OwnClientConnection},
        {"extra_headers": {}, "additional_headers": {}},
    ],
)
def test_the_same_twice(arguments: dict[str, Any]) -> None:
    with pytest.deprecated_call(), pytest.raises(TypeError, match="was given twice, once under an older name"):
        connect("ws://localhost/", **arguments)


def test_mistakes_show_at_once() -> None:
    with pytest.deprecated_call(), pytest.raises(TypeError):
        serve(echo, "localhost", 0, extra_headers=3)
    with pytest.deprecated_call(), pytest.raises(TypeError, match="process_response must be a function, not 3"):
        serve(echo, "localhost", 0, extra_headers={}, process_response=3)  # type: ignore[arg-type]


def test_signatures_are_those_of_today() -> None:
    assert list(inspect.signature(serve).parameters)[:4] == ["handler", "host", "port", "origins"]
    assert list(inspect.signature(connect).parameters)[:2] == ["uri", "origin"]
    assert list(inspect.signature(broadcast).parameters) == ["connections", "message", "text", "raise_exceptions"]


# Attributes


async def test_attributes_of_connections_and_servers() -> None:
    async with serving(echo) as server:
        async with connect(f"{server.uri}path") as client:
            (connection,) = server.server.connections
            with pytest.warns(DeprecationWarning, match=r"Server\.websockets is deprecated: use server\.connections"):
                assert server.server.websockets == {connection}
            for websocket in (client, connection):
                with pytest.deprecated_call() as caught:
                    assert (websocket.open, websocket.closed) == (True, False)
                    assert websocket.path == "/path"
                    assert websocket.request_headers is websocket.request.headers
                    assert websocket.response_headers is websocket.response.headers
                assert len(caught) == 5
            assert "ClientConnection.open is deprecated: use connection.state is State.OPEN" in str(
                (await warned(lambda: client.open)).message
            )
        with pytest.deprecated_call():
            assert (client.open, client.closed) == (False, True)


async def warned(read: Any) -> warnings.WarningMessage:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read()
    (warning,) = caught
    return warning


async def test_attributes_before_there_is_a_response() -> None:
    seen: list[Any] = []

    def process_request(connection: Any, request: Any) -> None:
        seen.extend([connection.path, connection.response_headers, connection.open, connection.closed])

    with pytest.deprecated_call():
        async with serving(echo, process_request=process_request) as server, connect(server.uri):
            pass
    assert seen == ["/", None, False, False]


async def test_who_sets_an_attribute_has_it() -> None:
    """Programs of today may use these names for what they like."""
    seen: list[Any] = []

    def process_request(connection: Any, request: Any) -> None:
        connection.path = ["own"]

    async def handler(websocket: Any) -> None:
        seen.append(websocket.path)

    async with serving(handler, process_request=process_request) as server, connect(server.uri):
        pass
    assert seen == [["own"]]


def test_nothing_is_looked_up_in_a_connection() -> None:
    assert _compat.OlderConnection.__slots__ == ()
    assert Connection.__dictoffset__ == 0
    assert isinstance(inspect.getattr_static(Connection, "open"), _compat._Older)
    assert Connection.open.__doc__ == "Older form: use connection.state is State.OPEN."


# Exceptions


def test_code_and_reason() -> None:
    exc = ConnectionClosedError(Close(1008, "policy"), None, None)
    with pytest.warns(DeprecationWarning, match=r"ConnectionClosedError\.code is deprecated: use exc\.rcvd\.code"):
        assert exc.code == 1008
    with pytest.deprecated_call():
        assert exc.reason == "policy"
    exc = ConnectionClosedError(None, Close(1000, ""), None)
    with pytest.deprecated_call():
        assert (exc.code, exc.reason) == (1006, "")


def test_payload_too_big_with_a_message() -> None:
    with pytest.deprecated_call():
        exc = PayloadTooBig("over size limit")
    assert str(exc) == "over size limit"
    assert str(PayloadTooBig(3, 2)) == "frame with 3 bytes exceeds limit of 2 bytes"
    with pytest.raises(TypeError, match="needs the size and the limit"):
        PayloadTooBig(3)


async def test_invalid_status_code() -> None:
    def process_request(connection: ServerConnection, request: Any) -> Response:
        return connection.respond(403, "no")

    with pytest.deprecated_call():
        from tidegate.exceptions import InvalidStatusCode
    async with serving(echo, process_request=process_request) as server:
        with pytest.raises(InvalidStatusCode) as caught:
            await connect(server.uri)
    with pytest.deprecated_call():
        assert caught.value.status_code == 403
        assert caught.value.headers["Content-Length"] == "2"


# Responses


async def test_a_response_of_a_body() -> None:
    def process_request(connection: ServerConnection, request: Any) -> Response:
        return Response(403, "Forbidden", b"Invalid API key")

    with pytest.warns(
        DeprecationWarning, match=r"Response\(status, reason, body\) is deprecated: use connection\.resp"
    ):
        async with serving(echo, process_request=process_request) as server:
            status, headers, body = await server.ask()
    assert (status, body) == (403, "Invalid API key")
    assert headers["content-length"] == "15"
    assert headers["connection"] == "close"


def test_a_response_without_headers() -> None:
    assert Response(404, "Not Found") == Response(404, "Not Found", Headers(), b"")
    assert Response(404, "Not Found").serialize() == b"HTTP/1.1 404 Not Found\r\n\r\n"


# broadcast()


async def test_broadcast_by_position() -> None:
    async with serving(echo) as server, connect(server.uri) as websocket:
        with pytest.warns(DeprecationWarning, match="by position is deprecated: write raise_exceptions=True"):
            broadcast(server.server.connections, "one", True)
        with pytest.warns(DeprecationWarning, match="the argument websockets is deprecated: use connections"):
            broadcast(websockets=server.server.connections, message="two")
        assert [await websocket.recv(), await websocket.recv()] == ["one", "two"]
    with pytest.raises(TypeError, match="raise_exceptions was given twice"):
        broadcast([], "", True, raise_exceptions=True)
    with pytest.raises(TypeError):
        broadcast([], "", True, True)


# Names


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in _compat.NAMES.items() for name in names]
)
def test_names(module: str, name: str) -> None:
    """A deprecated name warns, and leads to today's."""
    target = _compat.NAMES[module][name]
    home, _, attribute = target.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is deprecated: use tidegate.{target}"):
        found = getattr(sys.modules[module], name)
    assert found is getattr(sys.modules[f"tidegate.{home}"], attribute)


def test_some_names() -> None:
    with pytest.deprecated_call():
        assert tidegate.WebSocketServerProtocol is ServerConnection
        assert tidegate.WebSocketProtocolError is ProtocolError
        assert tidegate.server.serve is serve
        assert tidegate.client.connect is connect
    assert "serve" in dir(tidegate.server)


@pytest.mark.parametrize("name", _compat.GONE)
def test_names_that_are_gone_say_why(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'tidegate' has no attribute '{name}': {_compat.GONE[name][:20]}"):
        getattr(tidegate, name)


@pytest.mark.parametrize("module", ["client", "connection", "exceptions", "server"])
def test_other_names_are_none(module: str) -> None:
    found = getattr(tidegate, module)
    with pytest.raises(AttributeError, match=f"module 'tidegate.{module}' has no attribute 'nothing'"):
        found.nothing  # noqa: B018
