"""One message to many channels, without sockets: who gets it, who is handed back, and who does not keep the others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.recorder import Recorder, text
from tests.support.wire import BINARY, TEXT, header
from tidegate._core.broadcast import broadcast
from tidegate._core.counters import Row
from tidegate.protocol import State


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_everybody_gets_the_same_frame(opcode: int, size: int) -> None:
    channels = [Recorder() for _ in range(3)]
    payload = b"x" * size
    assert broadcast(channels, opcode, payload) == ([], [])
    for channel in channels:
        assert channel.transport_.writes == [header(0x80 | opcode, size) + payload]


@pytest.mark.parametrize("made", [list, tuple, set, frozenset, iter, lambda channels: dict.fromkeys(channels)])
def test_any_iterable_of_channels(made: Any) -> None:
    channels = [Recorder() for _ in range(3)]
    broadcast(made(channels), TEXT, b"x")
    assert [channel.transport_.written for channel in channels] == [b"\x81\x01x"] * 3


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSING, State.CLOSED])
def test_those_that_are_not_open_are_skipped(state: State) -> None:
    other, channel = Recorder(state=state), Recorder()
    assert broadcast([other, channel], TEXT, b"x") == ([], [])
    assert other.transport_.writes == []
    assert channel.transport_.written == b"\x81\x01x"


def test_those_that_need_a_second_look_are_handed_back() -> None:
    sending, logged, full, client, lost = Recorder(), Recorder(slow=True), Recorder(), Recorder(client=True), Recorder()
    sending._sending = True
    full.pause_writing()
    lost._disconnect()
    channels = [sending, logged, full, client, lost]
    rest, failures = broadcast(channels, TEXT, b"x")
    assert rest == [sending, logged, full, client]
    assert failures == []
    assert all(channel.transport_.writes == [] for channel in channels)


def test_one_that_cannot_be_written_does_not_keep_the_others() -> None:
    broken, channel = Recorder(), Recorder()
    broken.transport_.broken = RuntimeError("no more")
    rest, failures = broadcast([broken, channel], TEXT, b"x")
    assert rest == []
    assert failures == [(broken, broken.transport_.broken)]
    assert channel.transport_.written == b"\x81\x01x"


@pytest.mark.parametrize("wrong", [None, 42, "x", object()])
def test_what_is_no_channel(wrong: Any) -> None:
    with pytest.raises(TypeError):
        broadcast([wrong], TEXT, b"x")


def test_it_is_counted_once_for_each(row: Row) -> None:
    channels = [Recorder() for _ in range(3)]
    broken = channels[0]
    broken.transport_.broken = RuntimeError("no more")
    broadcast(channels, TEXT, "é".encode())
    broadcast(channels, BINARY, b"abc")
    assert row.words("messages") == (0, 0, 2, 2)
    assert row.words("bytes") == (0, 2 * 2 + 3 * 2)


def test_within_a_read_it_comes_after_what_was_sent_before() -> None:
    """A control frame's answer, say, that waits in the gathered write."""

    class Answering(Recorder):
        def _control_received(self, opcode: int, payload: bytes) -> None:
            self._send_frame(0x8A, payload)
            broadcast([self], TEXT, b"to all")
            self._send_frame(0x8A, payload)

    channel = Answering()
    channel.feed(b"\x89\x81\0\0\0\0x", text("a"))
    assert channel.transport_.written == b"\x8a\x01x" + b"\x81\x06to all" + b"\x8a\x01x"


@pytest.mark.parametrize("opcode", [0, 3, 8, 255])
def test_what_is_broadcast_is_text_or_binary(opcode: int) -> None:
    channel = Recorder()
    with pytest.raises(ValueError, match="text \\(1\\) or binary \\(2\\)"):
        broadcast([channel], opcode, b"x")
    assert channel.transport_.writes == []
