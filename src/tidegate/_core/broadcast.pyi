from collections.abc import Iterable
from typing import TypeVar

from .channel import Channel

_Connection = TypeVar("_Connection", bound=Channel)

def broadcast(
    connections: Iterable[_Connection], opcode: int, payload: bytes
) -> tuple[list[_Connection], list[tuple[_Connection, Exception]]]: ...
