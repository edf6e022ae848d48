"""One message to many connections, framed once.

What must not live here: choosing the connections; rooms across processes are for the bus.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .._compat import positional
from .._core.broadcast import broadcast as native_broadcast
from ..exceptions import ConcurrencyError
from ..frames import Opcode

if TYPE_CHECKING:
    from ..typing import DataLike
    from .connection import Connection

__all__ = ["broadcast"]


@positional("raise_exceptions", renamed={"websockets": "connections"})
def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send a message to several connections at once, without waiting: there is no backpressure, but a bound.

    To many connections it is written over several turns of the event loop, so that others need not wait for it. All
    that is sent to a connection stays in the order of the calls.

    What a client does not read piles up in its write buffer. When a broadcast would make that more than
    `broadcast_limit` bytes, the client is closed with code 1013 (try again later) instead.

    Connections that are not open are skipped. Those in the middle of a fragmented message are skipped too, and a
    failure to write to one does not stop the others; either is logged as a warning, or raised at the end.

    Args:
        connections: `ServerConnection`s, or `ClientConnection`s.
        message: str for a text, bytes-like for a binary message.
        text: True or False to send it as text or binary whatever its type.
        raise_exceptions: raise what failed instead of logging it.

    Raises:
        TypeError: if the message is neither str nor bytes-like.
        ExceptionGroup: of what failed, with `raise_exceptions`.
    """
    if isinstance(message, str):
        opcode = Opcode.BINARY if text is False else Opcode.TEXT
        payload = message.encode()
    elif isinstance(message, (bytes, bytearray, memoryview)):
        opcode = Opcode.TEXT if text is True else Opcode.BINARY
        payload = bytes(message)
    else:
        raise TypeError("data must be str or bytes")
    rest, failed = native_broadcast(connections, opcode, payload)
    failures: list[Exception] = []
    for connection in rest:
        try:
            connection.send_broadcast(opcode, payload)
        except ConcurrencyError as exc:
            if raise_exceptions:
                failures.append(exc)
            else:
                connection.logger.warning("skipped broadcast: %s", exc)
        except Exception as exc:
            failed.append((connection, exc))
    for connection, reason in failed:
        if raise_exceptions:
            failure = RuntimeError("failed to write message")
            failure.__cause__ = reason
            failures.append(failure)
        else:
            what = traceback.format_exception_only(reason)[0].strip()
            connection.logger.warning("skipped broadcast: failed to write message: %s", what)
    if failures:
        raise ExceptionGroup("skipped broadcast", failures)
