"""The access log: a line for each opening handshake, and one for each open connection that ends.

It is the logger ``tidegate.access``, and off unless its level is INFO. Connections ask twice in their life whether it
is on, never for a message, and call these functions only if it is.

    handshake     method, path, status, user_agent, duration; error, if there was no answer
    request       an HTTP request of an ASGI application: method, path, status, user_agent, duration
    close         code, reason, initiator, duration; error, if it was an abort

What must not live here: what a line looks like (logs), which side began to close (closing.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from ..http11 import parse_request
from ..redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..closing import Closing
    from ..http11 import Request

__all__ = ["log_close", "log_handshake", "log_request", "logger"]

logger = logging.getLogger("tidegate.access")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.CRITICAL + 1)  # or its parent's level would turn it on

LONGEST: Final = {"path": 2000, "user_agent": 500, "error": 500}
"""Characters of what may be long: a line that is written in pieces may have another in its middle."""


def log_handshake(
    connection: object,
    request: Request | bytes | None,
    duration: float,
    status: int | None = None,
    failure: str | None = None,
) -> None:
    """Log the end of an opening handshake, with an answer or without one.

    Args:
        connection: whose handshake; the line's `websocket`.
        request: as far as it is known.
        duration: seconds since the connection was accepted.
        status: of the answer.
        failure: why there was none.
    """
    if isinstance(request, bytes):
        request = parse_request(request)  # and not `connection.request`, which would keep it
    agents = [] if request is None else request.headers.get_all("User-Agent")
    extra = {
        "websocket": connection,
        "method": None if request is None else request.method,
        "path": None if request is None else _cut("path", redact(request.path)),
        "status": status,
        "error": failure,
        "user_agent": _cut("user_agent", agents[0]) if agents else None,
        "duration": round(duration, 6),
    }
    _log("handshake", extra)


def log_request(connection: object, scope: Mapping[str, Any], root_path: str, status: int, duration: float) -> None:
    """Log an HTTP request that ended, of an ASGI application.

    Args:
        connection: by which it came; the line's `websocket`.
        scope: of the request.
        root_path: that the path of the scope begins with, and the request's does not.
        status: of the response; 499: the client left before there was one.
        duration: seconds since the application was called.
    """
    target = scope["raw_path"].removeprefix(root_path.encode())  # as it was sent: the decoded path is any text
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    agent = next((value for name, value in scope["headers"] if name == b"user-agent"), None)
    extra = {
        "websocket": connection,
        "method": scope["method"],
        "path": _cut("path", redact(target.decode("latin-1"))),
        "status": status,
        "error": None,
        "user_agent": None if agent is None else _cut("user_agent", agent.decode("latin-1")),
        "duration": round(duration, 6),
    }
    _log("request", extra)


def log_close(connection: object, end: Closing, duration: float) -> None:
    """Log the end of a connection that was open for `duration` seconds."""
    close = end.rcvd or end.sent
    broken = end.initiator == "abort" and end.cause is not None
    extra = {
        "websocket": connection,
        "code": int(end.final_code),
        "reason": close.reason if close is not None and close.reason else None,
        "initiator": end.initiator,
        "error": _cut("error", str(end.cause) or type(end.cause).__name__) if broken else None,
        "duration": round(duration, 6),
    }
    _log("close", extra)


def _log(message: str, extra: dict[str, Any]) -> None:
    """Log as `logger.info()`, without searching the stack for the caller."""
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (), None, extra=extra))


def _cut(what: str, text: str) -> str:
    return text if len(text) <= LONGEST[what] else text[: LONGEST[what]] + "..."
