"""Arguments of send(), ping() and pong(): text or binary, one message or the fragments of one.

What must not live here: sending.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..frames import Opcode

if TYPE_CHECKING:
    from ..typing import DataLike

__all__ = ["control_payload", "fragments", "opcode_of"]


def opcode_of(data: DataLike, text: bool | None) -> Opcode:
    """Return the opcode of a message that begins with `data`; `text` overrides its type."""
    return Opcode.TEXT if (isinstance(data, str) if text is None else text) else Opcode.BINARY


def control_payload(data: DataLike) -> bytes:
    """Return the payload of a ping or pong.

    Raises:
        TypeError: for another type.
    """
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError("data must be str or bytes-like")


def fragments(message: Any) -> tuple[str, AsyncIterator[Any]]:
    """Return the kind of what was given, in words, and an iterator of the fragments.

    Raises:
        TypeError: if it is no message.
    """
    if isinstance(message, Mapping):
        raise TypeError("data is a dict-like object")
    if isinstance(message, Iterable):
        return "iterable", _asynchronous(message)
    if isinstance(message, AsyncIterable):
        return "async iterable", aiter(message)
    raise TypeError("data must be str, bytes, iterable, or async iterable")


async def _asynchronous(parts: Iterable[Any]) -> AsyncIterator[Any]:
    for part in parts:
        yield part
