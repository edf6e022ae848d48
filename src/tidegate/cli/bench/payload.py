"""The message that is sent: objects in JSON of words and numbers, always the same ones for a size.

What must not live here: sending it (_core/load.pyx).
"""

from __future__ import annotations

import json
import random

from ..._core.load import Payload
from ...extensions.base import Extension
from ...frames import Frame, Opcode

__all__ = ["make_payload", "text_of"]

_WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jetty", "kelp", "lagoon")


def text_of(size: int) -> bytes:
    """So many bytes of ASCII that compress as messages of applications do: to about a third."""
    chance = random.Random(size)
    parts: list[str] = []
    length = 0
    while length < size:
        words = " ".join(chance.choices(_WORDS, k=4))
        parts.append(json.dumps({"id": chance.randrange(10**9), "user": chance.choice(_WORDS), "text": words}) + " ")
        length += len(parts[-1])
    return "".join(parts).encode()[:size]


def make_payload(size: int, in_flight: int, *, text: bool, extensions: list[Extension]) -> Payload:
    """Make the one frame of a message, compressed once if that was agreed on, and masked.

    It is compressed with an empty window, and so it can be sent again and again, with context takeover or without.
    """
    frame = Frame(Opcode.TEXT if text else Opcode.BINARY, text_of(size))
    for extension in extensions:
        frame = extension.encode(frame)
    first = 0x80 | frame.rsv1 << 6 | frame.opcode
    return Payload(first, bytes(frame.data), in_flight)
