"""Subjects and heads of messages at NATS: how channels and what is known of a message become its words, and back.

    Words       subjects and streams of one bus
    pack_head, unpack_head      what is known of a message beside its payload, as headers
    find        the value of one header

A payload is what was published, so that other programs can read it. Names of channels are encoded: a space, a dot or
a `*` means something in a subject. What must not live here: connections, streams as they are (nats_streams.py).
"""

from __future__ import annotations

import hashlib
import re
import time
from base64 import urlsafe_b64encode
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from .base import Publication

__all__ = ["Head", "Words", "encode", "find", "pack_head", "status_of", "unpack_head"]

TOKEN: Final = 64
"""Characters of a policy's token; a longer one is its hash."""

_PLAIN = re.compile(r"[A-Za-z0-9-]", re.ASCII)
_SENDER = re.compile(r"[A-Za-z0-9_.:~-]{0,64}", re.ASCII)

HEAD: Final = b"\r\nTidegate: "


def encode(channel: str) -> str:
    """Return the token of a channel in subjects."""
    return urlsafe_b64encode(channel.encode()).decode().rstrip("=")


def _token(prefix: str) -> str:
    """Return the token of a policy, which operators read: letters, digits and `-` are themselves."""
    token = "".join(
        one if _PLAIN.fullmatch(one) else "".join(f"_{byte:02x}" for byte in one.encode()) for one in prefix
    )
    if len(token) > TOKEN:
        return "_h" + hashlib.sha256(prefix.encode()).hexdigest()[:32]
    return token or "_"


class Words:
    """Subjects and streams of one bus; those of one never are those of another.

    Args:
        bus: its name.
        worker: the name of this process.
    """

    def __init__(self, bus: str, worker: str) -> None:
        self.bus = bus
        self.root = f"tg.{bus}"
        self.inbox = f"tg.{bus}.w.{worker}."
        self.presence = f"tg.{bus}.p"

    def stream(self, prefix: str) -> str:
        """Return the name of a policy's stream."""
        return f"TG_{self.bus}_{_token(prefix)}"

    def stored(self, prefix: str) -> str:
        """Return what subjects begin with that a policy's stream stores."""
        return f"{self.root}.h.{_token(prefix)}."

    def live(self, prefix: str, birth: str) -> str:
        """Return what subjects begin with on which a stream that was born once gives what it stores."""
        return f"{self.root}.l.{_token(prefix)}.{birth}."

    def plain(self, channel: str) -> str:
        """Return the subject of a channel without history."""
        return f"{self.root}.c.{encode(channel)}"


class Head(NamedTuple):
    """What is known of a message beside its payload."""

    text: bool
    json: bool
    exclude: bool
    time: float
    sender: str


def pack_head(publication: Publication, identity: str | None = None) -> bytes:
    """Return the headers of a message.

    Args:
        publication: the message.
        identity: by which a stream stores it once.
    """
    flags = ("t" if publication.text else "") + ("j" if publication.json else "") + ("x" if publication.exclude else "")
    sender = publication.sender
    if _SENDER.fullmatch(sender) is None:
        sender = quote(sender, safe="")
    text = f"NATS/1.0\r\nTidegate: {flags};{time.time():.6f};{sender}\r\n"
    if identity is not None:
        text += f"Nats-Msg-Id: {identity}\r\n"
    return f"{text}\r\n".encode()


def find(headers: bytes, name: bytes) -> bytes | None:
    """Return the value of a header.

    Args:
        headers: all of them.
        name: between CRLF and colon-space, which are part of it.
    """
    start = headers.find(name)
    if start < 0:
        return None
    start += len(name)
    end = headers.find(b"\r\n", start)
    return headers[start : end if end >= 0 else None]


def status_of(headers: bytes) -> int:
    """Return the status of a reply that is no message; 0 for a message."""
    line = headers[:12]
    return int(line[9:12]) if line[8:9] == b" " and line[9:12].isdigit() else 0


def unpack_head(headers: bytes | None) -> Head:
    """Return what is known of a message; one without a head is binary, has no sender and came now."""
    value = find(headers, HEAD) if headers else None
    if value is not None:
        try:
            flags, when, sender = value.split(b";", 2)
            who = sender.decode("ascii")
            if "%" in who:
                who = unquote(who)
            return Head(b"t" in flags, b"j" in flags, b"x" in flags, float(when), who)
        except ValueError:
            pass
    return Head(False, False, False, time.time(), "")
