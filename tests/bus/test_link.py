"""Frames of links: what is encoded comes back, however it is cut; garbage is an error or skipped, and never kept.

What must not live here: the hub (tests/hub/).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bus import link
from tidegate.bus.link import (
    Acknowledgement,
    Decoder,
    Excerpt,
    Flag,
    Frame,
    Hello,
    Kind,
    LinkError,
    Policy,
    Search,
    Top,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame, st.sampled_from(Kind).map(int), st.integers(0, 255), U32, U32, U64, U64, U64, st.binary(max_size=200)
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 100), max_size=20))
def test_frames_come_back_however_they_are_cut(frames: list[Frame], sizes: list[int]) -> None:
    decoder = Decoder()
    data = b"".join(map(link.encode, frames))
    assert [frame for piece in cut(data, sizes) for frame in decoder.feed(piece)] == frames
    assert len(decoder) == 0


def test_the_layout_is_frozen() -> None:
    """Processes of other releases read these bytes."""
    frame = Frame(Kind.PUBLISH, Flag.TEXT, 0x01020304, 0x05060708, 0x11, 0x22, 0x33, b"Hello")
    wanted = "05000000060100000403020108070605" + "".join(
        f"{number:02x}00000000000000" for number in (0x11, 0x22, 0x33)
    )
    assert link.encode(frame) == bytes.fromhex(wanted) + b"Hello"


def test_kinds_and_flags_are_frozen() -> None:
    """More may come; none may change."""
    expected = {
        **{"HELLO": 1, "OPEN": 2, "SHUT": 3, "SUBSCRIBE": 4, "UNSUBSCRIBE": 5, "PUBLISH": 6, "READ": 7, "LOOK": 8},
        **{"BEAT": 9, "COUNT": 10, "WELCOME": 32, "MESSAGE": 33, "STORED": 34, "REFUSED": 35, "EXCERPT": 36, "TOP": 37},
        **{"DONE": 38, "COUNTED": 39, "LOST": 40, "TROUBLE": 41},
    }
    assert expected.items() <= {kind.name: kind.value for kind in Kind}.items()
    flags = ["TEXT", "JSON", "STORED", "ECHO", "SENDER", "KEYED", "EXCLUDE", "DEFLATED"]
    assert [Flag[name] for name in flags] == [1 << n for n in range(8)]
    assert (Flag.BACKWARD, Flag.FIRST, Flag.LAST) == (1, 1, 2)


@given(st.binary(), st.none() | st.binary(max_size=255), st.binary(max_size=255))
def test_messages_with_key_and_sender(payload: bytes, key: bytes | None, sender: bytes) -> None:
    flags, packed = link.pack_message(payload, key, sender)
    assert link.unpack_message(flags, packed) == (sender, payload)
    assert bool(flags & Flag.KEYED) == (key is not None)


def test_unknown_kinds_are_skipped() -> None:
    decoder = Decoder()
    known = Frame(Kind.DONE, sequence=7)
    data = link.encode(Frame(200, payload=b"of a later release")) + link.encode(known)
    assert list(decoder.feed(data)) == [known]
    assert decoder.skipped == 1


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_garbage_is_an_error_or_skipped_and_never_kept(pieces: list[bytes]) -> None:
    decoder = Decoder()
    fed = 0
    with contextlib.suppress(LinkError):
        for piece in pieces:
            fed += len(piece)
            for frame in decoder.feed(piece):
                assert len(frame.payload) <= fed
            assert len(decoder) <= min(fed, link.HEAD.size + link.PAYLOAD_LIMIT)


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    head = struct.pack("<I", link.PAYLOAD_LIMIT + 1) + bytes(link.HEAD.size - 4)
    with pytest.raises(LinkError, match=r"at most 4194304 bytes, and this one says 4194305"):
        list(Decoder().feed(head))
    with pytest.raises(LinkError, match="at most 4194304 bytes, not 4194305"):
        link.encode(Frame(Kind.PUBLISH, payload=bytes(link.PAYLOAD_LIMIT + 1)))


@given(st.lists(st.builds(Acknowledgement, U64, U64, U64)))
def test_acknowledgements(given: list[Acknowledgement]) -> None:
    """They come back."""
    assert list(link.acknowledgements(link.pack_acknowledgements(given))) == given


@given(st.builds(Top, U64, U64, U64), st.lists(FRAMES, max_size=4))
def test_excerpts(top: Top, frames: list[Frame]) -> None:
    """They come back, with the messages among the frames."""
    messages = [frame._replace(kind=Kind.MESSAGE) for frame in frames]
    assert Excerpt.unpack(Excerpt(top, messages).pack()) == Excerpt(top, messages)
    assert Excerpt.unpack(Excerpt(top, [*messages, Frame(Kind.DONE)]).pack()).messages == messages


@given(st.builds(Search, U32, U32))
def test_searches(search: Search) -> None:
    """They come back."""
    assert Search.unpack(search.pack()) == search


def test_words() -> None:
    """The first frames come back, and what a later release adds is left out."""
    hello = Hello(1, 77, "worker 1", 3, {"chat:": Policy(200, 600.0, 1 << 18), "": Policy()})
    assert link.unpack_json(link.pack_json(hello), Hello) == hello
    assert link.unpack_json(b'{"version":2,"publisher":1,"colour":"red"}', Hello) == Hello(2, 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda payload: link.unpack_json(payload, Hello),
        lambda payload: link.unpack_json(payload, link.Welcome),
        lambda payload: link.unpack_json(payload, link.Count),
        lambda payload: link.unpack_json(payload, link.Snapshot),
        lambda payload: link.unpack_message(Flag.SENDER | Flag.KEYED, payload),
        lambda payload: list(link.acknowledgements(payload)),
        Search.unpack,
        Top.unpack,
        Excerpt.unpack,
    ],
)
@given(payload=st.binary(max_size=200))
def test_garbage_in_a_payload_is_one_kind_of_error(read: Callable[[bytes], Any], payload: bytes) -> None:
    with contextlib.suppress(LinkError):
        read(payload)


@given(st.integers(0, 2**48 - 1))
def test_epochs(number: int) -> None:
    """They are eight characters, none of which ends an epoch in a position."""
    text = link.epoch_text(number)
    assert len(text) == 8
    assert "." not in text
    assert link.epoch_number(text) == number


@given(st.text(max_size=12))
def test_what_is_no_epoch_is_none(text: str) -> None:
    number = link.epoch_number(text)
    assert number is None or link.epoch_text(number) == text
