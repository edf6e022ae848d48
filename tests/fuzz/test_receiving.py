"""Any bytes, in any pieces: the connection makes of them what the model does, and raises nothing.

What must not live here: conversations, in which both sides do things in turn (test_conversations).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.model import Deflating, Model
from tests.fuzz.subject import Reader, Subject
from tests.fuzz.wires import CODES, DEFLATINGS, PAYLOADS, PLACES, SETTINGS, Writer, cut, examples, wires
from tests.support.wire import CLOSE, frame

ENDED = b"\x03\x00"  # a final block with nothing in it


@st.composite
def streams(draw: Any) -> tuple[dict[str, Any], bytes, list[bytes]]:
    """Settings of a connection, a stream for it, and the stream in pieces."""
    options = draw(SETTINGS)
    if draw(st.booleans()):
        options |= {"receiving": draw(DEFLATINGS), "sending": draw(DEFLATINGS)}
    stream = draw(wires(not options["client"], options.get("receiving")))
    shape = draw(st.integers(0, 2))
    if shape == 0:
        return options, stream, [stream]
    if shape == 1:
        return options, stream, [bytes([byte]) for byte in stream]
    return options, stream, cut(stream, draw(PLACES) + draw(PLACES))


@examples(300)
@given(streams(), st.sampled_from(["nobody", "a handler", "an echo"]))
def test_any_bytes(stream: tuple[dict[str, Any], bytes, list[bytes]], reader: str) -> None:
    options, _, chunks = stream
    subject = Subject(**(options | {"high": None} if reader == "nobody" else options))
    if reader != "nobody":
        subject.reader = Reader(subject, None, echo=reader == "an echo")
        subject.reader.step()
    for chunk in chunks:
        subject.deliver(chunk)
    subject.finish()


@examples(100)
@given(streams())
def test_the_model_itself_does_not_mind_pieces(stream: tuple[dict[str, Any], bytes, list[bytes]]) -> None:
    options, whole, chunks = stream
    outcomes = []
    for fed in ([whole], chunks):
        model = Model(options["client"], options["max_size"], options["max_fragment"], None, options.get("receiving"))
        for chunk in fed:
            model.feed(chunk)
        outcomes.append((model.queue, model.controls, model.answers, model.ended))
    assert outcomes[0] == outcomes[1]


@examples(100)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=60), max_size=4), DEFLATINGS, st.sampled_from([None, 50]))
def test_any_bytes_as_compressed_data(first: bytes, more: list[bytes], deflating: Deflating, limit: int | None) -> None:
    """What is no deflate stream, or one of many ends, is refused as zlib refuses it, and where it does."""
    subject = Subject(receiving=deflating, sending=Deflating(), max_size=limit)
    subject.deliver(frame(first, 2, fin=not more, rsv=4))
    for i, part in enumerate(more):
        subject.deliver(frame(part, 0, fin=i == len(more) - 1))
    subject.finish()


@examples(200)
@given(
    st.lists(st.lists(st.tuples(PAYLOADS, st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5),
    DEFLATINGS,
    st.integers(-2, 2),
    st.booleans(),
    PLACES,
)
def test_compressed_messages(
    messages: list[list[tuple[bytes, int]]], deflating: Deflating, spare: int, of_fragments: bool, places: list[int]
) -> None:
    """Contexts that are kept or not, final blocks anywhere, and limits that are just met or just missed."""
    writer = Writer(True, deflating)
    wire = b""
    for parts in messages:
        for i, (part, kind) in enumerate(parts):
            fin = i == len(parts) - 1
            if kind in (1, 2):  # streams that end at once, as many as are allowed, or one more
                data = writer.restart() + ENDED * (15 + len(part) % 3) + writer.compress(part, fin)
            else:
                data = writer.compress(part, fin, final_block=kind == 0)
            wire += frame(data, 0 if i else 2, fin=fin, rsv=0 if i else 4)
    if of_fragments:
        sizes = [len(part) for parts in messages for part, _ in parts]
    else:
        sizes = [sum(len(part) for part, _ in parts) for parts in messages]
    limit = max(0, max(sizes) + spare)
    limits = {"max_fragment": limit} if of_fragments else {"max_size": limit}
    subject = Subject(receiving=deflating, sending=Deflating(), **limits)
    for chunk in cut(wire, places):
        subject.deliver(chunk)
    subject.finish()


@examples(100)
@given(st.sampled_from([0, 1, 4]), st.lists(st.integers(1, 4), max_size=12), PLACES, st.integers(0, 12))
def test_what_comes_after_our_close_frame(high: int, fragments: list[int], places: list[int], before: int) -> None:
    """It is read to their close frame, and kept as far as there is room."""
    subject = Subject(high=high)
    if before < 3:
        subject.reader = Reader(subject, None, echo=False)
        subject.reader.step()
    subject.connection.start_closing(1000, "")
    subject.model.answers.append((CLOSE, 1000))
    subject.model.closing = True
    wire = b""
    for number, count in enumerate(fragments):
        wire += b"".join(frame(b"%d" % number, 0 if i else 1, fin=i == count - 1) for i in range(count))
    for chunk in cut(wire + frame(b"\x03\xe8", 8), places):
        subject.deliver(chunk)
    assert subject.line.ended
    subject.finish()


@examples(50)
@given(CODES | st.integers(0, 65535), st.text(max_size=30))
def test_any_close_frame(code: int, reason: str) -> None:
    subject = Subject()
    payload = code.to_bytes(2, "big") + reason.encode()
    subject.deliver(frame(payload, 8))
    answer = subject.model.answers
    assert answer == [(CLOSE, code)] or answer == [(CLOSE, 1002)]
    subject.finish()


@pytest.mark.parametrize("data", [b"", b"\x81", b"\x81\xff", b"\x81\x80\0\0\0\0"])
def test_almost_nothing(data: bytes) -> None:
    subject = Subject()
    subject.deliver(data)
    subject.finish()
