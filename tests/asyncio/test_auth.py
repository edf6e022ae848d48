"""HTTP Basic authentication, in both forms, over real sockets and beside the `websockets` library.

What must not live here: the grammar of the headers (tests/test_headers.py).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.server as model
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import tidegate
from tests.support import wire
from tests.support.rawclient import RawClient
from tidegate.asyncio.server import Server, ServerConnection, basic_auth, serve, unix_serve
from tidegate.http11 import Request, Response
from tidegate.server import HandshakeOptions, accept

CREDENTIALS = ("hello", "iloveyou")
CHALLENGE = 'Basic realm="my dev server", charset="UTF-8"'


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def uri_of(server: Any) -> str:
    host, port = server.sockets[0].getsockname()
    return f"ws://{host}:{port}/"


async def who(websocket: ServerConnection) -> None:
    """Tell the client its name."""
    await websocket.send(websocket.username)


async def entered(uri: str, authorization: str | None = basic(*CREDENTIALS), **kwargs: Any) -> Any:
    """What a client is told: its name, or the status of the response, or the close code."""
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        async with connect(uri, additional_headers=headers, proxy=None, **kwargs) as websocket:
            return await websocket.recv()
    except InvalidStatus as exc:
        return exc.response.status_code
    except ConnectionClosed as exc:
        return exc.rcvd and exc.rcvd.code


# The factory: arguments


def test_signature() -> None:
    """The signature and the kind of function are the model's."""
    ours, theirs = inspect.signature(basic_auth).parameters, inspect.signature(model.basic_auth).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    assert tidegate.basic_auth is basic_auth
    assert inspect.iscoroutinefunction(basic_auth(credentials=CREDENTIALS))


@pytest.mark.parametrize("arguments", [{}, {"realm": "x"}, {"credentials": CREDENTIALS, "check_credentials": max}])
def test_one_of_credentials_and_their_check(arguments: dict[str, Any]) -> None:
    for function in (basic_auth, model.basic_auth):
        with pytest.raises(ValueError, match=r"^provide either credentials or check_credentials$"):
            function(**arguments)


@pytest.mark.parametrize(
    "credentials", [42, "hello:secret", ("hello", 42), [("hello", b"secret")], [CREDENTIALS, None]]
)
def test_wrong_credentials(credentials: Any) -> None:
    for function in (basic_auth, model.basic_auth):
        with pytest.raises(TypeError, match=r"^invalid credentials argument: "):
            function(credentials=credentials)


def test_no_password_in_the_error() -> None:
    with pytest.raises(TypeError) as caught:
        basic_auth(credentials=[CREDENTIALS, ("secret", 42)])  # type: ignore[list-item]
    assert "iloveyou" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"credentials": "ab"}, TypeError),  # two characters are no pair
        ({"check_credentials": "hello"}, TypeError),
        ({"realm": None, "credentials": CREDENTIALS}, TypeError),
        ({"realm": "a\nb", "credentials": CREDENTIALS}, ValueError),
        ({"realm": "\N{SNOWMAN}", "credentials": CREDENTIALS}, ValueError),
    ],
)
def test_what_fails_here_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        basic_auth(**arguments)


# The factory: clients


def pairs() -> Iterator[tuple[str, str]]:
    yield from [CREDENTIALS, ("bye", "youloveme"), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "p:w:")]


def check(username: str, password: str) -> bool:
    return (username, password) in list(pairs())


async def check_later(username: str, password: str) -> bool:
    await asyncio.sleep(0)
    return check(username, password)


GIVEN: list[Callable[[], dict[str, Any]]] = [
    lambda: {"credentials": CREDENTIALS},
    lambda: {"credentials": [CREDENTIALS]},
    lambda: {"credentials": list(pairs())},
    lambda: {"credentials": []},
    lambda: {"check_credentials": check},
    lambda: {"check_credentials": check_later},
]
AUTHORIZATIONS = [
    None,
    basic(*CREDENTIALS),
    basic(*CREDENTIALS).replace("Basic", "bAsIc"),
    basic("hello", "iloveyou2"),
    basic("hello", "iloveyo"),
    basic("nobody", "iloveyou"),
    basic("hello", ""),
    basic("", "iloveyou"),
    basic("bye", "youloveme"),
    basic("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "p:w:"),
    "Basic " + base64.b64encode(b"hello:\xff\xfe").decode(),
    "Basic " + base64.b64encode(b"hello").decode(),
    "Basic ????",
    "Basic",
    "Bearer token",
    "",
]


async def answers(module: Any, given: dict[str, Any]) -> list[tuple[int, str | None, str]]:
    """Status, challenge and body for each Authorization header; of those that are let in the name as the body."""
    names: list[str] = []

    async def handler(websocket: Any) -> None:
        names.append(websocket.username)

    def requests(port: int) -> list[tuple[int, str | None, str]]:
        found = []
        for authorization in AUTHORIZATIONS:
            headers = {} if authorization is None else {"Authorization": authorization}
            with RawClient(port) as client:
                client.send(wire.request(headers=headers))
                status, fields, body = client.response()
                if status == 101:
                    assert client.frame()[1] == b"\x03\xe8"
                    body = names.pop()
            found.append((status, fields.get("www-authenticate"), body))
        return found

    hook = module.basic_auth("my dev server", **given)
    async with module.serve(handler, "127.0.0.1", 0, process_request=hook, close_timeout=0.1) as server:
        return await asyncio.to_thread(requests, server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("given", GIVEN)
async def test_clients_are_answered_as_by_websockets(given: Callable[[], dict[str, Any]]) -> None:
    found = await answers(tidegate, given())
    assert found == await answers(model, given())
    assert found[0] == (401, CHALLENGE, "Missing credentials\n")
    assert found[-1] == (401, CHALLENGE, "Unsupported credentials\n")
    assert {body for status, _, body in found if status == 401} <= {
        "Missing credentials\n",
        "Unsupported credentials\n",
        "Invalid credentials\n",
    }


async def test_an_iterator_of_pairs() -> None:
    async with serve(who, "127.0.0.1", 0, process_request=basic_auth(credentials=pairs())) as server:
        assert await entered(uri_of(server)) == "hello"
        assert await entered(uri_of(server), basic("bye", "youloveme")) == "bye"


async def test_several_authorizations_are_none() -> None:
    async with serve(who, "127.0.0.1", 0, process_request=basic_auth(credentials=CREDENTIALS)) as server:
        headers = [("Authorization", basic(*CREDENTIALS))] * 2
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri_of(server), additional_headers=headers, proxy=None)
    assert caught.value.response.status_code == 401
    assert caught.value.response.body == b"Unsupported credentials\n"
    assert "Date" in caught.value.response.headers
    assert "tidegate" in caught.value.response.headers["Server"]


async def test_a_check_that_fails_is_an_error_of_the_servers(caplog: pytest.LogCaptureFixture) -> None:
    def fail(username: str, password: str) -> bool:
        raise OSError("the database is away")

    async with serve(who, "127.0.0.1", 0, process_request=basic_auth(check_credentials=fail)) as server:
        assert await entered(uri_of(server)) == 500
    assert "the database is away" in caplog.text


async def test_unknown_names_take_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes are compared for them, by the same function."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return original(one, other)

    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with serve(who, "127.0.0.1", 0, process_request=basic_auth(credentials=CREDENTIALS)) as server:
        for username, password in [("hello", "iloveyou"), ("hello", "x"), ("nobody", "iloveyou"), ("nobody", "")]:
            await entered(uri_of(server), basic(username, password))
    assert compared == [(32, 32)] * 4


# The decorator


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("hello", "iloveyou"), {}),
        (("hello", "iloveyou", "WebSocket"), {}),
        (("hello", "iloveyou"), {"realm": "WebSocket"}),
        (("hello",), {"password": "iloveyou"}),
        ((), {"username": "hello", "password": "iloveyou", "realm": "WebSocket"}),
    ],
)
async def test_forms_of_the_decorator(args: Any, kwargs: Any) -> None:
    handler = basic_auth(*args, **kwargs)(who)
    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri_of(server), proxy=None)
        response = caught.value.response
        assert (response.status_code, response.body) == (401, b"Missing credentials\n")
        assert response.headers["WWW-Authenticate"] == 'Basic realm="WebSocket", charset="UTF-8"'
        assert await entered(uri_of(server), basic("hello", "wrong")) == 401
        assert await entered(uri_of(server)) == "hello"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("hello", "a", 3), {}), ((), {"username": "a"}), ((), {"password": "a"}), (("a",), {"password": 3})],
)
def test_wrong_arguments_of_the_decorator(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        basic_auth(*args, **kwargs)
    with pytest.raises(TypeError, match="decorates handlers, not 3"):
        basic_auth("hello", "iloveyou")(3)  # type: ignore[type-var]


@basic_auth(*CREDENTIALS)
async def decorated(websocket: ServerConnection) -> None:
    """A handler."""
    await websocket.send(websocket.username)


def test_it_still_looks_like_the_handler() -> None:
    assert decorated.__name__ == "decorated"
    assert decorated.__doc__ == "A handler."
    assert decorated.__module__ == __name__
    assert list(inspect.signature(decorated).parameters) == ["websocket"]
    assert "decorated" in repr(decorated)
    assert tidegate.App(decorated).handler is decorated


class Room:
    name = "hello"

    @basic_auth(*CREDENTIALS)
    async def method(self, websocket: ServerConnection) -> None:
        await websocket.send(f"{self.name} {websocket.username}")

    @staticmethod
    @basic_auth(*CREDENTIALS)
    async def static(websocket: ServerConnection) -> None:
        await who(websocket)

    async def __call__(self, websocket: ServerConnection) -> None:
        await who(websocket)


def logged(handler: Any) -> Any:
    @functools.wraps(handler)
    async def outer(*args: Any) -> None:
        await handler(*args)

    return outer


class LoggedRoom(Room):
    @logged
    @basic_auth(*CREDENTIALS)
    async def method(self, websocket: ServerConnection) -> None:
        await websocket.send(f"{self.name} {websocket.username}")


async def greet(greeting: str, websocket: ServerConnection) -> None:
    await websocket.send(f"{greeting} {websocket.username}")


async def with_more(websocket: ServerConnection, more: str) -> None:
    await websocket.send(f"{websocket.username} {more}")


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (decorated, "hello"),
        (Room().method, "hello hello"),
        (Room().static, "hello"),
        (basic_auth(*CREDENTIALS)(Room()), "hello"),
        (basic_auth(*CREDENTIALS)(functools.partial(greet, "bye")), "bye hello"),
        (functools.partial(basic_auth(*CREDENTIALS)(with_more), more="more"), "hello more"),
        (logged(decorated), "hello"),
        (logged(logged(Room().method)), "hello hello"),
        (LoggedRoom().method, "hello hello"),
        (basic_auth(*CREDENTIALS)(decorated), "hello"),
    ],
)
async def test_handlers_of_all_kinds(handler: Any, expected: str) -> None:
    async with serve(handler, "127.0.0.1", 0) as server:
        assert await entered(uri_of(server), None) == 401
        assert await entered(uri_of(server)) == expected


async def test_a_handler_that_cannot_be_seen_is_guarded_all_the_same() -> None:
    ran = []

    @basic_auth(*CREDENTIALS)
    async def inner(websocket: ServerConnection) -> None:
        ran.append(websocket.username)
        await who(websocket)

    async def handler(websocket: ServerConnection) -> None:
        await inner(websocket)

    async with serve(handler, "127.0.0.1", 0) as server:
        assert await entered(uri_of(server), None) == 1008
        assert await entered(uri_of(server), basic("hello", "wrong")) == 1008
        assert ran == []
        assert await entered(uri_of(server)) == "hello"


async def test_it_is_not_called_without_a_connection() -> None:
    with pytest.raises(TypeError, match=r"basic_auth.*decorated.* must be called with a connection"):
        await decorated(object())  # type: ignore[arg-type]


async def test_a_hook_that_accepts_by_itself_opens_no_back_door() -> None:
    def process_request(connection: ServerConnection, request: Request) -> Response:
        return accept(request, HandshakeOptions(), connection).response

    async with serve(decorated, "127.0.0.1", 0, process_request=process_request) as server:
        assert await entered(uri_of(server), None) == 1008
        assert await entered(uri_of(server)) == "hello"


@pytest.mark.parametrize("later", [False, True])
async def test_the_servers_own_hook_comes_first(later: bool) -> None:
    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "OK\n") if request.path == "/health" else None

    async def process_request_later(connection: ServerConnection, request: Request) -> Response | None:
        return process_request(connection, request)

    hook = process_request_later if later else process_request
    async with serve(decorated, "127.0.0.1", 0, process_request=hook) as server:
        assert await entered(uri_of(server) + "health", None) == 200
        assert await entered(uri_of(server), None) == 401
        assert await entered(uri_of(server)) == "hello"


async def test_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server: Server
    async with unix_serve(decorated, path) as server:
        assert server.sockets
        with pytest.raises(InvalidStatus):
            await unix_connect(path)
        async with unix_connect(path, additional_headers={"Authorization": basic(*CREDENTIALS)}) as websocket:
            assert await websocket.recv() == "hello"
