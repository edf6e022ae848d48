"""Older forms of the documented API: each is understood, and warns with the name of today's form.

Everything about them is here; the places where they may be used have one line each that leads to this room. Nothing of
today's API depends on it, nothing here is called for a message, and older forms without a meaning today are not here:
see `GONE`. Exceptions and messages import this module, so it imports none of ours: callers pass the class of headers.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "CLIENT",
    "GONE",
    "NAMES",
    "OlderClosed",
    "OlderConnection",
    "OlderServer",
    "OlderStatus",
    "accepts",
    "give_path",
    "lookup",
    "positional",
    "server_arguments",
    "take_body",
    "takes_path",
    "warn",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def warn(form: str, today: str) -> None:
    """Warn of an older form at the line of the application that uses it, through any number of calls of ours.

    Args:
        form: what was used.
        today: what to do instead.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_between(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    warnings.warn_explicit(
        f"{form} is deprecated: {today}",
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", ""),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_between(module: str) -> bool:
    return module == "tidegate" or module.startswith(("tidegate.", "importlib."))


# Handlers that take the path, too.


def takes_path(handler: Callable[..., Any]) -> bool:
    """Return whether a handler takes a connection and a path, and cannot be called with a connection alone."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return False
    return not _binds(signature, 1) and _binds(signature, 2)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def give_path(handler: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return a handler of a connection alone, which passes the path to one that takes it."""
    if not takes_path(handler):
        return handler
    warn("handler(websocket, path)", "write handler(websocket), which finds the path in websocket.request.path")

    @functools.wraps(handler)
    async def with_path(connection: Any) -> None:
        await handler(connection, connection.request.path)

    return with_path


# Arguments of serve() and connect().

Arguments = dict[str, Any]
Translations = Mapping[str, tuple[str, Callable[[Arguments, Any], None]]]


def _renamed(today: str) -> Callable[[Arguments, Any], None]:
    def rename(arguments: Arguments, value: Any) -> None:
        if value is None:
            return  # which was the default
        if today in arguments:
            raise TypeError(f"{today} was given twice, once under an older name")
        arguments[today] = value

    return rename


def _ignored(arguments: Arguments, value: Any) -> None:
    """Drop an argument without effect."""


def _add_headers(make: Callable[[Any], Any], arguments: Arguments, value: Any) -> None:
    """Add `extra_headers` of a server: headers, or a function that makes them of the path and the request's headers."""
    if value is None:
        return
    process_response = arguments.get("process_response")
    if process_response is not None and not callable(process_response):
        return  # serve() will say so
    fixed = None if callable(value) else make(value)

    def add_headers(connection: Any, request: Any, response: Any) -> Any:
        if response.status_code == 101:
            extra = make(value(request.path, request.headers) or ()) if fixed is None else fixed
            if "Server" in extra:
                response.headers.pop("Server", None)
            response.headers.update(extra)
        return None if process_response is None else process_response(connection, request, response)

    arguments["process_response"] = add_headers


_EITHER: Translations = {
    "create_protocol": ("use create_connection", _renamed("create_connection")),
    "klass": ("use create_connection", _renamed("create_connection")),
    "loop": ("leave it out, the running event loop is used", _ignored),
    "read_limit": ("leave it out, max_queue is what bounds what is read ahead", _ignored),
    "timeout": ("use close_timeout", _renamed("close_timeout")),
}


def server_arguments(headers: Callable[[Any], Any]) -> Translations:
    """Return the older arguments of serve(): what to use instead, and what makes them today's.

    Args:
        headers: the class of headers.
    """
    add_headers = functools.partial(_add_headers, headers)
    return {
        **_EITHER,
        "extra_headers": ("use process_response, and server_header for the Server header", add_headers),
    }


CLIENT: Translations = {
    **_EITHER,
    "extra_headers": ("use additional_headers", _renamed("additional_headers")),
}
"""Older arguments of connect()."""


def accepts(translations: Translations) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorate a function so that it accepts older arguments by keyword."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def accepting(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for name in sorted(translations.keys() & kwargs.keys()):
                today, translate = translations[name]
                warn(f"the argument {name}", today)
                translate(kwargs, kwargs.pop(name))
            return function(*args, **kwargs)

        return accepting

    return decorate


def positional(*names: str, renamed: Mapping[str, str] | None = None) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorate a function so that it accepts its keyword-only arguments of these names by position, after the others.

    Args:
        names: in their older order.
        renamed: older names of arguments, and today's.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        code = inspect.unwrap(function)
        count = sum(
            parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            for parameter in inspect.signature(code).parameters.values()
        )

        @functools.wraps(function)
        def accepting(*args: Any, **kwargs: Any) -> _T:
            if count < len(args) <= count + len(names):
                for name, value in zip(names, args[count:], strict=False):
                    if name in kwargs:
                        raise TypeError(f"{name} was given twice")
                    warn(f"{name} by position", f"write {name}={value!r}")
                    kwargs[name] = value
                args = args[:count]
            for older, today in (renamed or {}).items():
                if older in kwargs:
                    warn(f"the argument {older}", f"use {today}")
                    kwargs[today] = kwargs.pop(older)
            return function(*args, **kwargs)

        return accepting

    return decorate


# Attributes. An attribute that the application sets under the same name replaces them, as it would no property.


class _Older:
    """An older attribute of objects: what it was, and what to use today."""

    def __init__(self, today: str, get: Callable[[Any], Any]) -> None:
        self._today = today
        self._get = get
        self.__doc__ = f"Older form: {today}."

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        warn(f"{type(instance).__name__}.{self._name}", self._today)
        return self._get(instance)


class OlderConnection:
    """Older attributes of connections."""

    __slots__ = ()

    open = _Older("use connection.state is State.OPEN", lambda connection: connection.state.name == "OPEN")
    closed = _Older("use connection.state is State.CLOSED", lambda connection: connection.state.name == "CLOSED")
    path = _Older("use connection.request.path", lambda connection: connection.request and connection.request.path)
    request_headers = _Older(
        "use connection.request.headers", lambda connection: connection.request and connection.request.headers
    )
    response_headers = _Older(
        "use connection.response.headers", lambda connection: connection.response and connection.response.headers
    )


class OlderServer:
    """Older attributes of servers."""

    websockets = _Older("use server.connections", lambda server: server.connections)


class OlderClosed:
    """Older attributes of ConnectionClosed: what came from the other side, 1006 and "" if nothing did."""

    code = _Older(
        "use exc.rcvd.code, or connection.close_code", lambda exc: 1006 if exc.rcvd is None else exc.rcvd.code
    )
    reason = _Older(
        "use exc.rcvd.reason, or connection.close_reason", lambda exc: "" if exc.rcvd is None else exc.rcvd.reason
    )


class OlderStatus:
    """Attributes of InvalidStatusCode, on InvalidStatus, which it is today."""

    status_code = _Older("use exc.response.status_code", lambda exc: exc.response.status_code)
    headers = _Older("use exc.response.headers", lambda exc: exc.response.headers)


def take_body(response: Any, headers: Callable[[Any], Any]) -> None:
    """Put the body of a response in its place, if it was passed as the headers, which are of the class `headers`."""
    body = response.headers
    if isinstance(body, bytes | bytearray):
        warn("Response(status, reason, body)", "use connection.respond(status, text), or give headers before the body")
        response.body = bytes(body)
        response.headers = headers([("Connection", "close"), ("Content-Length", str(len(body)))])


# Names.

NAMES: Mapping[str, Mapping[str, str]] = {
    "tidegate": {
        "InvalidStatusCode": "exceptions.InvalidStatus",
        "WebSocketClientProtocol": "asyncio.client.ClientConnection",
        "WebSocketCommonProtocol": "asyncio.connection.Connection",
        "WebSocketProtocolError": "exceptions.ProtocolError",
        "WebSocketServer": "asyncio.server.Server",
        "WebSocketServerProtocol": "asyncio.server.ServerConnection",
        "WebSocketURI": "uri.WebSocketURI",
        "parse_uri": "uri.parse_uri",
    },
    "tidegate.client": {
        "WebSocketClientProtocol": "asyncio.client.ClientConnection",
        "connect": "asyncio.client.connect",
        "unix_connect": "asyncio.client.unix_connect",
    },
    "tidegate.connection": {
        "Side": "protocol.Side",
        "State": "protocol.State",
    },
    "tidegate.exceptions": {
        "InvalidStatusCode": "exceptions.InvalidStatus",
        "WebSocketProtocolError": "exceptions.ProtocolError",
    },
    "tidegate.server": {
        "WebSocketServer": "asyncio.server.Server",
        "WebSocketServerProtocol": "asyncio.server.ServerConnection",
        "basic_auth": "asyncio.server.basic_auth",
        "broadcast": "asyncio.server.broadcast",
        "serve": "asyncio.server.serve",
        "unix_serve": "asyncio.server.unix_serve",
    },
}
"""Module -> older names -> where they lead to."""

_RESPOND = "process_request returns connection.respond(status, text) instead"
_NATIVE = "the protocol is part of tidegate.asyncio.connection.Connection, whose bytes native code reads"

GONE: Mapping[str, str] = {
    "AbortHandshake": _RESPOND,
    "RedirectHandshake": _RESPOND,
    "BasicAuthWebSocketServerProtocol": "use process_request=basic_auth(realm, credentials)",
    "basic_auth_protocol_factory": "use process_request=basic_auth(realm, credentials)",
    "ClientProtocol": _NATIVE,
    "Connection": _NATIVE,
    "Protocol": _NATIVE,
    "SEND_EOF": _NATIVE,
    "ServerProtocol": _NATIVE,
}
"""Documented names that are not there: why, or what does the same."""


def lookup(module: str, name: str) -> Any:
    """Return what an older name of a module stands for, for the module's `__getattr__`.

    Raises:
        AttributeError: if it has none such.
    """
    target = NAMES.get(module, {}).get(name)
    if target is None:
        why = f": {GONE[name]}" if name in GONE else ""
        raise AttributeError(f"module {module!r} has no attribute {name!r}{why}", name=name)
    warn(f"{module}.{name}", f"use tidegate.{target}")
    home, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(f"tidegate.{home}"), attribute)
