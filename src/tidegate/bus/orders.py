"""What the processes of a bus tell each other about members, over channels of its own.

    Order       one such message
    Obedient    the member of those channels that does what they say

What must not live here: how members are found (topics.py), what they do about it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..channels import Gap, Message, PresenceEvent

if TYPE_CHECKING:
    from .members import Member
    from .topics import Topics

__all__ = ["Obedient", "Order"]


class Order(msgspec.Struct, omit_defaults=True):
    """A message of one process to all of them.

    Attributes:
        close: a channel, whose members are to be closed.
        code: close code of their connections.
        reason: for that.
        leave: a channel, which members are to leave.
        member: those of this name; None: all.
        seen: channels, of whose names the engine has others than before.
    """

    close: str | None = None
    code: int = 1000
    reason: str = ""
    leave: str | None = None
    member: str | None = None
    seen: list[str] = []

    def encode(self) -> bytes:
        """Return the payload."""
        return msgspec.json.encode(self)


class Obedient:
    """The member of the bus's own channels.

    Args:
        topics: whose members orders are about.
        name_of: returns the name of a member of a channel, None if it has none.
        nudged: takes channels of whose names the engine has others.
        logger: of the bus.
    """

    sender = ""

    def __init__(
        self,
        topics: Topics,
        name_of: Callable[[str, Member], str | None],
        nudged: Callable[[Sequence[str]], None],
        logger: logging.Logger,
    ) -> None:
        self._topics = topics
        self._name_of = name_of
        self._nudged = nudged
        self._logger = logger

    def can_take(self, message: Message) -> bool:
        """Return True."""
        return True

    def deliver(self, message: Message) -> bool:
        """Do what a process, or this one, tells all of them."""
        try:
            order = msgspec.json.decode(message.payload, type=Order)
        except msgspec.MsgspecError as exc:
            self._logger.warning("an order of the bus makes no sense: %s", exc)
            return True
        if order.close is not None:
            members = self._topics.members_of(order.close)
            self._topics.counts.closes["asked"] += len(members)
            for member in members:
                member.close(order.code, order.reason)
        if order.leave is not None:
            for member in self._topics.members_of(order.leave):
                if order.member is None or self._name_of(order.leave, member) == order.member:
                    member.remove(order.leave)
        self._nudged(order.seen)
        return True

    def gap(self, gap: Gap) -> None:
        """Nothing can be done about it."""

    def presence(self, event: PresenceEvent) -> None:
        """Do nothing: it is of no interest here."""

    def remove(self, channel: str) -> None:
        """It stays."""

    def close(self, code: int, reason: str) -> None:
        """It ends with the bus."""
