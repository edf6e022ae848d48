"""Routing: `route()`, a server whose handlers are found by a `werkzeug.routing.Map`.

The only module that imports werkzeug, which takes long. What must not live here: matching (werkzeug), and what a
server does (server.py).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect

from ..app import check_map
from ..exceptions import InvalidHandshake, InvalidHeader
from ..server import rejection_of
from .auth import guard_of, in_turn
from .server import serve

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable

    from ..http11 import Request, Response
    from ..typing import PathLike
    from .server import ProcessRequest, Server, ServerConnection

__all__ = ["Router", "route", "unix_route"]

_slash = re.compile("%2[Ff]").split


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: type[Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Create a WebSocket server that chooses a connection's handler by the path of its request.

    It takes the arguments of `serve()`, with these differences::

        async def chat(websocket, room): ...

        url_map = Map([Rule("/chat/<uuid:room>", endpoint=chat), Rule("/talk", redirect_to="/chat")])

        async with route(url_map, "localhost", 8765) as server: ...

    The endpoint of each rule is a handler; what the rule takes from the path is given to it by keyword. Rules need not
    say `websocket=True`: all are taken for such. A request that no rule matches is answered with 404, a redirect with
    302. `process_request`, if there is one, comes before routing. See the documentation of werkzeug.routing for what a
    map can do.

    Behind a proxy that changes the Host header or ends TLS, redirects need to know what clients see: `server_name` and
    `ssl=True`.

    Args:
        url_map: rules, and their handlers.
        args: host and port, as for `serve()`.
        server_name: name of the server as clients see it, with a port if it is not the usual one; by default what the
            Host header says.
        ssl: a TLS context; or True, if clients come by TLS that a proxy ends: redirects go to `wss://` then.
        create_router: `Router`, a subclass, or a function that makes one.
        kwargs: as for `serve()`.

    Raises:
        TypeError: if the map is none, an endpoint is no handler, or an argument is wrong.
        ValueError: as `serve()`.
    """
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")
    process_request: ProcessRequest | None = kwargs.pop("process_request", None)
    if process_request is not None and not callable(process_request):
        raise TypeError(f"process_request must be a function, not {process_request!r}")
    if type(router) is Router:  # others may give their endpoints a meaning of their own
        check_map(url_map)
    return serve(router.handler, *args, process_request=in_turn(process_request, router.route_request, _ask), **kwargs)


def unix_route(url_map: Map, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Create a WebSocket server on a Unix socket that chooses a connection's handler by the path of its request.

    Args:
        url_map: rules, and their handlers.
        path: of the socket, or None with `sock=`.
        kwargs: as for `route()`.
    """
    return route(url_map, unix=True, path=path, **kwargs)


def _ask(connection: ServerConnection, request: Request) -> Awaitable[Response | None] | None:
    """Authenticate, if the handler that was found is decorated with `basic_auth()`."""
    guard = guard_of(getattr(connection, "handler", None))
    return None if guard is None else guard(connection, request)


class Router:
    """The router of `route()`; its methods may be overridden.

    Args:
        url_map: rules, and their handlers; its rules are changed to match WebSockets.
        server_name: name of the server as clients see it; by default what the Host header says.
        url_scheme: "ws", or "wss" for redirects to that.

    Raises:
        TypeError: if `url_map` is none.
    """

    def __init__(self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws") -> None:
        if not isinstance(url_map, Map):
            raise TypeError(f"url_map must be a werkzeug.routing.Map, not {url_map!r}")
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """Return the name of the server, and its port, for rules of hosts and for redirects.

        Args:
            connection: the connection, whose handshake is not over.
            request: its request.

        Raises:
            InvalidHeader: if there is not one Host header (RFC 9112 3.2); the answer is 400.
        """
        if self.server_name is not None:
            return self.server_name
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1:
            raise InvalidHeader("Host", "multiple values" if hosts else None)
        return hosts[0]

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """Make the response that redirects to another URL: 302, with that URL as Location.

        Args:
            connection: the connection, whose handshake is not over.
            url: where to go.
        """
        response = connection.respond(HTTPStatus.FOUND, f"Found at {url}")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """Make the response to a request that no rule is for: 404.

        Args:
            connection: the connection, whose handshake is not over.
        """
        return connection.respond(HTTPStatus.NOT_FOUND, "Not Found")

    def route_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Find the handler of a request.

        Args:
            connection: the connection, whose handshake is not over.
            request: its request.

        Returns:
            None, with `handler` and `handler_kwargs` of the connection set; or the response, if there is none.
        """
        path, query = _path_and_query(request.path)
        try:
            server_name = self.get_server_name(connection, request)
            adapter = self.url_map.bind(server_name=server_name, url_scheme=self.url_scheme)
            handler, arguments = adapter.match(path_info=path, query_args=query)
        except RequestRedirect as redirect:
            return self.redirect(connection, redirect.new_url)
        except (NotFound, MethodNotAllowed):
            return self.not_found(connection)
        except InvalidHandshake as exc:
            return rejection_of(exc)
        except HTTPException as exc:  # an invalid host name, or what a function of the map raises
            return connection.respond(exc.code or HTTPStatus.INTERNAL_SERVER_ERROR, f"{exc.name}\n")
        connection.handler, connection.handler_kwargs = handler, dict(arguments)
        return None

    async def handler(self, connection: ServerConnection) -> None:
        """Run the handler that was found, as `serve()` runs a handler.

        Args:
            connection: the connection, open, with `handler` and `handler_kwargs`.
        """
        handler: Callable[..., Awaitable[None]] = connection.handler
        await handler(connection, **connection.handler_kwargs)


def _path_and_query(target: str) -> tuple[str, str]:
    """Return the path of a request's target, decoded as werkzeug needs it, and the query as it is (RFC 9112 3.2).

    An encoded slash stays encoded: it is part of a segment, and separates none (RFC 3986 2.2).
    """
    path, _, query = target.partition("#")[0].partition("?")
    if "://" in path and not path.startswith("/"):  # as to a proxy
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path:
        path = "%2F".join([unquote(piece) for piece in _slash(path)])
    return path, query
