from collections.abc import Iterable
from typing import TypeVar

from .messages import MessageChannel

_Connection = TypeVar("_Connection", bound=MessageChannel)

def broadcast(
    connections: Iterable[_Connection], opcode: int, payload: bytes
) -> tuple[list[_Connection], list[tuple[_Connection, Exception]]]: ...
