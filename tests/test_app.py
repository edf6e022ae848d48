"""`App`: what may be given, and what is said of what may not.

What must not live here: loading one from a module (tests/worker/test_loader.py).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
from werkzeug.routing import Map, Rule

from tidegate import App
from tidegate.app import is_asgi


async def handler(websocket: Any) -> None: ...


async def with_path(websocket: Any, path: str) -> None: ...


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


async def generator(websocket: Any) -> AsyncIterator[None]:
    yield


class Callee:
    async def __call__(self, websocket: Any) -> None: ...

    async def method(self, websocket: Any) -> None: ...


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "given",
    [
        handler,
        Callee(),
        Callee().method,
        partial(with_path, path="/"),
        with_path,
        lambda websocket: handler(websocket),
        print,
    ],
)
def test_handlers(given: Any) -> None:
    """An App keeps the handler that it is given."""
    assert App(given).handler is given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "not NoneType None"),
        (3, "not int 3"),
        (re, "the module re"),
        (Callee, "not the class Callee"),
        (lambda: None, "must take the connection alone"),
        (generator, "has a yield"),
    ],
)
def test_handlers_that_are_none(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match="async def handler") as caught:
        App(given)
    assert words in str(caught.value)


async def with_name(websocket: Any, name: str) -> None: ...


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/", endpoint=handler),
        Rule("/<name>", endpoint=with_name),
        Rule("/", defaults={"name": "red"}, endpoint=with_name),
        Rule("/", host="<name>.example", endpoint=with_name),
        Rule("/", redirect_to="/red"),
        Rule("/<name>", endpoint="nothing", build_only=True),
    ],
)
def test_maps(rule: Rule) -> None:
    """An App takes a map of URLs in place of a handler."""
    url_map = Map([rule], host_matching=rule.host is not None)
    assert App(url_map).handler is url_map


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (
            None,
            "the endpoint of the rule '/<name>' must be a callable, async def handler(websocket, name), not NoneType",
        ),
        (Callee, "must be a function or an object with __call__"),
        (handler, "must take the connection and name, async def handler(websocket, name), not the function handler"),
        (generator, "has a yield"),
    ],
)
def test_endpoints_that_are_no_handlers(endpoint: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        App(Map([Rule("/<name>", endpoint=endpoint)]))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subprotocols": "chat"}, "subprotocols must be a list, not str 'chat'"),
        ({"subprotocols": [b"chat"]}, "a list of strings: there is bytes"),
        ({"subprotocols": {"chat"}}, "must be a list, not set"),
        ({"origins": "https://example.com"}, "origins must be a list"),
        ({"origins": [3]}, "strings, compiled regular expressions or None"),
        ({"extensions": 3}, "extensions must be a list"),
        ({"process_request": 3}, "process_request(connection, request)"),
        ({"process_request": handler}, "must accept the call process_request(connection, request)"),
        ({"process_response": asgi, "select_subprotocol": handler}, "select_subprotocol(connection, subprotocols)"),
        ({"create_connection": "x"}, "create_connection must be a class or a function"),
        ({"ssl": True}, "ssl must be an ssl.SSLContext"),
        ({"lifespan": lifespan.__wrapped__}, "must be decorated with contextlib.asynccontextmanager"),
        ({"lifespan": with_path}, "must be decorated"),
        ({"lifespan": lambda a, b: None}, "must take no argument, or the App"),
        ({"lifespan": lifespan()}, "must be a function"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        App(handler, **options)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="max_size"):
        App(handler, max_size=3)  # type: ignore[call-arg]


def test_what_is_passed_to_serve() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    app = App(handler, lifespan=lifespan, origins=["https://a", re.compile("b"), None], subprotocols=[], ssl=context)
    assert app.serve_options() == {"origins": app.origins, "subprotocols": [], "ssl": context}
    assert App(handler).serve_options() == {}


@pytest.mark.parametrize("takes_app", [False, True])
async def test_lifespan(takes_app: bool) -> None:
    """A lifespan is called with the App if it takes one."""
    seen: list[Any] = []

    @asynccontextmanager
    async def with_app(app: App) -> AsyncIterator[None]:
        seen.append(app)
        yield

    @asynccontextmanager
    async def without() -> AsyncIterator[None]:
        seen.append(None)
        yield

    app = App(handler, lifespan=with_app if takes_app else without)
    async with app.make_lifespan():
        assert seen == [app if takes_app else None]


async def test_no_lifespan() -> None:
    async with App(handler).make_lifespan() as value:
        assert value is None


@pytest.mark.parametrize("made", [None, nullcontext, [], open], ids=repr)
def test_a_lifespan_that_returns_something_else(made: Any) -> None:
    returns: Callable[..., Any] = lambda: made  # noqa: E731
    app = App(handler, lifespan=returns)
    with pytest.raises(TypeError, match=r"lifespan must return an asynchronous context manager"):
        app.make_lifespan()


def test_an_asgi_application_is_told_from_a_handler() -> None:
    class Framework:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    class Wrapped:
        def __init__(self) -> None:
            self.__call__ = asgi

    async def anything(*args: Any) -> None: ...

    assert is_asgi(asgi)
    assert is_asgi(Framework())
    assert not is_asgi(Framework)
    assert not is_asgi(handler)
    assert not is_asgi(anything)
    assert not is_asgi(None)
    assert App(asgi).asgi is asgi
    assert App(handler).asgi is None
    assert App(handler, http=asgi).asgi is asgi
    assert "http" not in App(handler, http=asgi).serve_options()


@pytest.mark.parametrize("name", ["subprotocols", "process_request", "process_response", "create_connection", "http"])
def test_options_that_an_asgi_application_has_no_use_for(name: str) -> None:
    value: Any = ["chat"] if name == "subprotocols" else asgi
    with pytest.raises(TypeError, match=f"{name} is for handlers, and an ASGI application is served: it"):
        App(asgi, **{name: value})


def test_http_must_be_an_asgi_application() -> None:
    with pytest.raises(TypeError, match="http must be an ASGI application"):
        App(handler, http=handler)
