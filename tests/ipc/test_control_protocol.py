"""The words of the control socket, and what is said to those who use others.

What must not live here: the socket (test_control.py).
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.ipc import control_protocol
from tidegate.ipc.control_protocol import (
    Answer,
    Drain,
    Reload,
    Request,
    RequestError,
    Scale,
    Status,
    Stop,
    Upgrade,
    encode,
    read_request,
    socket_path,
)

WORDS: list[Request] = [Status(), Reload(), Reload(True), Scale(4), Drain(), Stop(), Stop("cut"), Upgrade()]


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_what_is_written_is_read(word: Request) -> None:
    line = encode(word)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert read_request(line.strip()) == word


def test_by_hand() -> None:
    assert read_request(b' { "command" : "stop" } \r') == Stop("drain")
    assert read_request(b'{"workers":2,"command":"scale"}') == Scale(2)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "not JSON: give an object on a line, such as {"),
        (b"status", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"command":"\xff"}', "not JSON"),
        (b"[" * 2000, "not JSON"),
        (b"[]", 'names no command: give an object such as {"command":"status"}'),
        (b"null", "names no command"),
        (b"{}", "names no command"),
        (b'{"command":3}', "names no command"),
        (b'{"command":"relaod"}', "no command 'relaod': did you mean reload? There are status, reload, scale, drain"),
        (b'{"command":"sing"}', "no command 'sing': There are status"),
        (b'{"command":"scale"}', 'missing required field `workers`: give scale like {"command":"scale","workers":4}'),
        (b'{"command":"scale","workers":"4"}', "Expected `int`, got `str` - at `$.workers`: give scale like"),
        (b'{"command":"reload","forec":true}', "unknown field `forec`: give reload like"),
        (b'{"command":"stop","how":"gently"}', "Invalid enum value 'gently' - at `$.how`: give stop like"),
        (b'{"command":"status"' + b" " * control_protocol.LONGEST + b"}", "4096 bytes at most"),
    ],
)
def test_what_is_no_request(line: bytes, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(line)
    assert words in str(caught.value)


@given(st.binary(max_size=5000))
def test_any_bytes(line: bytes) -> None:
    with pytest.raises(RequestError):
        read_request(line)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda some: st.dictionaries(st.text(), some), max_leaves=5))
def test_any_json(found: object) -> None:
    with pytest.raises(RequestError):
        read_request(msgspec.json.encode(found))


def test_an_answer_is_a_line() -> None:
    assert encode(Answer(text="one\ntwo")) == b'{"text":"one\\ntwo"}\n'
    assert encode(Answer(False, "so")) == b'{"done":false,"text":"so"}\n'
    assert encode(Answer(True, status=msgspec.Raw(b'{"a":1}'))) == b'{"done":true,"status":{"a":1}}\n'


def test_an_answer_about_a_path_that_is_no_text() -> None:
    assert msgspec.json.decode(encode(Answer(text="/tmp/\udcff/ä")))["text"] == "/tmp/\\udcff/ä"


@pytest.mark.parametrize(
    ("setting", "environment", "path"),
    [
        ("/run/x", {"RUNTIME_DIRECTORY": "/run/tidegate"}, "/run/x"),
        (None, {"RUNTIME_DIRECTORY": "/run/tidegate"}, None),
        ("auto", {"RUNTIME_DIRECTORY": "/run/tidegate"}, "/run/tidegate/control.sock"),
        ("auto", {"RUNTIME_DIRECTORY": "/run/tidegate:/run/other"}, "/run/tidegate/control.sock"),
        ("auto", {"RUNTIME_DIRECTORY": ""}, None),
        ("auto", {}, None),
    ],
)
def test_where_the_socket_is(setting: str | None, environment: dict[str, str], path: str | None) -> None:
    assert socket_path(setting, environment) == path
