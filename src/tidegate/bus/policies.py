"""Each channel's policy, by the longest declared prefix, and what is checked at the door: names, sizes, keys, JSON.

What must not live here: who may join or publish, which the application is asked; counts of what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..channels import RESERVED, Channel, check_channels, name_fault
from ..exceptions import InvalidChannel, MessageTooBig

__all__ = [
    "CONTROL",
    "KEY_BYTES",
    "PRESENCE",
    "Policies",
    "check_key",
    "check_name",
    "check_payload",
    "encode_message",
    "sender_of",
]

CONTROL: Final = f"{RESERVED}control"
"""Channel of what processes tell each other about members."""

PRESENCE: Final = f"{RESERVED}presence"
"""Channel in which processes tell each other of which channels they have told the engine other names."""

KEY_BYTES: Final = 128
"""Bytes of a publisher's key in UTF-8: engines keep keys for minutes."""


class Policies:
    """The declared channels.

    Args:
        channels: a policy for each prefix; the one of "" is the default of the rest, else that is `Channel()`.

    Attributes:
        in_force: whether to go by them also where less is kept than by others. False: they are those of a process that
            may never serve, as a worker of a reload that fails.

    Raises:
        TypeError, ValueError: what is wrong with them.
    """

    def __init__(self, channels: Mapping[str, Channel] | None = None) -> None:
        if channels is not None:
            check_channels(channels)
        declared = dict(channels or {})
        self._default = declared.pop("", Channel())
        # The bus's own messages are for those who are there; what processes are told is not lost with a link.
        declared[RESERVED] = Channel()
        declared[CONTROL] = Channel(history=256, keep=60.0)
        self._declared = sorted(declared.items(), key=lambda item: len(item[0]), reverse=True)
        self.in_force = True

    @property
    def declared(self) -> dict[str, Channel]:
        """The policy of each prefix, that of the rest and of the bus's own channels included."""
        return {**dict(self._declared), "": self._default}

    @property
    def has_presence(self) -> bool:
        """Whether a channel may have presence."""
        return self._default.presence or any(policy.presence for _, policy in self._declared)

    def of(self, channel: str) -> Channel:
        """Return the policy of a channel."""
        for prefix, policy in self._declared:
            if channel.startswith(prefix):
                return policy
        return self._default

    def prefix_of(self, channel: str) -> str:
        """Return the declared prefix that a channel's policy comes from."""
        return next((prefix for prefix, _ in self._declared if channel.startswith(prefix)), "")


def check_name(channel: str) -> None:
    """Check the name of a channel.

    Raises:
        TypeError: it is no str.
        InvalidChannel: what is wrong with it.
    """
    if not isinstance(channel, str):
        raise TypeError(f"the name of a channel must be a str, not {type(channel).__qualname__}")
    fault = name_fault(channel)
    if fault is not None:
        raise InvalidChannel(channel, fault)


def check_payload(channel: str, payload: bytes, limit: int) -> None:
    """Check the size of a message: one over the output limit of an engine would cut off every worker.

    Raises:
        MessageTooBig: it is larger than the limit.
    """
    if len(payload) > limit:
        raise MessageTooBig(channel, len(payload), limit)


def check_key(key: str | None) -> None:
    """Check the key of a publication.

    Raises:
        TypeError, ValueError: it is none.
    """
    if key is None:
        return
    if not isinstance(key, str):
        raise TypeError(f"key must be a str or None, not {type(key).__qualname__}")
    size = len(key.encode(errors="surrogatepass"))
    if not 1 <= size <= KEY_BYTES:
        raise ValueError(f"key must have 1 to {KEY_BYTES} bytes in UTF-8, not {size}")


def encode_message(message: Any, json: bool) -> tuple[bytes, bool, bool]:
    """Return the bytes of a message, whether they are a text, and whether they are JSON.

    Raises:
        TypeError, ValueError: it cannot be published.
    """
    if isinstance(message, str):
        payload, text = message.encode(), True
    elif isinstance(message, bytes | bytearray | memoryview):
        payload, text = bytes(message), False
    else:
        return msgspec.json.encode(message), True, True
    if json:
        try:
            msgspec.json.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
            raise ValueError(f"json=True, and the message isn't JSON: {exc}") from None
        text = True
    return payload, text, json


def sender_of(member: Any) -> str:
    """Return what a connection or another member is called when it publishes.

    Raises:
        TypeError: it is none, or has joined no channel.
    """
    sender = getattr(member, "sender", None)
    if not isinstance(sender, str) or not sender:
        raise TypeError(f"exclude must be a connection that has joined a channel, or another member, not {member!r}")
    return sender
