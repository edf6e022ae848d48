"""`App`: a handler, or an ASGI application, with those options that only Python can express.

Numbers and words are settings of the command (config/schema.py); an App has the objects. It is checked when it is made,
so that a mistake shows where it was written.

What must not live here: settings, loading an App from a module (worker/loader.py), serving it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from ._compat import takes_path
from .channels import Channel, check_channels

if TYPE_CHECKING:
    from ssl import SSLContext

    from werkzeug.routing import Map

__all__ = ["App", "check_map", "is_asgi", "is_map"]


@dataclass(frozen=True, slots=True)
class App:
    """A handler and those options of ``serve()`` that are objects, for ``tidegate serve MODULE:ATTRIBUTE``.

        @asynccontextmanager
        async def lifespan():
            async with Database() as database:
                ...
                yield

        app = App(handler, lifespan=lifespan, subprotocols=["chat"])

    Parameters:
        handler: ``async def handler(websocket)``, or any callable that takes a connection and returns an awaitable; or
            a ``werkzeug.routing.Map`` of them, served as by ``route()``. Redirects behind a proxy that ends TLS need a
            ``Router`` that knows: give ``router.handler``, and ``process_request=router.route_request``. Or an ASGI
            application, ``async def app(scope, receive, send)``, for WebSocket and for HTTP.
        http: an ASGI application for requests that open no WebSocket, beside a handler.
        lifespan: called once in each worker, without arguments or with the App, for an asynchronous context manager
            that is entered before the worker serves and left after its last connection has ended.
        origins: acceptable values of the Origin header: strings, compiled regular expressions, None for a lack of it.
        subprotocols: supported subprotocols, in order of preference.
        select_subprotocol: chooses one of those that the client offers; called with the connection and their list.
        extensions: factories of the extensions to negotiate, in order.
        process_request: called with the connection and the request before the handshake; may answer instead of it.
        process_response: called with the connection, the request and the response; may replace the response.
        create_connection: the class of connections, or a function that makes one.
        logger: where connections log.
        ssl: a TLS context, for ``wss://`` instead of ``ws://``.
        channels: policy of the channels with each prefix, which connections of all workers may join; see ``Channel``.

    Raises:
        TypeError: a parameter is not what it must be; the message names it and says what would be right.
    """

    handler: Callable[[Any], Awaitable[Any]] | Map | Callable[[Any, Any, Any], Awaitable[Any]]
    _: KW_ONLY
    http: Callable[[Any, Any, Any], Awaitable[Any]] | None = None
    lifespan: Callable[..., AbstractAsyncContextManager[Any]] | None = None
    origins: Sequence[str | re.Pattern[str] | None] | None = None
    subprotocols: Sequence[str] | None = None
    select_subprotocol: Callable[[Any, Sequence[Any]], Any] | None = None
    extensions: Sequence[Any] | None = None
    process_request: Callable[[Any, Any], Any] | None = None
    process_response: Callable[[Any, Any, Any], Any] | None = None
    create_connection: Callable[..., Any] | None = None
    logger: Any = None
    ssl: SSLContext | None = None
    channels: Mapping[str, Channel] | None = None

    def __post_init__(self) -> None:
        if is_map(self.handler):
            check_map(self.handler)
        elif is_asgi(self.handler):
            self._check_asgi()
        else:
            _check_handler(self.handler)
        if self.http is not None and not is_asgi(self.http):
            raise TypeError(f"http must be an ASGI application, app(scope, receive, send), not {_found(self.http)}")
        for name, arguments in _HOOKS.items():
            if (hook := getattr(self, name)) is not None:
                _check_callable(name, hook, arguments)
        if self.lifespan is not None:
            _check_lifespan(self.lifespan)
        _check_list("origins", self.origins, str | re.Pattern | None, "strings, compiled regular expressions or None")
        _check_list("subprotocols", self.subprotocols, str, "strings")
        _check_list("extensions", self.extensions, object, "factories of extensions")
        if self.create_connection is not None and not callable(self.create_connection):
            raise TypeError(f"create_connection must be a class or a function, not {_found(self.create_connection)}")
        if self.ssl is not None and not hasattr(self.ssl, "wrap_bio"):
            raise TypeError(f"ssl must be an ssl.SSLContext, not {_found(self.ssl)}")
        if self.channels is not None:
            check_channels(self.channels)

    def _check_asgi(self) -> None:
        """Check that there is no option that only handlers have."""
        for name, instead in _NOT_ASGI.items():
            if getattr(self, name) is not None:
                raise TypeError(f"{name} is for handlers, and an ASGI application is served: {instead}")

    @property
    def asgi(self) -> Callable[[Any, Any, Any], Awaitable[Any]] | None:
        """The ASGI application, for WebSocket and HTTP or beside the handler; None without one."""
        return self.handler if is_asgi(self.handler) else self.http

    def serve_options(self) -> dict[str, Any]:
        """Return the arguments of ``serve()`` that were given here, by name."""
        options = {name: getattr(self, name) for name in self.__slots__ if name not in ("handler", "http", "lifespan")}
        return {name: value for name, value in options.items() if value is not None}

    def make_lifespan(self) -> AbstractAsyncContextManager[Any]:
        """Make one worker's `lifespan`, not yet entered; one that does nothing where there is none.

        Raises:
            TypeError: what `lifespan` returned is no asynchronous context manager.
        """
        if self.lifespan is None:
            return nullcontext()
        manager = self.lifespan(self) if _fits(self.lifespan, self) else self.lifespan()
        if not isinstance(manager, AbstractAsyncContextManager):
            if inspect.iscoroutine(manager):
                manager.close()
            raise TypeError(
                f"lifespan must return an asynchronous context manager, not {_found(manager)}: "
                "decorate an async generator function with contextlib.asynccontextmanager"
            )
        return manager


def is_map(handler: object) -> TypeGuard[Map]:
    """Return whether `handler` is a map of handlers, without importing werkzeug: whose map it is has done that."""
    routing = sys.modules.get("werkzeug.routing")
    return routing is not None and isinstance(handler, routing.Map)


def is_asgi(application: object) -> TypeGuard[Callable[[Any, Any, Any], Awaitable[Any]]]:
    """Return whether it is an ASGI application: it takes a scope and two functions, and no connection alone."""
    if inspect.isclass(application) or not callable(application) or is_map(application):
        return False
    return _signature(application) is not None and _fits(application, *_EVENTS) and not _fits(application, "websocket")


def check_map(url_map: Map) -> None:
    """Check the handlers of `url_map`.

    Raises:
        TypeError: one of them is none; the message names its rule.
    """
    for rule in url_map.iter_rules():
        if rule.redirect_to is None and not rule.build_only:
            _check_handler(rule.endpoint, f"the endpoint of the rule {rule.rule!r}", sorted(rule.arguments))


_EVENTS = ("scope", "receive", "send")

# Options that an ASGI application has no use for, and what it does instead.
_NOT_ASGI = {
    "http": "it is called with HTTP requests, too",
    "subprotocols": "it chooses one when it accepts",
    "select_subprotocol": "it chooses one when it accepts",
    "process_request": "it answers requests by itself, or a middleware does",
    "process_response": "it answers requests by itself, or a middleware does",
    "create_connection": "its connections are of a class of their own",
}

# What each hook is called with.
_HOOKS = {
    "select_subprotocol": ("connection", "subprotocols"),
    "process_request": ("connection", "request"),
    "process_response": ("connection", "request", "response"),
}


def _found(value: object) -> str:
    """Describe a value in a few words."""
    if inspect.isclass(value):
        return f"the class {value.__qualname__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__qualname__', value)}{_signature(value) or ''}"
    if inspect.ismodule(value):
        return f"the module {value.__name__}"
    return f"{type(value).__qualname__} {value!r:.60}"


def _signature(value: Callable[..., Any]) -> inspect.Signature | None:
    for function in (value, getattr(value, "__call__", None)):  # noqa: B004  # some objects have one of their own
        try:
            return inspect.signature(cast("Callable[..., Any]", function))
        except (TypeError, ValueError):  # some callables written in C do not tell
            continue
    return None


def _fits(value: Callable[..., Any], *arguments: object, **keywords: object) -> bool:
    """Return whether it can be called with these arguments, as far as it tells."""
    signature = _signature(value)
    if signature is None:
        return True
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def _check_callable(name: str, value: Any, arguments: Sequence[str]) -> None:
    wanted = f"{name}({', '.join(arguments)})"
    if not callable(value):
        raise TypeError(f"{name} must be a callable, {wanted}, not {_found(value)}")
    if not _fits(value, *arguments):
        raise TypeError(f"{name} must accept the call {wanted}, and this cannot: {_found(value)}")


def _check_handler(handler: Any, what: str = "the handler", names: Sequence[str] = ()) -> None:
    """Check that a handler takes the connection, and by these names what its rule takes from the path."""
    wanted = f"async def handler({', '.join(['websocket', *names])})"
    if inspect.isclass(handler):
        raise TypeError(f"{what} must be a function or an object with __call__, {wanted}, not {_found(handler)}")
    if not callable(handler):
        raise TypeError(f"{what} must be a callable, {wanted}, not {_found(handler)}")
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(f"{what} must be {wanted}, and has a yield: {_found(handler)}")
    if not _fits(handler, "websocket", **dict.fromkeys(names)) and not _is_older(handler, names):
        taken = f"and {', '.join(names)}" if names else "alone"
        raise TypeError(f"{what} must take the connection {taken}, {wanted}, not {_found(handler)}")


def _is_older(handler: Any, names: Sequence[str]) -> bool:
    """Return whether a handler takes a connection and its path, which serve() warns of; a WSGI application does not."""
    return not names and inspect.iscoroutinefunction(handler) and takes_path(handler)


def _check_lifespan(lifespan: Any) -> None:
    if not callable(lifespan) or isinstance(lifespan, AbstractAsyncContextManager):
        raise TypeError(
            f"lifespan must be a function that returns an asynchronous context manager, not {_found(lifespan)}"
        )
    if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
        raise TypeError(f"lifespan must be decorated with contextlib.asynccontextmanager: {_found(lifespan)}")
    if not _fits(lifespan, "app") and not _fits(lifespan):
        raise TypeError(f"lifespan must take no argument, or the App: {_found(lifespan)}")


def _check_list(name: str, values: Any, kind: Any, words: str) -> None:
    if values is None:
        return
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, not {_found(values)}")
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a list of {words}: there is {_found(value)} in it")
