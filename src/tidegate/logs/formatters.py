"""What a line of the log looks like: text for people, JSON for machines. One event is one line.

    2026-11-21T03:32:15.123Z worker 0 INFO [127.0.0.1:51234 5f0c...] connection open

    Text    more of an event, such as a traceback, follows on lines that begin with a space, and no other line does: a
            client cannot forge an event, whatever it sends
    Json    an object on each line, whose keys are KEYS, then those of the event

Nothing that a client sends reaches a terminal or a parser as it is: whatever cannot be printed is escaped. A text of
megabytes, which no log has room for, is shortened: its beginning and its end are there.

What must not live here: where lines go (stream.py, writers.py), what is logged.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from itertools import islice
from typing import Any, Final

from ..redaction import redact, redact_trace
from ..text import LONGEST, escape, shorten

__all__ = ["FORMATS", "KEYS", "Json", "Text"]

KEYS: Final = ("time", "level", "role", "logger", "message", "connection", "remote")
"""The keys of every line of JSON, in their order; the last two only where there is a connection."""

ACCESS: Final = "tidegate.access"
"""The logger whose events are made of values: text has them behind the message as well."""

# What every record has: all else was added to it.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "websocket", *KEYS}
_INDENT = "    "
_BARE = re.compile(r"[!#-\[\]-~]+")  # a value that text has without quotes: printable ASCII, no space, quote, backslash
_DEPTH = 4  # of values in values
# Characters of one text in a line, tried one after the other until the line has no more than so many bytes.
_LENGTHS: Final = (LONGEST, 2**12, 2**8)
_LONGEST_LINE: Final = 2**16


class _Lines(logging.Formatter):
    """The common parts of both formats: the process, the time and the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.role = "tidegate"
        self._now = -1, ""  # the last second, and how it is written
        self._most = _LENGTHS[0]

    def line(self, record: logging.LogRecord) -> bytes:
        """Return the record's line, whatever is in it, with the end of line."""
        for self._most in _LENGTHS:
            try:
                line = self._encoded(record)
            except Exception as error:  # an argument whose str() fails, a message with too few arguments
                where = f"{record.pathname}:{record.lineno}"
                record = _replaced(record, f"cannot be formatted: {record.msg!r} ({error!r}) at {where}")
                line = self._encoded(record)
            if len(line) <= _LONGEST_LINE:
                return line
        # It is made of many values.
        return self._encoded(_replaced(record, record.getMessage()))

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("ascii" if isinstance(self, Json) else "utf-8", "backslashreplace") + b"\n"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time in UTC, in milliseconds."""
        second, text = self._now
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._now = second, text
        return f"{text}.{int(record.msecs):03d}Z"

    def trace(self, record: logging.LogRecord) -> str:
        """Return the traceback of a record; "" if it has none."""
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return shorten(redact_trace(record.exc_text or ""), self._most)

    def message(self, record: logging.LogRecord) -> str:
        """Return the message of a record, without secrets."""
        return redact(record.getMessage())


class Text(_Lines):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line, and the indented ones that follow it."""
        head = f"{self.formatTime(record)} {self.role} {record.levelname}"
        connection = getattr(record, "websocket", None)
        if connection is not None:
            identity, remote = _connection(connection)
            head = f"{head} [{' '.join(escape(part) for part in (remote, identity) if part)}]"
        message, *more = escape(shorten(self.message(record), self._most), "\n").split("\n")
        if record.name == ACCESS:
            message += "".join(
                f" {key}={_bare(value, self._most)}" for key, value in _added(record).items() if value is not None
            )
        for part in (self.trace(record), shorten(record.stack_info or "", self._most)):
            if part:
                more += escape(part, "\n\t").split("\n")
        return "\n".join([f"{head} {message}", *(_INDENT + line for line in more)])


class Json(_Lines):
    """Lines for machines: ASCII alone, and strictly JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        values: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "message": self.message(record),
        }
        connection = getattr(record, "websocket", None)
        if connection is not None:
            values["connection"], values["remote"] = _connection(connection)
        for key, value in _added(record).items():
            values.setdefault(key, value)
        if trace := self.trace(record):
            values["exc_info"] = trace
        if record.stack_info:
            values["stack_info"] = record.stack_info
        return json.dumps(_plain(values, self._most), ensure_ascii=True, separators=(",", ":"))


FORMATS: Final[dict[str, type[Text | Json]]] = {"text": Text, "json": Json}


def _replaced(record: logging.LogRecord, message: str) -> logging.LogRecord:
    """Return a record of the same event with nothing in it that could fail."""
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, None, None)


def _connection(connection: Any) -> tuple[str, str]:
    """Return a connection's id, and the address of its client: "" where a Unix socket has none.

    It may be an object of any class, with any error.
    """
    try:
        identity, address = str(connection.id), connection.remote_address
    except Exception:
        return "?", "?"
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return identity, f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return identity, str(address) if address else ""


def _added(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _OWN and not key.startswith("_")}


def _bare(value: Any, most: int) -> str:
    """Return a value as text: quoted, unless it is unambiguous without quotes."""
    if isinstance(value, float):
        return f"{value:.6f}"
    text = shorten(str(value), most)
    return text if _BARE.fullmatch(text) else escape(json.dumps(text, ensure_ascii=False))


def _plain(value: Any, most: int, depth: int = _DEPTH) -> Any:
    """Return a value in JSON's own types, where anything else becomes a string. None is longer than `most`."""

    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return shorten(str(value), most).encode("utf-8", "backslashreplace").decode()  # JSON knows no lone surrogates
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray)):
        return shorten(bytes(value).decode("utf-8", "backslashreplace"), most)
    if depth and isinstance(value, dict):
        first = islice(value.items(), most)
        return {_plain(str(key), most): _plain(item, most, depth - 1) for key, item in first}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(item, most, depth - 1) for item in value[:most]]
    try:
        return _plain(str(value), most)
    except Exception:
        return f"<{type(value).__name__}>"
