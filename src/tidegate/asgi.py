"""ASGI for servers of others: ``uvicorn app:app --ws tidegate.asgi:WebSocketProtocol``.

    WebSocketProtocol     connections of WebSocket, as uvicorn makes them
    ClientDisconnected    what send() raises when the client has left, here as under `tidegate serve`

The server stays uvicorn, with its processes, its HTTP and its settings; those called `ws_...` are taken. What must not
live here: connections as such (asyncio/asgi.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from . import defaults
from .asyncio.asgi import AsgiConnection, AsgiDoor, ClientDisconnected, no_handler
from .asyncio.deadlines import Deadlines
from .asyncio.options import ProcessPolicy, ServerSettings, Settings
from .asyncio.registry import ConnectionRegistry
from .asyncio.scope import Headers
from .exceptions import BusError
from .extensions.permessage_deflate import enable_server_permessage_deflate
from .frames import CloseCode
from .http11 import Response
from .server import HandshakeOptions

__all__ = ["ClientDisconnected", "WebSocketProtocol"]


class WebSocketProtocol(AsgiConnection):
    """A connection of WebSocket that uvicorn has accepted.

    Args:
        config: uvicorn's.
        server_state: its connections and tasks.
        app_state: of the application's lifespan.
        _loop: the event loop; the running one by default.
    """

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        shared = _servers.get(server_state)
        if shared is None:
            loop = _loop or asyncio.get_running_loop()
            shared = _servers[server_state] = _Uvicorn(config, server_state, app_state, loop)
        super().__init__(shared.settings, shared, shared.door)  # type: ignore[arg-type]
        self._connections = server_state.connections
        self._server_state = server_state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    # The headers of each response are uvicorn's: of its settings, and of each second.

    def _default_headers(self) -> Headers:
        return [(name.lower(), value) for name, value in self._server_state.default_headers]

    def _call(self, pending: bytes) -> None:
        first, *lines = pending.splitlines(keepends=True)
        defaults = [name + b": " + value + b"\r\n" for name, value in self._default_headers()]
        super()._call(b"".join([first, *defaults, *(line for line in lines if not line.lower().startswith(b"date:"))]))

    def _with_server_header(self, response: Response) -> Response:
        if response.status_code != 101:
            response.headers.pop("Date", None)
            for name, value in self._default_headers():
                response.headers[name.decode("latin-1")] = value.decode("latin-1")
        return response

    def shutdown(self) -> None:
        """End: uvicorn calls it when it stops. The close code is its own, the response ours (uvicorn's is 500)."""
        if self._was_accepted:
            self.start_closing(CloseCode.SERVICE_RESTART, "")
        else:
            self.on_rejecting()


class _Uvicorn:
    """What its connections share.

    Parameters:
        config: uvicorn's.
        server_state: its connections and tasks.
        app_state: of the application's lifespan.
        loop: the event loop.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        limits = Settings.check(
            open_timeout=defaults.OPEN_TIMEOUT,
            ping_interval=config.ws_ping_interval or None,
            ping_timeout=config.ws_ping_timeout or None,
            close_timeout=defaults.CLOSE_TIMEOUT,
            max_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            write_limit=defaults.WRITE_LIMIT,
        )
        extensions = enable_server_permessage_deflate(None) if config.ws_per_message_deflate else None
        self.door = AsgiDoor(config.loaded_app, root_path=config.root_path, state=app_state)
        self.settings = ServerSettings(
            loop=loop,
            logger=logging.getLogger("uvicorn.error"),
            deadlines=Deadlines(loop),
            handler=no_handler,
            handshake=HandshakeOptions(extensions=extensions),
            process_request=None,
            process_response=None,
            server_header=None,  # it is among the default headers
            policy=ProcessPolicy(failures=BaseException, event_level=logging.DEBUG),
            registry=ConnectionRegistry(lambda: None),
            start=functools.partial(_start, loop, server_state.tasks),
            **limits,
        )

    has_bus = False

    @property
    def bus(self) -> Any:
        """There is none.

        Raises:
            BusError: always.
        """
        raise BusError("channels need `tidegate serve`: uvicorn has no bus")


def _start(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = loop.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


_servers: WeakKeyDictionary[Any, _Uvicorn] = WeakKeyDictionary()
