"""Routing over real sockets: as the `websockets` library does it, but for what a table says; and as the daemon does it.

What must not live here: what werkzeug can match, but for one example of each kind.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import websockets.asyncio.router as model
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import InvalidStatus
from werkzeug.exceptions import abort
from werkzeug.routing import BaseConverter, Map, Rule, Submount

import tidegate
from tests.support import wire
from tests.support.harness import APPLICATIONS, Daemon
from tests.support.rawclient import RawClient
from tidegate.asyncio import router as ours
from tidegate.asyncio.router import Router, route, unix_route
from tidegate.asyncio.server import ServerConnection, basic_auth
from tidegate.http11 import Request, Response


async def handler(websocket: Any, **kwargs: Any) -> None:
    await websocket.send(repr(kwargs))


async def other(websocket: Any) -> None:
    await websocket.send("other")


class Listed(BaseConverter):
    """Words between plus signs."""

    def to_python(self, value: str) -> list[str]:
        return value.split("+")


def url_map() -> Map:
    return Map(
        [
            Rule("/", endpoint=handler),
            Rule("/other", endpoint=other),
            Rule("/room/<name>", endpoint=handler),
            Rule("/number/<int:number>/", endpoint=handler),
            Rule("/ratio/<float:ratio>", endpoint=handler),
            Rule("/id/<uuid:id>", endpoint=handler),
            Rule("/kind/<any(day, night):kind>", endpoint=handler),
            Rule("/words/<listed:words>", endpoint=handler),
            Rule("/file/<path:path>", endpoint=handler),
            Rule("/page", endpoint=handler, defaults={"page": 1}),
            Rule("/page/<int:page>", endpoint=handler),
            Rule("/old", redirect_to="/room/new"),
            Rule("/old/<name>", redirect_to="/room/<name>"),
            Rule("/moved", redirect_to=lambda adapter: "/other"),
            Rule("/alias", endpoint=other, alias=True),
            Rule("/build", endpoint="no handler", build_only=True),
            Submount("/sub", [Rule("/mount", endpoint=other)]),
            Rule("/caf\N{LATIN SMALL LETTER E WITH ACUTE}", endpoint=other),
            Rule("/post", endpoint=other, methods=["POST"]),
            Rule("/forbidden", redirect_to=lambda adapter: abort(403)),
        ],
        converters={"listed": Listed},
    )


LONG = "a" * 70  # no label of a host's name
REJECTED = "The WebSocket connection was rejected: "

# Target, and Host headers if it is not the usual one.
REQUESTS: list[tuple[str, list[str] | None]] = [
    *[
        (target, None)
        for target in (
            "/",
            "/?query=1",
            "/other",
            "/other/",
            "/sub/mount",
            "/alias",
            "/build",
            "/nothing",
            "*",
            "/room/red",
            "/room/",
            "/room/red/blue",
            "/room/a+b",
            "/room/red#fragment",
            "/room//red",
            "/room/a%2Fb",
            "/number/5/",
            "/number/5",
            "/number/5?a=1&b=%C3%A9",
            "/number/x/",
            "/ratio/0.5",
            "/id/a8098c1a-f86e-11da-bd1a-00112444be1e",
            "/kind/day",
            "/kind/dawn",
            "/words/tide+gate",
            "/file/a/b.txt",
            "/page",
            "/page/1",
            "/page/2",
            "/old",
            "/old?query=1",
            "/old/red",
            "/moved",
            "http://elsewhere/room/red",
        )
    ],
    ("/old", ["example.com"]),
    ("/old", ["EXAMPLE.com:81"]),
]

# Target, Host headers -> what we do, where websockets does otherwise.
DIFFERENCES: list[tuple[str, list[str] | None, tuple[Any, ...], str]] = [
    ("/room/caf%C3%A9", None, (101, None, "{'name': 'caf\xe9'}"), "paths are matched decoded, as in WSGI"),
    ("/room/%ff", None, (101, None, "{'name': '\ufffd'}"), "the same"),
    ("/room/a%2fb%20c", None, (101, None, "{'name': 'a%2Fb c'}"), "the same, but for what would be a slash"),
    ("/caf%C3%A9", None, (101, None, "other"), "the same: websockets never finds this rule"),
    ("/room//caf%C3%A9", None, (302, "ws://{host}/room/caf%C3%A9", ""), "the same: websockets encodes it twice"),
    ("/room/a;b", None, (101, None, "{'name': 'a;b'}"), "a path ends at the question mark, not at a semicolon"),
    ("//room/red", None, (101, None, "{'name': 'red'}"), "two slashes begin no host's name in a path"),
    ("/post", None, (404, None, "Not Found"), "no rule is for GET: no failure of the server"),
    ("/forbidden", None, (403, None, "Forbidden\n"), "what a function of the map's raises is an answer"),
    ("/", [], (400, None, f"{REJECTED}missing Host header.\n"), "a mistake of the client's"),
    (
        "/",
        ["a", "b"],
        (400, None, f"{REJECTED}invalid Host header: multiple values.\n"),
        "same",
    ),
    ("/", [LONG], (400, None, "Bad Request\n"), "the same"),
    *[
        ("/old", [host], (400, None, f"{REJECTED}{complaint} Host header{rest}.\n"), "same")
        for host, complaint, rest in (
            ("b\xfccher.example", "invalid", ": b\xfccher.example"),
            ("", "empty", ""),
            ("a b", "invalid", ": a b"),
        )
    ],
]


def ask(port: int, target: str, hosts: list[str] | None) -> tuple[int, str | None, str]:
    """Status, Location, and the body; instead of the body what the handler sends, if there is one that does."""
    host = f"localhost:{port}"
    request = wire.request(path=target, headers={"Host": None}).decode("iso-8859-1")
    lines = "".join(f"Host: {name}\r\n" for name in ([host] if hosts is None else hosts))
    with RawClient(port) as client:
        client.send((request[:-2] + lines + "\r\n").encode("iso-8859-1"))
        status, headers, body = client.response()
        if status == 101:
            body = client.frame()[1].decode()
        location = headers.get("location")
        if location is not None:
            assert location in body
            body, location = "", location.replace(host, "{host}")
    return status, location, body


def ask_all(server: Any, requests: Any) -> list[tuple[Any, ...]]:
    port = server.sockets[0].getsockname()[1]
    return [ask(port, target, hosts) for target, hosts in requests]


async def outcomes(module: Any, requests: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    async with module.route(url_map(), "127.0.0.1", 0, close_timeout=0.1, **kwargs) as server:
        return await asyncio.to_thread(ask_all, server, requests)


async def rejected(uri: str, **kwargs: Any) -> Any:
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri, proxy=None, **kwargs)
    return caught.value.response


def uri_of(server: Any, path: str = "/") -> str:
    host, port = server.sockets[0].getsockname()
    return f"ws://{host}:{port}{path}"


async def said(uri: str, **kwargs: Any) -> Any:
    async with connect(uri, proxy=None, **kwargs) as websocket:
        return await websocket.recv()


# Requests


async def test_requests_find_what_they_find_with_websockets() -> None:
    found = await outcomes(ours, REQUESTS)
    expected = await outcomes(model, REQUESTS)
    for request, one, another in zip(REQUESTS, found, expected, strict=True):
        assert one == another, request
    assert {status for status, _, _ in found} == {101, 302, 404}
    assert dict(zip([target for target, _ in REQUESTS], found, strict=True))["/words/tide+gate"][2] == (
        "{'words': ['tide', 'gate']}"
    )


async def test_differences() -> None:
    """What differs from the model is on the list, and all that is on the list differs."""
    requests = [(target, hosts) for target, hosts, _, _ in DIFFERENCES]
    found = await outcomes(ours, requests)
    expected = await outcomes(model, requests)
    for (target, hosts, wanted, reason), one, another in zip(DIFFERENCES, found, expected, strict=True):
        assert one == wanted, (target, hosts)
        assert one != another, f"{target} {hosts}: no difference any more ({reason})"


@pytest.mark.parametrize(
    "kwargs", [{"server_name": "tide.example"}, {"server_name": "tide.example:8443", "ssl": True}, {"ssl": True}]
)
async def test_redirects_behind_a_proxy(kwargs: Any) -> None:
    requests = [("/old", None), ("/old", ["other.example"]), ("/number/5", None)]
    found = await outcomes(ours, requests, **kwargs)
    assert found == await outcomes(model, requests, **kwargs)
    scheme = "wss" if "ssl" in kwargs else "ws"
    assert found[0] == (302, f"{scheme}://{kwargs.get('server_name', '{host}')}/room/new", "")


async def test_redirects_are_followed_by_clients() -> None:
    async with route(url_map(), "127.0.0.1", 0) as server:
        assert await said(uri_of(server, "/number/5")) == "{'number': 5}"
        assert await said(uri_of(server, "/old/caf%C3%A9")) == "{'name': 'caf\xe9'}"


async def test_hosts() -> None:
    """Rules of hosts match as they do in the model."""
    rules = [Rule("/", host="a.example", endpoint=handler), Rule("/", host="<name>.example", endpoint=handler)]
    requests = [("/", ["a.example"]), ("/", ["b.example"]), ("/", ["b.other"])]

    async def found(module: Any) -> list[tuple[Any, ...]]:
        async with module.route(Map(rules, host_matching=True), "127.0.0.1", 0, close_timeout=0.1) as server:
            return await asyncio.to_thread(ask_all, server, requests)

    rules = [rule.empty() for rule in rules]
    ours_found = await found(ours)
    rules = [rule.empty() for rule in rules]
    assert ours_found == await found(model)
    assert [outcome[2] for outcome in ours_found] == ["{}", "{'name': 'b'}", "Not Found"]


async def test_responses_are_those_of_connections() -> None:
    async with route(url_map(), "127.0.0.1", 0, server_header="Tide") as server:
        response = await rejected(uri_of(server, "/nothing"))
    assert (response.status_code, response.body) == (404, b"Not Found")
    assert list(response.headers) == ["date", "connection", "content-length", "content-type", "server"]
    assert response.headers["Server"] == "Tide"


async def test_what_is_no_handshake_is_answered_as_without_routes() -> None:
    async with route(url_map(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        def requests() -> list[int]:
            found = []
            for arguments in (
                {"headers": {"Upgrade": None}},
                {"method": "HEAD"},
                {"version": "HTTP/1.0"},
                {"headers": {"Sec-WebSocket-Key": "short"}},
            ):
                with RawClient(port) as client:
                    client.send(wire.request(**arguments))
                    found.append(client.response(str(arguments.get("method", "GET")))[0])
            return found

        assert await asyncio.to_thread(requests) == [426, 405, 505, 400]


async def test_what_handlers_receive() -> None:
    seen: list[Any] = []

    async def room(websocket: ServerConnection, id: UUID) -> None:
        seen.append((websocket.handler, websocket.handler_kwargs, id))
        await websocket.send(websocket.subprotocol or "")

    id = UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
    async with route(Map([Rule("/<uuid:id>", endpoint=room)]), "127.0.0.1", 0, subprotocols=["chat"]) as server:
        assert await said(uri_of(server, f"/{id}"), subprotocols=["chat"]) == "chat"
    assert seen == [(room, {"id": id}, id)]


# Hooks


@pytest.mark.parametrize("later", [False, True])
async def test_the_users_hook_comes_first(later: bool) -> None:
    asked = []

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        asked.append((request.path, hasattr(connection, "handler")))
        return connection.respond(200, "OK\n") if request.path == "/nothing" else None

    async def process_request_later(connection: ServerConnection, request: Request) -> Response | None:
        return process_request(connection, request)

    hook: Any = process_request_later if later else process_request
    async with route(url_map(), "127.0.0.1", 0, process_request=hook) as server:
        assert (await rejected(uri_of(server, "/nothing"))).status_code == 200
        assert (await rejected(uri_of(server, "/nowhere"))).status_code == 404
        assert await said(uri_of(server, "/other")) == "other"
    assert asked == [("/nothing", False), ("/nowhere", False), ("/other", False)]


async def test_authentication_of_a_handler() -> None:
    @basic_auth("hello", "iloveyou")
    async def private(websocket: ServerConnection, name: str) -> None:
        await websocket.send(f"{websocket.username} in {name}")

    rules = [Rule("/private/<name>", endpoint=private), Rule("/other", endpoint=other)]
    async with route(Map(rules), "127.0.0.1", 0) as server:
        response = await rejected(uri_of(server, "/private/red"))
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Basic realm="WebSocket", charset="UTF-8"'
        assert (await rejected(uri_of(server, "/nothing"))).status_code == 404
        assert await said(uri_of(server, "/other")) == "other"
        assert await said(uri_of(server, "/private/red").replace("//", "//hello:iloveyou@")) == "hello in red"


async def test_authentication_of_all_handlers() -> None:
    hook = basic_auth(credentials=("hello", "iloveyou"))
    async with route(url_map(), "127.0.0.1", 0, process_request=hook) as server:
        assert (await rejected(uri_of(server, "/nothing"))).status_code == 401
        assert await said(uri_of(server, "/other").replace("//", "//hello:iloveyou@")) == "other"


# Routers of one's own


class Own(Router):
    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        return "own.example"

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        response = super().redirect(connection, url)
        response.headers["X-Own"] = "redirect"
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        return connection.respond(410, "Gone\n")

    async def handler(self, connection: ServerConnection) -> None:
        await connection.send("first")
        await super().handler(connection)


class Later(Router):
    """Whose endpoints are names, and who takes its time."""

    async def route_request(self, connection: ServerConnection, request: Request) -> Response | None:  # type: ignore[override]
        await asyncio.sleep(0)
        response = super().route_request(connection, request)
        if response is None:
            connection.handler = {"other": other}[str(connection.handler)]
        return response


async def test_a_router_of_ones_own() -> None:
    async with route(url_map(), "127.0.0.1", 0, create_router=Own) as server:
        assert (await rejected(uri_of(server, "/nothing"))).status_code == 410
        assert await said(uri_of(server, "/other")) == "first"
        with RawClient(server.sockets[0].getsockname()[1]) as client:
            client.send(wire.request(path="/old"))
            _, headers, _ = await asyncio.to_thread(client.response)
        assert (headers["location"], headers["x-own"]) == ("ws://own.example/room/new", "redirect")


async def test_a_router_may_take_its_time() -> None:
    rules = Map([Rule("/", endpoint="other")])
    async with route(rules, "127.0.0.1", 0, create_router=Later) as server:
        assert await said(uri_of(server)) == "other"


async def test_a_function_makes_the_router() -> None:
    made = []

    def create(*args: Any) -> Router:
        made.append(args)
        return Router(*args)

    rules = url_map()
    async with route(rules, "127.0.0.1", 0, server_name="a", ssl=True, create_router=create):  # type: ignore[arg-type]
        pass
    assert made == [(rules, "a", "wss")]


def test_rules_are_for_websockets() -> None:
    rules = url_map()
    assert not any(rule.websocket for rule in rules.iter_rules())
    router = Router(rules)
    assert all(rule.websocket for rule in rules.iter_rules())
    assert (router.url_map, router.server_name, router.url_scheme) == (rules, None, "ws")


# Sockets


async def test_unix_route(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with unix_route(url_map(), path), unix_connect(path, "ws://localhost/room/red") as websocket:
        assert await websocket.recv() == "{'name': 'red'}"


async def test_a_context_enables_tls() -> None:
    """Without a certificate nobody comes in; that a request is no TLS is noticed all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with route(url_map(), "127.0.0.1", 0, ssl=context) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(wire.request())
        assert not (await reader.read()).startswith(b"HTTP")
        writer.close()
        await writer.wait_closed()


# Mistakes


@pytest.mark.parametrize("name", ["route", "unix_route", "Router"])
def test_signatures(name: str) -> None:
    """Signatures and public names are the model's."""
    parameters = [inspect.signature(getattr(module, name)).parameters for module in (ours, model)]
    assert [[(p.name, p.default, p.kind) for p in found.values()] for found in parameters[:1]] == [
        [(p.name, p.default, p.kind) for p in found.values()] for found in parameters[1:]
    ]
    assert getattr(tidegate, name) is getattr(ours, name)
    assert ours.__all__ == sorted(model.__all__)


def test_methods_have_the_documented_signatures() -> None:
    for name in ("get_server_name", "redirect", "not_found", "route_request", "handler"):
        methods = [getattr(module.Router, name) for module in (ours, model)]
        assert list(inspect.signature(methods[0]).parameters) == list(inspect.signature(methods[1]).parameters)
        assert inspect.iscoroutinefunction(methods[0]) == inspect.iscoroutinefunction(methods[1])


async def needs_more(websocket: Any, name: str, more: str) -> None: ...


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: route([Rule("/", endpoint=other)]), "url_map must be a werkzeug.routing.Map"),  # type: ignore[arg-type]
        (lambda: route(Map([Rule("/", endpoint="other")])), "the endpoint of the rule '/' must be a callable"),
        (lambda: route(Map([Rule("/")])), "the endpoint of the rule '/' must be a callable"),
        (lambda: route(Map([Rule("/<name>", endpoint=other)])), "must take the connection and name, async def handler"),
        (lambda: route(Map([Rule("/<name>", endpoint=needs_more)])), r"async def handler\(websocket, name\), not"),
        (lambda: route(url_map(), process_request=3), "process_request must be a function, not 3"),
        (lambda: route(url_map(), no_such_argument=3), "no_such_argument"),
    ],
)
async def test_what_cannot_be_meant(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        await make()


# The daemon


@pytest.mark.asyncio(loop_factories=["asyncio"])  # which is the client's alone
@pytest.mark.parametrize("target", ["application:url_map", "application:app"])
async def test_the_daemon_routes(target: str) -> None:
    with Daemon(APPLICATIONS / "routes.py", target=target) as daemon:
        uri = daemon.uri.rstrip("/")
        assert await said(f"{uri}/room/red") == "room red"
        assert await said(f"{uri}/old") == "room new"
        assert (await rejected(f"{uri}/private")).status_code == 401
        assert await said(f"{uri}/private".replace("//", "//hello:iloveyou@")) == "hello"
        assert (await rejected(f"{uri}/health")).status_code == (200 if target.endswith("app") else 404)


def test_the_daemon_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def client() -> Any:
        async with unix_connect(str(path), "ws://localhost/room/red") as websocket:
            return await websocket.recv()

    with Daemon(APPLICATIONS / "routes.py", "--bind", f"unix:{path}", target="application:url_map", bind=False):
        assert asyncio.run(client()) == "room red"


def test_the_daemon_names_the_wrong_rule() -> None:
    with Daemon(APPLICATIONS / "routes.py", target="application:wrong", wait=False) as daemon:
        assert daemon.wait() == 3
        assert "the endpoint of the rule '/<more>' must take the connection and more" in daemon.log


def test_nobody_else_imports_werkzeug() -> None:
    code = "import sys, tidegate.worker.main, tidegate.app, tidegate.asyncio.server; print('werkzeug' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
