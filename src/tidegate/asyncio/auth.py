"""HTTP Basic authentication, in both documented forms: a `process_request`, and a decorator of handlers (RFC 7617).

Either way the client is asked before the connection opens. What must not live here: the grammar of the headers
(headers), and how a server runs its hooks (server).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from ..exceptions import InvalidHeader
from ..frames import CloseCode
from ..headers import build_www_authenticate_basic, parse_authorization_basic
from .connection import Connection

if TYPE_CHECKING:
    from ..http11 import Request, Response
    from .server_connection import BaseServerConnection

__all__ = ["basic_auth"]

Guard = Callable[["BaseServerConnection", "Request"], Awaitable["Response | None"]]
_C = TypeVar("_C", bound="BaseServerConnection")
Hook = Callable[[_C, "Request"], "Awaitable[Response | None] | Response | None"]
"""A `process_request`."""
CheckCredentials = Callable[[str, str], Awaitable[bool] | bool]
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[None]])


def process_request_of(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: CheckCredentials | None = None,
) -> Guard:
    """Make a `process_request`: the first form of `basic_auth()`, which has the arguments' meaning."""
    check = _check_of(credentials, check_credentials)
    if not isinstance(realm, str):
        raise TypeError(f"realm must be a str, not {realm!r}")
    challenge = build_www_authenticate_basic(realm)

    def unauthorized(connection: BaseServerConnection, text: str) -> Response:
        response = connection.respond(HTTPStatus.UNAUTHORIZED, text)
        response.headers["WWW-Authenticate"] = challenge
        return response

    async def process_request(connection: BaseServerConnection, request: Request) -> Response | None:
        """Let the client go on, and set the connection's `username`; or answer 401 (RFC 9110 11.6.1)."""
        values = request.headers.get_all("Authorization")
        if not values:
            return unauthorized(connection, "Missing credentials\n")
        try:
            (value,) = values
            username, password = parse_authorization_basic(value)
        except (InvalidHeader, ValueError):
            return unauthorized(connection, "Unsupported credentials\n")
        valid = check(username, password)
        if isinstance(valid, Awaitable):
            valid = await valid
        if not valid:
            return unauthorized(connection, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request


def _check_of(credentials: Any, check_credentials: Any) -> CheckCredentials:
    """Return the one of these that was given, as a function."""
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    if credentials is None:
        if not callable(check_credentials):
            raise TypeError(f"invalid check_credentials argument: expected a function, not {check_credentials!r}")
        return cast(CheckCredentials, check_credentials)
    pairs = [credentials] if _is_pair(credentials) else credentials
    if isinstance(pairs, Iterable) and not isinstance(pairs, str | bytes):
        pairs = list(pairs)
        if all(_is_pair(pair) for pair in pairs):
            return _checker(pairs)
    # Without the value: there may be passwords in it.
    raise TypeError("invalid credentials argument: expected (username, password), or a list of such pairs, of str")


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str)
    )


def _checker(pairs: Iterable[tuple[str, str]]) -> CheckCredentials:
    """Return a check against these, whose time tells neither known names nor anything of a password."""
    passwords = {username: _digest(password) for username, password in pairs}
    unknown = secrets.token_bytes(hashlib.sha256().digest_size)

    def check(username: str, password: str) -> bool:
        return hmac.compare_digest(passwords.get(username, unknown), _digest(password))

    return check


def _digest(password: str) -> bytes:
    # Bytes that were no UTF-8 are surrogates, and become bytes again.
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()


class Guarded:
    """A handler, or a method that is one, whose clients are authenticated first.

    Servers find the guard and call it before they open a connection. Inside of another function, where servers cannot
    see it, a handler calls it by itself: too late for 401, it can only close the connection with 1008 (policy
    violation, RFC 6455 7.4.1).
    """

    def __init__(self, handler: Callable[..., Awaitable[None]], guard: Guard) -> None:
        functools.update_wrapper(self, handler)
        self._handler = handler
        self._guard = guard

    def __get__(self, instance: Any, owner: type | None = None) -> Guarded:
        handler: Any = self._handler
        return Guarded(handler.__get__(instance, owner), self._guard) if hasattr(handler, "__get__") else self

    def __repr__(self) -> str:
        return f"basic_auth()({self._handler!r})"

    async def __call__(self, *args: Any, **kwargs: Any) -> None:
        # The connection is first, or behind `self` in a method that another decorator calls.
        websocket = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, Connection)), None)
        if websocket is None:
            raise TypeError(f"{self!r} must be called with a connection")
        request = websocket.request
        if request is None or await self._guard(cast("BaseServerConnection", websocket), request) is not None:
            await websocket.close(CloseCode.POLICY_VIOLATION, "authentication required")
            return
        await self._handler(*args, **kwargs)


def guard_of(handler: Any) -> Guard | None:
    """Return what the decorator put before a handler; None if there is nothing, or nothing that can be seen."""
    while handler is not None:
        if isinstance(handler, Guarded):
            return handler._guard
        handler = handler.func if isinstance(handler, functools.partial) else getattr(handler, "__wrapped__", None)
    return None


def in_turn(*hooks: Hook[_C] | None) -> Hook[_C]:
    """Make a `process_request` that calls several, until one answers."""
    asked = [hook for hook in hooks if hook is not None]

    async def process_request(connection: _C, request: Request) -> Response | None:
        for hook in asked:
            response = hook(connection, request)
            if isinstance(response, Awaitable):
                response = await response
            if response is not None:
                return response
        return None

    return process_request


def guarded(handler: Any, process_request: Hook[_C] | None) -> Hook[_C] | None:
    """Make the `process_request` of a handler's server: first the one that was given, then the handler's guard."""
    guard = guard_of(handler)
    return process_request if guard is None else in_turn(process_request, guard)


@overload
def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: CheckCredentials | None = None,
) -> Guard: ...


@overload
def basic_auth(username: str, password: str, realm: str = "WebSocket") -> Callable[[_Handler], _Handler]: ...


@functools.wraps(process_request_of, assigned=(), updated=())  # its signature is the documented one
def basic_auth(*args: Any, **kwargs: Any) -> Any:
    """Enforce HTTP Basic authentication (RFC 7617).

    As a `process_request`, for all clients of a server::

        async with serve(handler, process_request=basic_auth("my server", credentials=("hello", "iloveyou"))): ...

    As a decorator of a handler, for its clients wherever it is served: by `serve()`, by a rule of `route()`, by the
    daemon. Of two strings the second is a password, and this form is meant::

        @basic_auth("hello", "iloveyou", realm="my server")
        async def handler(websocket): ...

    A client that is let in has its name in the connection's `username`; others get a response with status 401, and
    connections that were opened all the same, because the handler could not be seen inside of another function, are
    closed with code 1008. A `process_request` of the server's own, and routing, come first.

    Args:
        realm: what is protected; ASCII, because the encoding of other characters is undefined (RFC 7235 2.2).
        credentials: the user name and the password, or an iterable of such pairs.
        check_credentials: function or coroutine function of a user name and a password that returns whether they are
            valid. One of `credentials` and `check_credentials` must be given.
        username, password: of the decorator's form, whose `realm` is "WebSocket" by default.

    Raises:
        TypeError: if `credentials` or `check_credentials` is wrong.
        ValueError: if both are given or none is, or a header cannot hold the realm.
    """
    if "username" in kwargs or "password" in kwargs or (len(args) > 1 and isinstance(args[1], str)):
        return _decorator(*args, **kwargs)
    return process_request_of(*args, **kwargs)


def _decorator(username: str, password: str, realm: str = "WebSocket") -> Callable[[Any], Guarded]:
    guard = process_request_of(realm, (username, password))

    def decorate(handler: Any) -> Guarded:
        if not callable(handler):
            raise TypeError(f"basic_auth() decorates handlers, not {handler!r}")
        return Guarded(handler, guard)

    return decorate
