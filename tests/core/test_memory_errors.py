"""Each allocation of the hot path fails once, the first, the second, ...: MemoryError comes out, and nothing breaks.

CPython's own test module `_testcapi` makes them fail. What must not live here: what happens when there is memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.core.recorder import Recorder, binary, control, finish, more, text
from tests.support.harness import require
from tests.support.wire import PING, TEXT

try:
    import _testcapi  # type: ignore[import-not-found]
except ImportError:  # Python without its own tests
    _testcapi = None

LARGE = "é" * 5_000
FIRST = [text("Hello"), text("h€llo"), binary(b"bytes"), text(""), text("a", fin=False) + more(b"b")]
MESSAGES = ["Hello", "h€llo", b"bytes", "", "ab"]


def failing(prepare: Callable[[], Recorder], act: Callable[[Recorder], Any]) -> Iterator[tuple[Recorder, bool]]:
    """Act on a new channel, and fail the first allocation; on another, and fail the second; until all have failed once.

    Yields each channel afterwards, and whether an allocation failed: not for the last.
    """
    failed = True
    n = 0
    while failed:
        failed = False
        channel = prepare()
        gc.disable()  # it calls others, whose allocations are not meant
        _testcapi.set_nomemory(n, n + 1)
        try:
            act(channel)
        except MemoryError:
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
            gc.enable()
        # In a turn from the line, the connection is cut and the loop is told.
        failed = failed or any(
            isinstance(context["exception"], MemoryError) for context in channel.hand_turned.exceptions
        )
        yield channel, failed
        n += 1
    assert n > 1, "nothing was allocated"


def check(
    prepare: Callable[[], Recorder], act: Callable[[Recorder], Any], expected: list[Any], read: Sequence[Any] = ()
) -> None:
    """Whichever allocation of `act` fails, what can be received is what came, in its order: `expected`, and before it
    what `act` should have `read`."""
    for channel, failed in failing(prepare, act):
        channel.feed(text("after"), text(LARGE)[:20], text(LARGE)[20:], control(PING))
        found = channel.take_all()
        if not failed:
            assert found == [*expected, "after", LARGE]
        else:
            rest = iter([*read, *expected, "after", LARGE])
            assert all(message in rest for message in found), found
        finish(channel.send("still"))


@pytest.fixture(autouse=True)
def _need() -> None:
    require(_testcapi, "the module _testcapi of CPython's own tests")


@pytest.mark.parametrize("data", FIRST)
def test_receiving(data: bytes) -> None:
    """A message that no memory is left for is an exception, and the next one is received."""
    expected = [MESSAGES[FIRST.index(data)]]
    check(lambda: Recorder(high=None), lambda channel: channel.feed(data), expected)


def test_receiving_in_pieces() -> None:
    data = text(LARGE)
    pieces = [data[:1], data[1:5], data[5:20], data[20:5_000], data[5_000:]]
    check(lambda: Recorder(high=None), lambda channel: channel.feed(*pieces), [LARGE])


def test_receiving_more_than_a_header_may_claim() -> None:
    """The memory of a payload in pieces grows; when it cannot, nothing may be written where it was."""
    data = binary(bytes(3 << 20))
    pieces = [data[i : i + (700 << 10)] for i in range(0, len(data), 700 << 10)]
    check(
        lambda: Recorder(high=None, max_size=None),
        lambda channel: channel.feed(*pieces),
        [bytes(3 << 20)],
    )


def test_receiving_many() -> None:
    data = b"".join(FIRST * 3)
    check(lambda: Recorder(high=None), lambda channel: channel.feed(data), MESSAGES * 3)


def test_receiving_controls() -> None:
    data = control(PING, b"x") * 3 + text("a")
    check(Recorder, lambda channel: channel.feed(data), ["a"])


@pytest.mark.parametrize("broken", [text("a", rsv=1), b"\x81\x81abcd\xff", b"\x81\xff" + b"\x7f" * 12])
def test_failing(broken: bytes) -> None:
    """The failure's report needs memory as well."""

    data = text("a") + broken

    def act(channel: Recorder) -> None:
        channel.data_received(data)

    for channel, _ in failing(Recorder, act):
        channel.feed(text("later"))
        assert channel.take_all() in (["a"], [], ["later"])  # the last if it failed before it began


@pytest.mark.parametrize("decode", [None, True, False])
def test_reading(decode: bool | None) -> None:
    """recv() that no memory is left for loses no message."""

    def prepare() -> Recorder:
        channel = Recorder(high=None)
        channel.feed(text("one") + text("tw", fin=False) + more("ö".encode()))
        return channel

    def act(channel: Recorder) -> None:
        finish(channel.recv(decode))
        finish(channel.recv(decode))

    check(prepare, act, [], read=["one", "twö"])


def test_reading_frames() -> None:
    def prepare() -> Recorder:
        channel = Recorder(high=None)
        channel.feed(text("one", fin=False) + more(b"two"))
        return channel

    def act(channel: Recorder) -> None:
        assert finish(channel._recv_frame()) == (b"one", TEXT, False)
        assert finish(channel._recv_frame()) == (b"two", 0, True)

    for channel, _ in failing(prepare, act):
        assert all(payload in (b"one", b"two") for payload, _, _ in channel.take_frames())


def test_reading_as_the_interpreter_does() -> None:
    """The StopIteration that carries a message is made anew when somebody keeps the last."""

    def prepare() -> Recorder:
        channel = Recorder(high=None)
        channel.feed(text("one"), text("two"))
        return channel

    def act(channel: Recorder) -> None:
        kept = []
        for _ in range(2):
            try:
                next(channel.recv())
            except StopIteration as stop:
                kept.append(stop)

    check(prepare, act, [], read=["one", "two"])


def test_waiting() -> None:
    """A reader that cannot wait for lack of memory lets the channel go."""

    def act(channel: Recorder) -> None:
        awaitable = channel.recv()
        awaitable.send(None)
        awaitable.close()

    check(lambda: Recorder(high=None), act, [])


@pytest.mark.parametrize("message", ["text", "ünicode", b"bytes", bytearray(b"array"), b"b" * 200_000, "s" * 100_000])
def test_sending(message: Any) -> None:
    """send() that no memory is left for raises, and the channel can send again."""
    check(lambda: Recorder(high=None), lambda channel: finish(channel.send(message)), [])


def test_sending_as_a_client() -> None:
    def act(channel: Recorder) -> None:
        for _ in range(3):
            finish(channel.send("masked"))

    for channel, failed in failing(lambda: Recorder(client=True), act):
        assert failed or channel.heard or len(channel.transport_.writes) == 3
