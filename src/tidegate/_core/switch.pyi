from collections.abc import Callable
from typing import Any, final

from .hub_link import Link
from .journal import Journal
from .topic import Topic

@final
class Switch:
    journal: Journal
    links: dict[int, Link]
    published: int
    delivered: int
    message_limit: int
    def __init__(
        self,
        journal: Journal,
        on_frame: Callable[[Link, int, int, int, int, int, bytes], None],
        on_end: Callable[[Link], None],
        message_limit: int = ...,
    ) -> None: ...
    def watch(self, fd: int) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def add(self, fd: int, data: Any = None) -> Link: ...
    def touch(self, link: Link) -> None: ...
    def announce(self, topic: Topic, kind: int, payload: bytes) -> None: ...
    def turn(self, seconds: float) -> list[int]: ...
    def close(self) -> None: ...
