"""What an application declares of its channels, as other processes of the daemon are told: admin, and commands.

    declare           make the words of a worker, which its supervisor keeps and gives to who asks
    Declaration       what they say
    read              take them

Workers alone have the application. Without its policies another process would store too much, too little or nothing.
What must not live here: who is told when (supervisor/declarations.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ..channels import Channel
from ..exceptions import BusError

__all__ = ["Declaration", "declare", "read"]

LONGEST: Final = 65536
"""Bytes: they go through a socket whose other end may not read at this moment."""


class Declaration(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker's bus goes by.

    Attributes:
        channels: the policy of each prefix; None: the application declares no channels.
        message_limit: bytes of a message.
        size: of all that would be to say, where that is too much.
    """

    channels: dict[str, Channel] | None = None
    message_limit: int = 0
    size: int = 0


def declare(channels: Mapping[str, Channel] | None, message_limit: int) -> bytes:
    """Return what an application declares as JSON, of no more than 64 KiB."""
    said = msgspec.json.encode(Declaration(None if channels is None else dict(channels), message_limit))
    return said if len(said) <= LONGEST else msgspec.json.encode(Declaration(None, message_limit, len(said)))


def read(said: bytes | msgspec.Raw) -> Declaration:
    """Return what a worker has said, with channels.

    Raises:
        BusError: there are none, or they are not known; the message says why, and what to do.
    """
    try:
        found = msgspec.json.decode(said, type=Declaration)
    except msgspec.MsgspecError as error:
        raise BusError(f"what the application declares cannot be read: {error}") from None
    if found.size:
        raise BusError(
            f"the application declares so many channels that other processes are not told: {found.size} bytes, and"
            f" {LONGEST} are the limit; declare prefixes of their names, or publish in the application"
        )
    if found.channels is None:
        raise BusError("the application declares no channels")
    return found
