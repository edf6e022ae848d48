"""Lines of the log, as text and as JSON: what is in them, and what nobody can put into them.

What must not live here: where lines go (test_stream.py, test_writers.py).
"""

from __future__ import annotations

import json
import logging
import math
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.logs.formatters import KEYS, Json, Text

ANYTHING = st.text(alphabet=st.characters(), max_size=60)
"""Lone surrogates and control characters among it."""


class Connection:
    """What the lines ask of one."""

    def __init__(self, remote: Any = ("192.0.2.1", 4711)) -> None:
        self.id = uuid.UUID("12345678-1234-5678-1234-567812345678")
        self.remote_address = remote


def record(message: str, *args: Any, name: str = "somebody", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "place.py", 7, message, args, extra.pop("exc_info", None))
    made.__dict__.update(extra)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    return made


def text(made: logging.LogRecord) -> list[str]:
    lines = Text()
    lines.role = "worker 3"
    line = lines.line(made)
    assert line.endswith(b"\n")
    return line[:-1].decode("utf-8").split("\n")


def parsed(made: logging.LogRecord) -> dict[str, Any]:
    lines = Json()
    lines.role = "worker 3"
    line = lines.line(made)
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    values: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return values


def raised(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


HEAD = "2023-11-14T22:13:20.250Z worker 3 WARNING"


def test_text() -> None:
    """A record of text is one line with its arguments filled in."""
    assert text(record("%d of %s", 3, "four")) == [f"{HEAD} 3 of four"]


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        (("192.0.2.1", 4711), "192.0.2.1:4711 "),
        (("2001:db8::1", 4711, 0, 0), "[2001:db8::1]:4711 "),
        ("", ""),
        (None, ""),
        ("/run/a\x1bb", "/run/a\\x1bb "),
    ],
)
def test_a_connection_in_text(remote: Any, shown: str) -> None:
    assert text(record("open", websocket=Connection(remote))) == [
        f"{HEAD} [{shown}12345678-1234-5678-1234-567812345678] open"
    ]


def test_a_connection_in_json() -> None:
    values = parsed(record("open", websocket=Connection()))
    assert list(values) == list(KEYS)
    assert values == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "role": "worker 3",
        "logger": "somebody",
        "message": "open",
        "connection": "12345678-1234-5678-1234-567812345678",
        "remote": "192.0.2.1:4711",
    }


def test_a_connection_that_fails() -> None:
    class Broken:
        @property
        def id(self) -> str:
            raise RuntimeError

    assert text(record("open", websocket=Broken())) == [f"{HEAD} [? ?] open"]
    assert parsed(record("open", websocket=Broken()))["connection"] == "?"


def test_a_traceback_follows_its_line_in_text_and_is_one_string_in_json() -> None:
    made = record("failed", exc_info=raised("forged\n2026-11-21T00:00:00.000Z supervisor INFO all is well\x1b[2J"))
    first, *more = text(made)
    assert first == f"{HEAD} failed"
    assert more[0] == "    Traceback (most recent call last):"
    assert more[-1] == "    2026-11-21T00:00:00.000Z supervisor INFO all is well\\x1b[2J"
    assert all(line.startswith("    ") for line in more)
    values = parsed(made)
    assert values["message"] == "failed"
    assert values["exc_info"].startswith("Traceback (most recent call last):\n")
    assert values["exc_info"].endswith("all is well\x1b[2J")


def test_no_exception_is_no_traceback() -> None:
    assert text(record("failed", exc_info=(None, None, None))) == [f"{HEAD} failed"]


def test_values_of_the_access_log() -> None:
    values = {"status": 101, "path": '/a b?c="d"', "user_agent": "", "error": None, "duration": 0.25, "code": 1000}
    made = record("handshake", name="tidegate.access", **values)
    assert text(made) == [
        f'{HEAD} handshake status=101 path="/a b?c=\\"d\\"" user_agent="" duration=0.250000 code=1000'
    ]
    assert {key: parsed(made)[key] for key in values} == values


def test_values_that_an_application_adds_are_in_json() -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError

    made = record(
        "sold", price=math.nan, many=[1, {"a": b"\xff"}], silent=Silent(), role="me", time=3, deep=[[[[[1]]]]]
    )
    values = parsed(made)
    assert values["price"] == "nan"
    assert values["many"] == [1, {"a": "\\xff"}]
    assert values["silent"] == "<Silent>"
    assert values["role"] == "worker 3"
    assert values["time"] == "2023-11-14T22:13:20.250Z"
    assert text(made) == [f"{HEAD} sold"]


@pytest.mark.parametrize("lines", [Text(), Json()])
def test_a_message_that_cannot_be_formatted_is_logged_all_the_same(lines: Text | Json) -> None:
    line = lines.line(record("%d of %d", "x")).decode()
    assert "cannot be formatted" in line
    assert "%d of %d" in line
    assert "place.py:7" in line


HUGE = "first" + "x" * 8_000_000 + "last"


@pytest.mark.parametrize("lines", [Text(), Json()], ids=["text", "json"])
@pytest.mark.parametrize(
    "made",
    [
        record("said %s", HUGE),
        record("failed", exc_info=raised(HUGE)),
        record("failed", exc_info=raised("first\n" * 2_000_000 + "last")),
        record("first %s last", "\x1b" * 8_000_000),
        record("first %s last", "\U0001f30a" * 8_000_000),
        record("first last", stack_info=HUGE),
        record("first last", name="tidegate.access", path=HUGE, more=HUGE),
        record("first last", many=[HUGE] * 1000),
        record("first last", many={str(number): {"a": list(range(1000))} for number in range(1000)}),
        record("first last", **{f"value{number}": HUGE for number in range(1000)}),
        record("first last %d", HUGE),  # which cannot be formatted
    ],
    ids=["message", "error", "lines", "escaped", "wide", "stack", "access", "list", "dict", "extra", "broken"],
)
def test_a_line_of_megabytes_is_shortened_and_not_lost(lines: Text | Json, made: logging.LogRecord) -> None:
    line = lines.line(made)
    assert len(line) <= 2**16
    assert (b"first" in line, b"last" in line) == (True, True)
    if isinstance(lines, Json):
        assert json.loads(line)["level"] == "warning"


@given(ANYTHING, ANYTHING, ANYTHING)
def test_nobody_forges_an_event_in_text(argument: str, value: str, message: str) -> None:
    made = record("said %s", argument, name="tidegate.access", path=value, exc_info=raised(message))
    first, *more = text(made)
    assert first.startswith(f"{HEAD} said ")
    assert all(line.startswith("    ") for line in more)
    assert all(c.isprintable() for line in (first, *more) for c in line.replace("\t", ""))


@given(ANYTHING, ANYTHING, ANYTHING, st.dictionaries(ANYTHING, st.floats() | ANYTHING | st.binary()))
def test_every_line_of_json_can_be_parsed(argument: str, value: str, message: str, more: dict[str, Any]) -> None:
    made = record("said %s", argument, path=value, more=more, exc_info=raised(message))
    values = parsed(made)
    assert values["message"] == "said " + argument.encode("utf-8", "backslashreplace").decode()
    assert values["path"] == value.encode("utf-8", "backslashreplace").decode()
