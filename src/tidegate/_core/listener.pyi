import asyncio
import socket
from collections.abc import Callable

from .stream import Stream

class Listener:
    loop: asyncio.AbstractEventLoop
    sock: socket.socket
    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol]
    ) -> None: ...
    def start(self, backlog: int) -> None: ...
    def streams(self) -> list[Stream]: ...
    def stop(self) -> None: ...
