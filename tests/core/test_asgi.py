"""receive() and send() of ASGI events, on a channel without a server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import warnings
from typing import Any

import pytest

from tests.core.recorder import Recorder, binary, finish, in_callback, text
from tests.support.patience import PATIENCE
from tidegate._core import asgi


class Channel(Recorder):
    """A channel whose rarer events are noted."""

    receive = asgi.receive
    send_event = asgi.send

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.left: list[Any] = []

    async def _send_event(self, event: Any) -> None:
        self.left.append(event)

    async def _receive_apart(self) -> Any:
        return "apart"

    def _end_event(self) -> Any:
        return "end"


class Word(str):
    """A subclass of str, whose comparison may be any program."""


def test_nothing_happens_before_it_is_awaited() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asgi.send(Channel.__new__(Channel), {"type": "websocket.send", "text": "x"})
        gc.collect()
    assert "was never awaited" in str(caught[0].message)


@pytest.mark.parametrize("function", [asgi.receive, asgi.send])
def test_only_connections_have_them(function: Any) -> None:
    arguments = [object()] if function is asgi.receive else [object(), {}]
    with pytest.raises(TypeError, match="MessageChannel"):
        function(*arguments)
    assert inspect.iscoroutinefunction(function) or sys.version_info < (3, 12)
    assert asyncio.iscoroutinefunction(function)


@pytest.fixture
def channel() -> Channel:
    """An open channel without a loop."""
    return Channel()


def test_messages_are_events(channel: Channel) -> None:
    channel.feed(text("Hello"), binary(b"\x00"), text(""), binary(b""))
    assert [finish(channel.receive()) for _ in range(4)] == [
        {"type": "websocket.receive", "text": "Hello"},
        {"type": "websocket.receive", "bytes": b"\x00"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b""},
    ]


def test_each_event_is_a_dict_of_its_own(channel: Channel) -> None:
    channel.feed(text("1"), text("2"))
    first = finish(channel.receive())
    first["text"] = "changed"
    assert finish(channel.receive()) == {"type": "websocket.receive", "text": "2"}
    assert first == {"type": "websocket.receive", "text": "changed"}


def test_the_end_comes_again_and_again(channel: Channel) -> None:
    channel.feed(text("Hello"))
    channel.lose()
    assert finish(channel.receive())["text"] == "Hello"
    assert [finish(channel.receive()) for _ in range(3)] == ["end"] * 3


def test_a_reader_that_waits_is_woken_by_a_message(channel: Channel) -> None:
    waiting = channel.receive()
    assert waiting.send(None) is not None
    channel.feed(text("Hello"))
    channel.turn()
    assert finish(waiting) == {"type": "websocket.receive", "text": "Hello"}


@pytest.fixture
async def running() -> Channel:
    """An open channel of the running loop."""
    return Channel(asyncio.get_running_loop())


def received(message: str) -> dict[str, str]:
    return {"type": "websocket.receive", "text": message}


async def test_readers_take_turns(running: Channel) -> None:
    """The specification of ASGI allows no second receive(), but an application of Starlette's may have one."""
    readers = [asyncio.create_task(running.receive()) for _ in range(4)]
    await asyncio.sleep(0)
    readers[2].cancel()
    for message in ("1", "2", "3", "x" * 5000):
        await in_callback(running.data_received, text(message))
    results = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), PATIENCE)
    assert [results[i] for i in (0, 1, 3)] == [received("1"), received("2"), received("3")]
    assert isinstance(results[2], asyncio.CancelledError)
    assert await running.receive() == received("x" * 5000)


@pytest.mark.parametrize("leaving", [0, 1])
async def test_a_reader_that_leaves_takes_no_message_with_it(running: Channel, leaving: int) -> None:
    readers = [asyncio.create_task(running.receive()) for _ in range(3)]
    await asyncio.sleep(0)

    def cancel_and_receive() -> None:
        readers[leaving].cancel()
        running.data_received(text("1"))

    await in_callback(cancel_and_receive)
    await in_callback(running.data_received, text("2"))
    results = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), PATIENCE)
    assert isinstance(results.pop(leaving), asyncio.CancelledError)
    assert results == [received("1"), received("2")]


async def test_bytes_are_received_with_a_running_loop(running: Channel) -> None:
    await in_callback(running.data_received, binary(b"x") + binary(b"y" * 5000))
    assert [(await running.receive())["bytes"] for _ in range(2)] == [b"x", b"y" * 5000]


def test_python_receives_where_it_is_told_to(channel: Channel) -> None:
    channel._receives_in_python = True
    assert finish(channel.receive()) == "apart"


@pytest.mark.parametrize(
    ("event", "first"),
    [
        ({"type": "websocket.send", "text": "x"}, 0x81),
        ({"type": "websocket.send", "text": "x", "bytes": None}, 0x81),
        ({"type": "websocket.send", "bytes": b"x"}, 0x82),
        ({"type": "websocket.send", "bytes": b"x", "text": None}, 0x82),
        ({"type": "".join(["websocket", ".send"]), "bytes": b"x"}, 0x82),
        ({"text": "x", "type": "websocket.send"}, 0x81),
        ({"bytes": None, "type": "websocket.send", "text": "x"}, 0x81),
    ],
)
def test_messages_are_sent(channel: Channel, event: Any, first: int) -> None:
    assert finish(channel.send_event(event)) is None
    assert channel.transport.written == bytes([first, 1]) + b"x"
    assert not channel.left


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"type": "websocket.close"},
        {"type": None, "text": "x"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "x", "bytes": b"x"},
        {"type": "websocket.send", "text": b"x"},
        {"type": "websocket.send", "bytes": "x"},
        {"type": "websocket.send", "bytes": bytearray(b"x")},
        {"type": "websocket.send", "bytes": b"x", "text": "x"},
        {"type": Word("websocket.send"), "text": "x"},
        {"type": "websocket.send", "text": Word("x")},
        {"type": "websocket.send", "text": "x", "more": 1},
        {"type": "websocket.send", "".join(["te", "xt"]): "x"},
        {"text": "x"},
        {"text": "x", "type": "websocket.close"},
    ],
)
def test_other_events_are_left_to_python(channel: Channel, event: Any) -> None:
    assert finish(channel.send_event(event)) is None
    assert channel.left == [event]
    assert channel.transport.written == b""


def test_a_call_can_be_closed_and_awaited_once(channel: Channel) -> None:
    call = channel.receive()
    call.close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)
    assert "receive" in repr(channel.receive().close() or call)
