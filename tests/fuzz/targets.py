"""What bytes are tried on, from any source: each target takes bytes and fails if something is not as it should be.

hypothesis, the committed corpus and a coverage-guided fuzzer (guided) all run these. The first bytes of an input are
settings, so that who changes inputs blindly changes those as well. What must not live here: where inputs come from.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

from tests.fuzz.model import Deflating
from tests.fuzz.subject import Reader, Subject
from tests.support.wire import frame
from tidegate.exceptions import InvalidHandshake, InvalidMessage, SecurityError
from tidegate.http11 import MAX_HEAD_SIZE, RequestParser, parse_request

LIMITS = (None, 0, 1, 10, 100, 1000, 1 << 20, None)


def pieces(data: bytes, size: int) -> list[bytes]:
    """Data in pieces of `size` bytes; 0 is all at once, and 255 pieces of changing sizes."""
    if size == 0:
        return [data]
    if size < 255:
        return [data[i : i + size] for i in range(0, len(data), size)]
    made = []
    for length in cycle((1, 2, 14, 3, 70)):
        if not data:
            return made
        made.append(data[:length])
        data = data[length:]
    raise AssertionError  # cycles have no end


def subject_of(data: bytes) -> Subject:
    """A connection with the settings that the first three bytes are, after it has received the others."""
    kind, limits, size = data[:3].ljust(3, b"\0")
    deflating = Deflating(bool(kind & 4), 9 + (kind >> 5) % 7) if kind & 2 else None
    subject = Subject(
        client=bool(kind & 1),
        max_size=LIMITS[limits & 7],
        max_fragment=LIMITS[limits >> 3 & 7],
        receiving=deflating,
        sending=deflating,
    )
    if kind & 8:
        subject.reader = Reader(subject, False if limits >> 6 == 1 else None, echo=bool(kind & 16))
        subject.reader.step()
    for piece in pieces(data[3:], size):
        subject.deliver(piece)
    return subject


def channel(data: bytes) -> None:
    """Frames: what is received of them, and what is answered, is what the model says."""
    subject_of(data).finish()


def deflate(data: bytes) -> None:
    """Compressed messages: a byte says how long a frame is and whether it ends its message, then come its bytes."""
    if len(data) < 2:
        return
    kind, limits = data[:2]
    deflating = Deflating(bool(kind & 1), 8 + (kind >> 1) % 8)
    sizes = {"max_size": LIMITS[limits & 7], "max_fragment": LIMITS[limits >> 3 & 7]}
    subject = Subject(receiving=deflating, sending=Deflating(), **sizes)
    rest, opcode = data[2:], 1 if kind & 16 else 2
    within = False
    while rest:
        fin, length = rest[0] >= 0x80, rest[0] & 0x7F
        subject.deliver(frame(rest[1 : 1 + length], 0 if within else opcode, fin=fin, rsv=0 if within else 4))
        rest, within = rest[1 + length :], not fin
    subject.finish()


def head(data: list[bytes]) -> tuple[object, ...]:
    """What the parser of requests makes of a head in pieces."""
    parser = RequestParser()
    complete = False
    try:
        for piece in data:
            complete = parser.feed(piece)
            assert complete or len(parser._buffer) <= MAX_HEAD_SIZE
    except InvalidHandshake as exc:
        return type(exc), str(exc)
    except SecurityError as exc:
        return type(exc), str(exc)
    if not complete:
        return ("incomplete",)
    request = parser.request()
    assert parser.head + parser.rest == b"".join(data)
    return request, parser.head, parser.rest


def request(data: bytes) -> None:
    """The head of a request: the same however it is cut, and as written when it is written anew."""
    if not data:
        return
    size, data = data[0], data[1:]
    whole = head([data])
    assert head(pieces(data, size)) == whole
    if len(whole) == 3:
        again = parse_request(whole[0].serialize())  # type: ignore[attr-defined]
        assert again == whole[0]
    elif whole == ("incomplete",):
        try:
            parse_request(data)
        except InvalidMessage:
            return
        raise AssertionError("half a head was taken for a whole one")


TARGETS: dict[str, Callable[[bytes], None]] = {"channel": channel, "deflate": deflate, "request": request}
