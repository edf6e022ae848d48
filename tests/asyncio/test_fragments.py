"""What may be sent, and as what; how it is sent is tested with connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tidegate.asyncio.fragments import control_payload, fragments, opcode_of
from tidegate.frames import Opcode


@pytest.mark.parametrize(
    ("data", "text", "opcode"),
    [
        ("a", None, Opcode.TEXT),
        (b"a", None, Opcode.BINARY),
        (bytearray(b"a"), None, Opcode.BINARY),
        (memoryview(b"a"), True, Opcode.TEXT),
        ("a", False, Opcode.BINARY),
    ],
)
def test_opcodes(data: Any, text: bool | None, opcode: Opcode) -> None:
    """The opcode follows from the type of the data, unless `text` says otherwise."""
    assert opcode_of(data, text) is opcode


@pytest.mark.parametrize("data", ["é", "é".encode(), bytearray("é".encode()), memoryview("é".encode())])
def test_control_payloads(data: Any) -> None:
    assert control_payload(data) == b"\xc3\xa9"


def test_what_is_no_control_payload() -> None:
    with pytest.raises(TypeError, match=r"^data must be str or bytes-like$"):
        control_payload(3)  # type: ignore[arg-type]


async def _parts() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@pytest.mark.parametrize(
    ("make", "source"), [(lambda: ["a", "b"], "iterable"), (_parts, "async iterable")], ids=["list", "generator"]
)
async def test_fragments(make: Callable[[], Any], source: str) -> None:
    """Iterables, asynchronous or not, are told apart and yield their parts."""
    words, parts = fragments(make())
    assert words == source
    assert [part async for part in parts] == ["a", "b"]


@pytest.mark.parametrize(
    ("message", "complaint"), [({"a": 1}, "data is a dict-like object"), (42, "data must be str, bytes, iterable")]
)
def test_what_is_no_message(message: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        fragments(message)
