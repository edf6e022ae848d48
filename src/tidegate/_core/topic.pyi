from collections.abc import Iterable
from typing import final

@final
class Topic:
    id: int
    epoch: int
    top: int
    size: int
    history: int
    keep: int
    history_bytes: int
    name: str | None
    users: int
    count: int
    subscribed: int
    @property
    def first(self) -> int: ...
    def read(self, number: int, offset: int, messages: int, size: int, backward: bool = False) -> bytes: ...

def usage(topics: Iterable[Topic]) -> tuple[int, int]: ...
