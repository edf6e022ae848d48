"""Bytes that a peer might send: ordinary messages in any fragments, and every way to get a frame wrong.

What must not live here: what is to be made of them (model), test cases.
"""

from __future__ import annotations

import os
import zlib
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from tests.fuzz.model import Deflating
from tests.support.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

# A soak is the same tests with TIDEGATE_FUZZ=50, say: so many times as many examples.
TIMES = float(os.environ.get("TIDEGATE_FUZZ", "1"))


def examples(count: int, **more: Any) -> settings:
    """So many examples, times TIDEGATE_FUZZ."""
    return settings(max_examples=max(1, int(count * TIMES)), deadline=None, **more)


# Characters of each length in UTF-8, and bytes that are wrong in each way that they can be.
TEXTS = st.text(st.sampled_from("ab\0\x7f\x80é߿ࠀ\ud7ff\ue000\uffff𐀀\U0010ffff"), max_size=20)
NO_TEXTS = st.sampled_from(
    b"80 c080 c1bf c3 e08080 e09fbf eda080 efbf f08fbfbf f09080 f4908080 f580 ff 6f6bfe 313233343536373881".split()
).map(lambda digits: bytes.fromhex(digits.decode()))
LENGTHS = st.sampled_from([0, 1, 7, 8, 9, 31, 32, 33, 125, 126, 127, 128, 129, 300])
PAYLOADS = st.one_of(
    TEXTS.map(str.encode),
    NO_TEXTS,
    st.builds(bytes.__add__, TEXTS.map(str.encode), NO_TEXTS),
    st.binary(max_size=40),
    st.builds(lambda byte, times: byte * times, st.binary(min_size=1, max_size=1), LENGTHS),
)
KEYS = st.one_of(st.just(b"\x12\x34\x56\x78"), st.just(b"\0\0\0\0"), st.binary(min_size=4, max_size=4))
CODES = st.sampled_from([0, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000])
CLOSES = st.one_of(
    st.binary(max_size=3),
    st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, CODES, TEXTS.map(str.encode) | NO_TEXTS),
)
DEFLATINGS = st.builds(Deflating, st.booleans(), st.integers(9, 15))
LIMITS = st.none() | st.sampled_from([0, 1, 5, 20, 200, 1 << 20])
# The settings of a subject.
SETTINGS = st.fixed_dictionaries(
    {
        "client": st.booleans(),
        "max_size": LIMITS,
        "max_fragment": LIMITS,
        "high": st.none() | st.sampled_from([0, 1, 4, 16]),
    }
)


class Writer:
    """Makes frames as a decent peer does, and remembers what it needs for that."""

    def __init__(self, client: bool, deflating: Deflating | None) -> None:
        self.client, self.deflating = client, deflating
        self.zlib: Any = None

    def frame(self, payload: bytes, opcode: int, key: bytes, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(payload, opcode, fin=fin, rsv=rsv, mask=key if self.client else None)

    def compress(self, data: bytes, fin: bool, final_block: bool = False) -> bytes:
        """RFC 7692 7.2.1, and 7.2.3.4 for a final block."""
        assert self.deflating is not None
        if self.zlib is None:
            self.zlib = zlib.compressobj(wbits=-self.deflating.bits)
        out = self.zlib.compress(data)
        if final_block:
            out += self.zlib.flush(zlib.Z_FINISH) + (b"\0" if fin else b"")
            self.zlib = None
            return bytes(out)
        out += self.zlib.flush(zlib.Z_SYNC_FLUSH)
        if fin and not self.deflating.takeover:
            self.zlib = None
        return bytes(out[:-4] if fin else out)

    def restart(self) -> bytes:
        """End the stream that was begun, if one was."""
        compressor, self.zlib = self.zlib, None
        return b"" if compressor is None else bytes(compressor.flush(zlib.Z_FINISH))

    def message(self, opcode: int, parts: list[bytes], key: bytes, compressed: bool, final_block: bool) -> list[bytes]:
        """The frames of a message."""
        frames = []
        for i, part in enumerate(parts):
            fin = i == len(parts) - 1
            payload = self.compress(part, fin, final_block) if compressed else part
            frames.append(self.frame(payload, CONT if i else opcode, key, fin, 4 if compressed and not i else 0))
        return frames


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Data in pieces, perhaps empty ones."""
    places = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in pairwise([0, *places, len(data)])]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=4)


@st.composite
def messages(draw: Any, writer: Writer) -> bytes:
    """The frames of one message, with control frames between them."""
    parts = cut(draw(PAYLOADS) * draw(st.sampled_from([1, 1, 1, 3, 50])), draw(PLACES))
    compressed = writer.deflating is not None and draw(st.booleans())
    final_block = compressed and draw(st.integers(0, 5)) == 0
    made = writer.message(draw(st.sampled_from([TEXT, BINARY])), parts, draw(KEYS), compressed, final_block)
    for i in range(len(made)):
        if draw(st.integers(0, 3)) == 0:
            made[i] += draw(controls(writer))
    return b"".join(made)


@st.composite
def controls(draw: Any, writer: Writer) -> bytes:
    payload = draw(st.binary(max_size=10) | LENGTHS.filter(lambda length: length <= 125).map(bytes))
    return writer.frame(payload, draw(st.sampled_from([PING, PONG])), draw(KEYS))


@st.composite
def closes(draw: Any, writer: Writer) -> bytes:
    return writer.frame(draw(CLOSES), CLOSE, draw(KEYS))


@st.composite
def oddities(draw: Any, writer: Writer) -> bytes:
    """A frame that need not be right, or bytes that are none."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return bytes(draw(st.binary(max_size=20)))
    opcode = draw(st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG]) if kind < 8 else st.integers(0, 15))
    # Of a server's peer masked, and the other way round, but for one in ten.
    mask = draw(KEYS) if writer.client != (kind == 1) else None
    rsv = draw(st.sampled_from([0, 0, 0, 4, 1, 2, 7]))
    if kind == 2:  # a header that promises more than comes, in more bytes than it needs perhaps
        length = draw(st.sampled_from([0, 5, 125, 126, 65535, 65536, 1 << 20, 2**63 - 1, 2**63, 2**64 - 1]))
        head = bytes([draw(st.booleans()) << 7 | rsv << 4 | opcode, (0x80 if mask is not None else 0) | 127])
        return head + length.to_bytes(8, "big") + (mask or b"") + bytes(draw(st.binary(max_size=8)))
    return frame(draw(PAYLOADS), opcode, fin=draw(st.booleans()), rsv=rsv, mask=mask)


def pieces(writer: Writer) -> st.SearchStrategy[bytes]:
    """One thing that a peer may send: mostly what is right, or no conversation would be long."""
    return st.one_of(messages(writer), messages(writer), messages(writer), controls(writer), oddities(writer))


@st.composite
def wires(draw: Any, client: bool, deflating: Deflating | None) -> bytes:
    """A whole stream from a peer, which is the client if `client`; half of them without a fault that is looked for."""
    writer = Writer(client, deflating)
    if draw(st.booleans()):
        return b"".join(draw(st.lists(messages(writer), max_size=12)))
    made = draw(st.lists(pieces(writer) | closes(writer), max_size=8))
    if draw(st.integers(0, 7)) == 0 and made:
        made[draw(st.integers(0, len(made) - 1))] = draw(st.binary(max_size=30))
    return b"".join(made)
