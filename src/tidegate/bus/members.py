"""Who is given a channel's messages: what a member is, and the table of those who are given each as it comes.

This table is of Python objects, for the library and for iterators. What must not live here: order, joins (topic.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from ..channels import Gap, Message, PresenceEvent

__all__ = ["GONE", "Member", "MemberTable", "Members"]

GONE: Final = 64
"""Members that leave, beyond as many as stay, before a dict of them is made anew: it never shrinks by itself, and going
through one that was large takes as long as when it was."""


class Member(Protocol):
    """Who is given messages. Its methods raise nothing, and may leave or join channels.

    Attributes:
        sender: what it is called when it publishes.
    """

    sender: str

    def can_take(self, message: Message) -> bool:
        """Return whether there is room for a message of those that it missed.

        If not, `Topics.drained` is to be called when there is, and not before this has returned.
        """
        ...

    def deliver(self, message: Message) -> bool:
        """Take a message; return False if it was taken, and there is no room for more.

        When there is, and not before this has returned, `Topics.drained` is to be called. In a channel that recovers
        the latest message, and while older ones are given, nothing comes until then. In others messages come all the
        same, and the member has a limit of its own.
        """
        ...

    def gap(self, gap: Gap) -> None:
        """Take a notice that messages are missing."""
        ...

    def presence(self, event: PresenceEvent) -> None:
        """Take a notice that a member came to a channel, or went."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End: the members of a channel are closed."""
        ...

    def remove(self, channel: str) -> None:
        """Leave a channel: it is to have this member no more."""
        ...


class Members(Protocol):
    """The members of one channel that are given each message as it comes."""

    def add(self, member: Member) -> None:
        """Add a member that is not there."""
        ...

    def discard(self, member: Member) -> bool:
        """Remove a member; return whether it was there."""
        ...

    def fan_out(self, message: Message, latest: bool) -> dict[Member, bool]:
        """Give a message to all, but for its sender if that is excluded; return those who have no room for more.

        With each it says whether the message was taken. In a channel that recovers the latest message, one without room
        need not take it; `Topics.drained` is to be called when there is. Others need not be returned.
        """
        ...

    def tell(self, gap: Gap) -> None:
        """Give a notice to all."""
        ...

    def __contains__(self, member: object) -> bool: ...

    def __iter__(self) -> Iterator[Member]: ...

    def __len__(self) -> int: ...


class MemberTable:
    """`Members` in Python; in order of joining."""

    __slots__ = ("_gone", "_members")

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}
        self._gone = 0

    def add(self, member: Member) -> None:
        """Add a member that is not there."""
        self._members[member] = None

    def discard(self, member: Member) -> bool:
        """Remove a member; return whether it was there."""
        if self._members.pop(member, self) is self:
            return False
        self._gone += 1
        if self._gone > GONE + len(self._members):
            self._members, self._gone = dict(self._members), 0
        return True

    def fan_out(self, message: Message, latest: bool) -> dict[Member, bool]:
        """Give a message to all, but for its sender if that is excluded; return those who have no room for more."""
        excluded = message.sender if message.exclude else None
        # A copy: a member may leave, or make others leave, when it is given something.
        return {
            member: True
            for member in list(self._members)
            if member.sender != excluded and member in self._members and not member.deliver(message)
        }

    def tell(self, gap: Gap) -> None:
        """Give a notice to all."""
        for member in list(self._members):
            if member in self._members:
                member.gap(gap)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members))

    def __len__(self) -> int:
        return len(self._members)
